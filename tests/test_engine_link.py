"""A child's connection to an engine server that dies or hangs: who is to blame, and that nobody asks for ever."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from engines import served
from engines.link import Link, connect_to
from engines.server import Child, Children, Server
from engines.wire import LOADING, QUEUED, RUNNING, Arena, Line
from errors import EngineCrashed, EngineStalled, EngineUnavailable, LoadCrashed
from jobs.fallback import Fallback
from model_pool import ModelPool
from tests.engine_server import engine_server
from tests.processes import until
from tests.test_engine_conformance import OPTIONS, decoded, text
from tests.test_engine_server import engine_at, model_of, poisoned_server, row, stub_server

pytestmark = pytest.mark.timeout(180)
Request = dict[str, Any]
Life = Callable[[Line, Arena, Request], object]  # what a server does with its first question; then it dies


@contextmanager
def scripted_server(folder: Path, life: Life) -> Iterator[tuple[Link, list[Request]]]:
    """In this process: each connection is a server's whole life. All that it was asked."""
    path, asked = folder / "scripted", list[Request]()

    def live(connection: socket.socket) -> None:
        line = Line(connection)
        with suppress(OSError, EOFError):
            arena = line.receive_arena()
            asked.append(line.receive())
            life(line, arena, asked[-1])
        line.close()

    def listen(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                live(listener.accept()[0])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        Thread(target=listen, args=(listener,), daemon=True).start()
        link = Link(partial(connect_to, path, int), slots=2, answer_within_s=0.2)
        yield link, asked
        link.close()
        listener.shutdown(socket.SHUT_RDWR)


def dies(state: int, *, loading: bool, times: int = 5) -> Life:
    """While the one who asked was in that state; after so many deaths it answers."""
    lives = count()

    def life(line: Line, arena: Arena, request: Request) -> None:
        arena.set_state(request["slot"], state)
        arena.is_loading = loading
        if next(lives) == times:
            line.send({"id": request["id"], "tokens": []})
            line.receive()

    return life


def test_a_model_whose_load_kills_the_server_is_given_up_after_two_deaths(tmp_path: Path) -> None:
    with scripted_server(tmp_path, dies(LOADING, loading=True)) as (link, asked):
        with pytest.raises(LoadCrashed, match="killed the engine twice"):
            link.load("large-v3", "int8")
        assert [one["alone"] for one in asked] == [False, True], "nothing else runs the second time"


def test_a_row_whose_model_is_loaded_again_and_kills_the_server_is_given_up_as_such(tmp_path: Path) -> None:
    with scripted_server(tmp_path, dies(LOADING, loading=True)) as (link, asked):
        with link.slot() as slot, pytest.raises(LoadCrashed):
            link.ask_about(slot, "generate")
        assert len(asked) == 2


def test_a_row_that_kills_the_server_is_given_up_after_two_deaths(tmp_path: Path) -> None:
    with scripted_server(tmp_path, dies(RUNNING, loading=False)) as (link, asked):
        with link.slot() as slot, pytest.raises(EngineCrashed, match="This recording"):
            link.ask_about(slot, "generate")
        assert [one["alone"] for one in asked] == [False, True]


@pytest.mark.parametrize(("state", "loading"), [(RUNNING, True), (LOADING, False), (QUEUED, True), (QUEUED, False)])
def test_a_death_that_somebody_else_caused_counts_for_nobody_else(tmp_path: Path, state: int, loading: bool) -> None:
    """A row that ran while a load killed the server; who waited for a model while a row did; who waited at all."""
    with scripted_server(tmp_path, dies(state, loading=loading)) as (link, asked), link.slot() as slot:
        assert link.ask_about(slot, "generate")["tokens"] == []
        assert [one["alone"] for one in asked] == [False] * 6


def hangs(line: Line, arena: Arena, request: Request) -> None:
    """It accepts, reads, and never answers."""
    with suppress(EOFError):
        while True:
            line.receive()


QUESTIONS: dict[str, Callable[[Link], object]] = {
    "stats": lambda link: link.ask("stats"),
    "a row": lambda link: link.ask_about(0, "generate"),
    "a load": lambda link: link.load("base", "int8"),
    "an unload": lambda link: link.unload("base"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_server_that_hangs_is_waited_for_no_longer_than_it_may(tmp_path: Path, question: str) -> None:
    with scripted_server(tmp_path, hangs) as (link, _), pytest.raises(EngineStalled, match="does not answer"):
        QUESTIONS[question](link)
    assert not link._asked


def test_a_real_server_that_was_stopped_is_given_up_and_is_of_use_once_it_goes_on() -> None:
    with engine_server() as path:
        link = Link(partial(connect_to, path, int), slots=2, answer_within_s=5)
        server = psutil.Process(link.ask("stats")["pid"])
        link.load("demo", "int8")
        link._answer_within_s = 0.5
        server.suspend()
        try:
            with pytest.raises(EngineStalled):
                link.load("demo", "int8")
        finally:
            server.resume()
        until(lambda: works(link))
        link.close()


def works(link: Link) -> bool:
    try:
        return bool(link.load("demo", "int8")["folder"])
    except EngineStalled:
        return False


def test_a_server_that_dies_of_every_question_is_not_asked_for_ever(tmp_path: Path) -> None:
    with scripted_server(tmp_path, lambda *_: None) as (link, _), pytest.raises(EngineStalled):
        link.ask("stats")


def answers(line: Line, _: Arena, request: Request) -> None:
    """Everything at once, but for the load that it was asked for first."""
    if request["op"] == "stats":
        line.send({"id": request["id"], "waiting_windows": 9, "running_windows": 1})
    with suppress(EOFError):
        while True:
            line.send({"id": line.receive()["id"]})


def test_a_load_has_a_time_limit_even_where_the_server_answers_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.link.WORK_WITHIN_S", 1.0)
    with scripted_server(tmp_path, answers) as (link, _), pytest.raises(EngineStalled):
        link.load("base", "int8")


def test_a_device_that_hangs_is_the_last_that_gets_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.served.STATS_WITHIN_S", 0.2)
    folders = [tmp_path / name for name in ("hangs", "works")]
    for folder in folders:
        folder.mkdir()
    with scripted_server(folders[0], hangs) as (stalled, _), scripted_server(folders[1], answers) as (busy, _):
        assert min([stalled, busy], key=served._windows_at) is busy


def test_what_takes_long_is_waited_for_while_the_server_answers_otherwise(tmp_path: Path) -> None:
    """And meanwhile the child hears how long it waits for the device."""

    def slow(line: Line, arena: Arena, request: Request) -> None:
        for _ in range(3):
            ping = line.receive()
            assert ping["op"] == "ping"
            line.send({"id": ping["id"], "waited": 0.5})
        line.send({"id": request["id"], "tokens": [1]})
        hangs(line, arena, request)

    with scripted_server(tmp_path, slow) as (link, _), link.slot() as slot:
        assert link.ask_about(slot, "generate")["tokens"] == [1]
        assert link.waited_seconds == 1.5


def test_a_server_at_whose_door_too_many_wait_is_knocked_at_in_vain_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped, and accepts nobody: a connect would block."""
    monkeypatch.setattr("engines.link.CONNECT_WITHIN_S", 0.3)
    path = tmp_path / "stopped"
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(1)
        with suppress(BlockingIOError):
            while True:
                sock = sockets.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(str(path))
        with pytest.raises(EngineUnavailable):
            connect_to(path, int)


def test_a_device_that_does_not_say_how_it_is_holds_up_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU's driver may hang that is asked for its memory."""
    asked, go_on = Event(), Event()
    monkeypatch.setattr("engines.server.STATS_WITHIN_S", 0.1)
    monkeypatch.setattr(Server, "_stats", lambda _: {"asked": asked.set(), "went on": go_on.wait(20)})
    with stub_server(tmp_path, rows=8) as (_, link), ThreadPoolExecutor(1) as pool:
        first = pool.submit(link.ask, "stats")
        assert asked.wait(20)
        for _ in range(3):
            with pytest.raises(EngineStalled):
                link.ask("stats")
        assert row(link, 1) == 1
        go_on.set()
        assert first.result(20)["went on"]


def test_every_child_sees_that_a_model_is_being_opened() -> None:
    children = Children()
    lines = [Line(sock) for sock in socket.socketpair()]
    one, other = (Child(line, Arena.create(1)) for line in lines)
    children.add(one)
    with children.opening():
        with children.opening():
            children.add(other)
        assert [child.arena.is_loading for child in (one, other)] == [True, True]
        children.remove(other)
        assert not other.arena.is_loading, "it was dropped, and the server lives"
    assert not one.arena.is_loading
    for line in lines:
        line.close()


def test_a_job_whose_model_kills_every_server_goes_on_with_a_smaller_one_and_nobody_else_is_harmed(
    tmp_path: Path,
) -> None:
    """Real servers, which die as one does that the kernel kills for memory: in the midst of loading `small`."""
    window = decoded("english.wav")
    with poisoned_server(tmp_path) as (path, statuses):
        innocent = model_of(path)
        undisturbed = text(innocent.transcribe([window], OPTIONS)[0])
        fallback = Fallback(ModelPool(engine_at(path), size=2, max_size=2), "small")
        assert text(fallback.run(lambda model: model.transcribe([window], OPTIONS))[0]) == undisturbed
        assert fallback.rung.size == "base"
        until(lambda: statuses == [9, 9])
        strict = Fallback(ModelPool(engine_at(path), size=2, max_size=2, allow_smaller=False), "small")
        with pytest.raises(LoadCrashed):
            strict.run(lambda model: model.transcribe([window], OPTIONS))
        assert text(innocent.transcribe([window], OPTIONS)[0]) == undisturbed
        assert statuses == [9] * 4
