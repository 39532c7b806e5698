"""The engine server: rows of many children share the device, and neither its death nor a lack of memory costs a job."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from config import Settings
from engines import SAMPLE_RATE, Engine, Model, open_engine
from engines.lanes import WATCH_S, Lanes
from engines.link import Link, connect_to
from engines.raw import batch_key
from engines.server import Children, Server
from engines.wire import SEND_WITHIN_S, Arena, Line
from errors import EngineCrashed, EngineUnavailable, OutOfMemory
from model_pool import ModelPool
from tests.conftest import ROOT
from tests.engine_server import engine_server
from tests.processes import is_gone, until
from tests.test_engine_conformance import OPTIONS, decoded, text
from transcript import DecodeOptions, Segment

Audio = NDArray[np.float32]
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with engine_server() as path:
        yield path


@pytest.fixture(scope="module")
def batching() -> Iterator[Path]:
    with engine_server(BATCH_SIZE=8) as path:
        yield path


def engine_at(path: Path) -> Engine:
    return open_engine(Settings(), [path])


def model_of(path: Path) -> Model:
    return engine_at(path).load("demo", "default")


def pid_of(path: Path) -> int:
    return int(engine_at(path).pool_stats({})[0]["pid"])


@pytest.fixture(scope="module")
def windows() -> list[Audio]:
    """In four languages."""
    return [decoded(name) for name in ("english.wav", "german.mp3", "french.ogg", "spanish.webm")]


LANGUAGES = ("en", "de", "fr", "es")


def transcribe(model: Model, windows: list[Audio]) -> list[str]:
    return [
        text(model.transcribe([window], replace(OPTIONS, language=language))[0])
        for window, language in zip(windows, LANGUAGES, strict=True)
    ]


def test_sixteen_jobs_at_once_get_what_each_gets_alone(path: Path, windows: list[Audio]) -> None:
    alone = transcribe(model_of(path), windows)
    children = [model_of(path) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda child: transcribe(child, windows), children))
    assert together == [alone] * 16
    assert all(alone)


OPTION_SETS = (
    OPTIONS,
    replace(OPTIONS, beam_size=5),
    replace(OPTIONS, word_timestamps=True),
    replace(OPTIONS, initial_prompt="good morning"),
    replace(OPTIONS, task="translate"),
)


@pytest.mark.parametrize("options", OPTION_SETS, ids=["greedy", "beam", "words", "prompt", "translate"])
def test_rows_of_four_languages_in_one_batch_are_what_they_are_alone(
    path: Path, batching: Path, windows: list[Audio], options: DecodeOptions
) -> None:
    """By text, and by time to 0.05 s; the one server works row by row, the other on eight rows at once."""
    alone, together = model_of(path), [model_of(batching) for _ in range(16)]
    before = engine_at(batching).pool_stats({})[0]

    def one(number: int) -> tuple[Segment, ...]:
        asked = replace(options, language=LANGUAGES[number % 4])
        return together[number].transcribe([windows[number % 4]], asked)[0]

    expected = [
        alone.transcribe([window], replace(options, language=language))[0]
        for window, language in zip(windows, LANGUAGES, strict=True)
    ]

    def have_shared() -> bool:
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(one, range(16)))
        for number, segments in enumerate(found):
            assert text(segments) == text(expected[number % 4])
            for ours, theirs in zip(segments, expected[number % 4], strict=True):
                assert (ours.start, ours.end) == pytest.approx((theirs.start, theirs.end), abs=0.05)
        after = engine_at(batching).pool_stats({})[0]
        return bool(after["windows"] - before["windows"] > after["batches"] - before["batches"])

    until(have_shared)  # on a busy machine they may come one by one


def test_jobs_spread_over_the_devices(path: Path, batching: Path, windows: list[Audio]) -> None:
    """As DEVICE=cuda:0,cuda:1 has it: a server each, and a child asks the one that has less to do."""
    before = [engine_at(one).pool_stats({})[0]["windows"] for one in (path, batching)]
    children = [open_engine(Settings(), [path, batching]).load("demo", "default") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda child: transcribe(child, windows), children))
    assert found == [found[0]] * 8
    after = [engine_at(one).pool_stats({})[0]["windows"] for one in (path, batching)]
    assert all(now > then for now, then in zip(after, before, strict=True))


def kill_server(path: Path) -> None:
    pid = pid_of(path)
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid) and pid_of(path) != pid)


def test_a_server_that_is_killed_is_started_again_and_nobody_notices(path: Path, windows: list[Audio]) -> None:
    child = model_of(path)
    undisturbed = transcribe(child, windows)
    done: list[list[str]] = []

    def work() -> None:
        for _ in range(8):
            done.append(transcribe(child, windows))  # noqa: PERF401 (seen from outside while it goes on)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        for _ in range(2):
            kill_server(path)
            before = len(done)
            until(lambda before=before: len(done) > before)  # type: ignore[misc]
        working.result(timeout=120)
    assert done == [undisturbed] * 8


@contextmanager
def poisoned_server(folder: Path) -> Iterator[tuple[Path, list[int]]]:
    """Started again whenever it dies; the exit statuses so far."""
    path, statuses, done = folder / "poisoned", list[int](), Event()
    command = (sys.executable, "-m", "tests.poisoned_server", str(path), "cpu")

    def keep_alive() -> None:
        while not done.is_set():
            path.unlink(missing_ok=True)
            running.append(subprocess.Popen(command, cwd=ROOT))
            statuses.append(running[-1].wait())

    running: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=keep_alive, daemon=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        yield path, statuses
        done.set()
        running[-1].kill()
        thread.join()


def test_a_window_that_kills_the_server_twice_fails_alone(tmp_path: Path, windows: list[Audio]) -> None:
    poison = np.zeros(SAMPLE_RATE, np.float32)
    with poisoned_server(tmp_path) as (path, statuses), ThreadPoolExecutor(4) as pool:
        innocent = [model_of(path) for _ in range(4)]
        undisturbed = transcribe(innocent[0], windows)
        others = [pool.submit(lambda child: [transcribe(child, windows) for _ in range(3)], one) for one in innocent]
        with pytest.raises(EngineCrashed, match="killed the engine twice"):
            model_of(path).transcribe([poison], OPTIONS)
        assert [other.result(timeout=120) for other in others] == [[undisturbed] * 3] * 4
        assert statuses == [9, 9]
    assert EngineCrashed.retryable, "its attempt is counted as a crash"


def test_a_child_that_dies_leaves_nothing_waiting(path: Path, windows: list[Audio]) -> None:
    child = model_of(path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(child.transcribe, windows * 4, OPTIONS)
        child._links[0].close()  # type: ignore[attr-defined]
    until(lambda: engine_at(path).pool_stats({})[0]["waiting_windows"] == 0)


def test_a_server_whose_supervisor_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    told: list[str] = []
    engine = open_engine(Settings(), [tmp_path / "engine"], on_dead=lambda: told.append("dead"))
    with pytest.raises(EngineUnavailable, match="starts anew"):
        engine.load("demo", "default")
    assert told == ["dead"]


def test_the_server_ends_with_its_supervisor() -> None:
    with engine_server() as path:
        pid = pid_of(path)
    until(lambda: is_gone(pid))


def test_unloading_gives_the_memory_back() -> None:
    """Measured from outside: what the process holds after a hundred loads and unloads."""
    with engine_server(MODEL_POOL_SIZE=1, MODEL_POOL_MAX_SIZE=1) as path:
        engine = engine_at(path)
        process = psutil.Process(pid_of(path))
        held = []
        for compute_type in ["int8", "float32"] * 20:  # room for one: each load unloads the other
            engine.load("demo", compute_type)
            held.append(process.memory_info().rss)
        (stats,) = engine.pool_stats({})
        assert stats["evictions"] >= 39
        assert max(held[-10:]) - max(held[:10]) < 20_000_000


class StubModel:
    """Says how many rows it was given, and has memory for so many at once."""

    memory_bytes = 1000

    def __init__(self, rows: int, answer_bytes: int) -> None:
        self.rows = rows
        self.answer_bytes = answer_bytes
        self.calls: list[int] = []
        self.begun, self.go_on = Event(), Event()
        self.go_on.set()
        self.closed = False

    def facts(self) -> dict[str, Any]:
        return {}

    def run(self, operation: str, mels: list[Audio], requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.calls.append(len(mels))
        self.begun.set()
        assert self.go_on.wait(20)
        assert not self.closed
        assert len(set(map(batch_key, requests))) == 1
        if len(mels) > self.rows:
            raise OutOfMemory("The device ran out of memory.")
        return [{"first": float(mel[0, 0]), "more": self.answer_bytes * "-"} for mel in mels]

    def close(self) -> None:
        self.closed = True


class StubEngine:
    def __init__(self, rows: int, answer_bytes: int = 0) -> None:
        self.rows = rows
        self.answer_bytes = answer_bytes
        self.loaded: list[StubModel] = []

    def resolve(self, size: str, compute_type: str) -> tuple[str, str]:
        return size, compute_type

    def load(self, size: str, compute_type: str) -> StubModel:
        self.loaded.append(StubModel(self.rows, self.answer_bytes))
        return self.loaded[-1]

    def estimate_bytes(self, size: str, compute_type: str) -> int:
        return 1

    def free_bytes(self) -> int:
        return 10**9


@contextmanager
def stub_server(folder: Path, rows: int, answer_bytes: int = 0) -> Iterator[tuple[StubEngine, Link]]:
    """One lane, batches of 8, in this process; its device has memory for so many rows."""
    engine, path = StubEngine(rows, answer_bytes), folder / "stub"
    pool = ModelPool(engine, size=2, max_size=2)
    with socket.socket(socket.AF_UNIX) as listener, path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        listener.bind(str(path))
        listener.listen()
        server = Server(engine, pool, Lanes(pool, count=1, most=8), Children())  # type: ignore[arg-type]
        server.start()
        link = Link(partial(connect_to, path, int), slots=16)

        def welcome() -> None:
            with suppress(OSError):
                while True:
                    server.welcome(listener.accept()[0])

        threading.Thread(target=welcome, daemon=True).start()
        yield engine, link
        link.close()
        listener.shutdown(socket.SHUT_RDWR)


ABOUT = {
    "size": "base", "compute_type": "int8", "shape": (80, 10), "window": "", "length_s": 1.0, "urgent": False,
    "prompt": [1], "prompt_start": 0, "options": {},
}  # fmt: skip


def row(link: Link, number: int, **changes: Any) -> float:
    with link.slot() as slot:
        link.arena.mel(slot, (80, 10))[:] = number
        return float(link.ask_about(slot, "generate", **ABOUT | changes)["first"])


def test_rows_that_wait_together_go_together(tmp_path: Path) -> None:
    with stub_server(tmp_path, rows=8) as (engine, link), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: row(link, number), range(64))) == list(range(64))
        assert max(engine.loaded[0].calls) > 1


def test_what_cannot_share_a_batch_never_does(tmp_path: Path) -> None:
    with stub_server(tmp_path, rows=8) as (engine, link), ThreadPoolExecutor(12) as pool:
        changes: list[dict[str, Any]] = [
            {"options": {"beam_size": 5}}, {"prompt": [1, 2]}, {"prompt_start": 1}, {"compute_type": "float32"},
        ]  # fmt: skip
        kinds = [changes[number % 4] for number in range(48)]
        list(pool.map(lambda number: row(link, number, **kinds[number]), range(48)))
        assert sum(sum(model.calls) for model in engine.loaded) == 48
        assert max(max(model.calls) for model in engine.loaded) > 1


def test_out_of_memory_halves_the_batch_and_nobody_notices(tmp_path: Path) -> None:
    with stub_server(tmp_path, rows=2) as (_, link), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: row(link, number), range(64))) == list(range(64))


def test_out_of_memory_for_a_single_row_is_told_to_its_child(tmp_path: Path) -> None:
    with stub_server(tmp_path, rows=0) as (_, link), pytest.raises(OutOfMemory):
        row(link, 1)


def test_a_model_that_is_unloaded_while_it_works_answers_first(tmp_path: Path) -> None:
    with stub_server(tmp_path, rows=8) as (engine, link), ThreadPoolExecutor(1) as pool:
        link.load("base", "int8")
        (model,) = engine.loaded
        model.go_on.clear()
        working = pool.submit(row, link, 1)
        assert model.begun.wait(20)
        link.ask("unload", size="base")
        assert not model.closed
        model.go_on.set()
        assert working.result(20) == 1
        until(lambda: model.closed)
        assert row(link, 2) == 2
        assert len(engine.loaded) == 2, "who needs it after that has it loaded anew"


def test_a_child_that_reads_nothing_is_dropped_and_holds_up_nobody(tmp_path: Path) -> None:
    """A stopped process, say: its answers fill the socket, and then a lane would wait for it."""
    with stub_server(tmp_path, rows=8, answer_bytes=100_000) as (_, link), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "stub"))
        stopped = Line(sock)
        stopped.send_arena(Arena.create(16))
        for number in range(16):
            stopped.send({"op": "generate", "id": number, "slot": number, "alone": False, **ABOUT})
        started = monotonic()
        assert [row(link, number) for number in range(8)] == list(range(8))
        assert monotonic() - started < 3 * SEND_WITHIN_S
        with suppress(EOFError):
            while True:
                stopped.receive()


def anonymous_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


@pytest.mark.parametrize(("encoder", "kept_mb"), [("ctranslate2", 30), ("openvino", 15)])
def test_what_the_server_keeps_while_it_works_it_gives_back_afterwards(
    windows: list[Audio], encoder: str, kept_mb: int
) -> None:
    with engine_server(CPU_ENCODER=encoder) as path:
        model, pid = model_of(path), pid_of(path)
        idle = anonymous_mb(pid)
        transcribe(model, windows)
        busy = anonymous_mb(pid)
        assert busy > idle + kept_mb
        until(lambda: anonymous_mb(pid) < busy - 10, within_s=3 * WATCH_S)  # what MKL holds stays
