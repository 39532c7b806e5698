"""What is free and what a model takes: cgroup limits, the table, a file in another type; and no CUDA anywhere."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from config import MODEL_SIZES
from engines import memory
from engines.catalog import canonical

GB = 1024**3


def make_machine(root: Path, cgroup: str, available_kb: int = 8 * 1024**2) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {available_kb} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)


def make_v2(folder: Path, limit: str, used: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used}\ninactive_file {cache}\n")


def make_v1(folder: Path, limit: int, used: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {cache}\n")


def test_without_a_limit_the_machine_says_what_is_free(tmp_path: Path) -> None:
    make_machine(tmp_path, "0::/\n")
    make_v2(tmp_path / "sys/fs/cgroup", "max", 5 * GB)
    assert memory.cpu_free_bytes(tmp_path) == 8 * GB


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    make_machine(tmp_path, "0::/\n")
    make_v2(tmp_path / "sys/fs/cgroup", str(4 * GB), 3 * GB)
    assert memory.cpu_free_bytes(tmp_path) == GB


def test_the_page_cache_counts_as_free(tmp_path: Path) -> None:
    make_machine(tmp_path, "0::/\n")
    make_v2(tmp_path / "sys/fs/cgroup", str(4 * GB), 3 * GB, cache=2 * GB)
    assert memory.cpu_free_bytes(tmp_path) == 3 * GB


def test_a_limit_further_up_counts_too(tmp_path: Path) -> None:
    make_machine(tmp_path, "0::/system.slice/worker.service\n")
    make_v2(tmp_path / "sys/fs/cgroup/system.slice", str(2 * GB), GB)
    make_v2(tmp_path / "sys/fs/cgroup/system.slice/worker.service", str(4 * GB), GB)
    assert memory.cpu_free_bytes(tmp_path) == GB


@pytest.mark.parametrize("inner", ["", "docker/abc"], ids=["inside a container", "outside"])
def test_version_1_of_cgroups_counts_as_well(tmp_path: Path, inner: str) -> None:
    make_machine(tmp_path, "5:cpu:/x\n4:memory:/docker/abc\n0::/\n")
    make_v1(tmp_path / "sys/fs/cgroup/memory" / inner, 4 * GB, 3 * GB, cache=GB)
    assert memory.cpu_free_bytes(tmp_path) == 2 * GB


def test_a_group_over_its_limit_has_nothing_free(tmp_path: Path) -> None:
    make_machine(tmp_path, "0::/\n")
    make_v2(tmp_path / "sys/fs/cgroup", str(GB), 2 * GB)
    assert memory.cpu_free_bytes(tmp_path) == 0


def test_where_nothing_can_be_known_nothing_is_refused(tmp_path: Path) -> None:
    assert memory.cpu_free_bytes(tmp_path) == sys.maxsize


def test_this_machine_has_some_memory_free() -> None:
    assert 0 < memory.cpu_free_bytes() < 2**50


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_the_table_knows_every_size_and_int8_takes_half_the_weights(size: str) -> None:
    half, full, double = (memory.table_bytes(canonical(size), kind) for kind in ("int8_float16", "float16", "float32"))
    assert half is not None
    assert full is not None
    assert double is not None
    assert double - full == 2 * (full - half) > 0


def test_the_table_does_not_guess_about_a_path() -> None:
    assert memory.table_bytes("/models/mine", "int8") is None


@pytest.mark.parametrize("stored", [None, "float16", "int8"])
@pytest.mark.parametrize(("loaded", "width"), [("float32", 4), ("float16", 2), ("int8_float16", 1)])
def test_a_file_says_what_its_weights_take_in_any_type(
    tmp_path: Path, stored: str | None, loaded: str, width: int
) -> None:
    """Written by CTranslate2 itself: this fails when its format changes."""
    import numpy as np
    from ctranslate2.specs import model_spec

    class Spec(model_spec.ModelSpec):  # type: ignore[misc]
        name, revision = "Spec", 1

        def __init__(self) -> None:
            super().__init__()
            self.weight = np.ones((40, 50), dtype=np.float32)

    spec = Spec()
    spec.validate()
    spec.optimize(quantization=stored)
    spec.save(str(tmp_path))
    found = memory.model_bytes(tmp_path / "model.bin", loaded)
    assert width * 40 * 50 <= found <= width * 40 * 50 + 40 * 4 + 64  # int8 files hold a scale a row


def test_a_file_in_an_unknown_format_takes_what_it_is_long(tmp_path: Path) -> None:
    for content in (b"", b"\x06\0\0\0\xff\xff", b"weights" * 1000):
        (tmp_path / "model.bin").write_bytes(content)
        assert memory.model_bytes(tmp_path / "model.bin", "int8") == len(content)


def test_gpus_are_counted_without_cuda_and_none_is_no_error() -> None:
    assert memory.gpu_count() >= 0
    assert memory.gpu_free_bytes() > 0


def test_a_process_that_may_see_no_gpu_counts_none() -> None:
    code = "from engines.memory import gpu_count; print(gpu_count())"
    for hidden in ("", "-1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[1],
            env={"CUDA_VISIBLE_DEVICES": hidden, "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "0\n"


def test_opening_an_engine_loads_no_native_library() -> None:
    """A parent that has CTranslate2 or CUDA hangs the children that it forks."""
    code = (
        "import sys; from config import Settings; from engines import open_engine, catalog; import model_pool\n"
        "settings = Settings(_env_file=None)\n"
        "engine = open_engine(settings); engine.default_batch(); engine.resolve('base', 'default')\n"
        "engine.estimate_bytes('base', 'default'); catalog.is_cached('base', settings)\n"
        "model_pool.ModelPool(engine, size=1, max_size=1)\n"
        "open_engine(settings.model_copy(update={'engine': 'fake'}))\n"
        "heavy = {'faster_whisper', 'ctranslate2', 'huggingface_hub', 'numpy', 'av', 'onnxruntime', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_what_the_operator_tells_malloc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "engines.memory.ctypes.CDLL", lambda _: SimpleNamespace(mallopt=lambda *pair: told.append(pair))
    )
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=4")
    memory.keep_freed()
    assert told == []
    monkeypatch.delenv("GLIBC_TUNABLES")
    memory.keep_freed()
    assert (memory.M_MMAP_MAX, 0) in told
