"""What operators order of engine servers: a model on every device before anybody needs it, and its memory back."""

from pathlib import Path

import pytest

from config import Settings
from engines import Engine, open_engine
from errors import OutOfMemory
from tests.engine_server import engine_server
from tests.test_engine_conformance import write_model
from tests.test_engine_server import anonymous_mb, engine_at, pid_of

pytestmark = pytest.mark.timeout(180)


def test_a_model_that_is_unloaded_gives_its_memory_back(tmp_path: Path) -> None:
    """Of a server that keeps room for it: only the order unloads it. It is written here, as `demo` is too small."""
    write_model(tmp_path / "large", width=512)
    with engine_server(MODEL_POOL_SIZE=2, MODEL_ALLOWED_PATHS=tmp_path, COMPUTE_TYPE="float32") as path:
        engine, pid = engine_at(path), pid_of(path)
        engine.warm("demo")  # what the libraries take for themselves
        before = anonymous_mb(pid)
        for _ in range(3):
            engine.warm(f"{tmp_path}/large")
            taken = anonymous_mb(pid) - before
            engine.unload(f"{tmp_path}/large")
            left = anonymous_mb(pid) - before
            assert taken > 100
            assert left < 0.15 * taken
        assert sizes_at(engine) == [["demo"]]


def sizes_at(engine: Engine) -> list[list[str]]:
    """Of each device."""
    return [sorted(model["size"] for model in one["loaded"]) for one in engine.pool_stats({})]


def test_a_model_is_warmed_and_unloaded_on_every_device() -> None:
    with engine_server() as one, engine_server() as other:
        engine = open_engine(Settings(), [one, other])
        engine.warm("demo")
        assert sizes_at(engine) == [["demo"], ["demo"]]
        engine.unload("demo")
        assert sizes_at(engine) == [[], []]


def test_what_one_device_refuses_the_others_do() -> None:
    with engine_server(MODEL_POOL_MEMORY_MB=1) as full, engine_server() as path:  # demo has 8 MB
        engine = open_engine(Settings(), [full, path])
        with pytest.raises(OutOfMemory, match="budget"):
            engine.warm("demo")
        assert sizes_at(engine) == [[], ["demo"]]
