"""A child's connection to an engine server: any thread asks; what a killed server left open is asked again."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

import errors
from engines.supervisor import is_supervised
from engines.wire import LOADING, QUEUED, RUNNING, Arena, Line

CONNECT_WITHIN_S = 120.0  # a server that is started again loads libraries first
ANSWER_WITHIN_S = 60.0  # a server that is well answers what it knows at once, even on a busy machine
WORK_WITHIN_S = 3600.0  # a load may download, and rows wait for their turn, while the server answers `ping`
TRY_EVERY_S = 0.1
DEATHS_ALLOWED = 1  # of the server while it worked on one row; after the first the row runs alone

_TOLD = (
    errors.OutOfMemory, errors.EngineUnavailable, errors.EngineStalled, errors.ModelUnavailable, errors.DownloadFailed,
)  # fmt: skip
_ERRORS = {kind.__name__: kind for kind in _TOLD}


class _Gone(Exception):
    """The server went away before it answered. `loading`: while it opened a model."""

    def __init__(self, *, loading: bool) -> None:
        super().__init__()
        self.loading = loading


class Link:
    """One a child and device."""

    def __init__(
        self, connect: Callable[[], socket.socket], *, slots: int, answer_within_s: float = ANSWER_WITHIN_S
    ) -> None:
        """`connect` is asked again whenever the server went away; what it raises, `ask` raises."""
        self._connect = connect
        self._answer_within_s = answer_within_s
        self.arena = Arena.create(slots)
        self._free: Queue[int] = Queue()
        for slot in range(slots):
            self._free.put(slot)
        self._ids = count()
        self.waited_seconds = 0.0  # in which rows of ours waited for the device, and none ran
        self._lock = Lock()  # guards the one above and the two below
        self._line: Line | None = None
        self._asked: dict[int, Future[dict[str, Any]]] = {}

    def ask(self, operation: str, *, within_s: float | None = None, **fields: Any) -> dict[str, Any]:
        """What the server can tell at once. Raises what it raised, EngineStalled where it does not answer in time.

        EngineUnavailable where no server comes back.
        """
        within_s = within_s or self._answer_within_s
        until = monotonic() + within_s
        while True:
            try:
                return self._exchange({"op": operation, **fields}, within_s)
            except _Gone:
                if monotonic() > until:
                    raise _stalled() from None

    def ask_about(self, slot: int, operation: str, **fields: Any) -> dict[str, Any]:
        """As `ask`, about what is in a slot. Raises EngineCrashed where that kills one server after another.

        A death counts for who may have caused it: who loads, where a model was being opened; else who runs.
        """
        deaths, until = 0, monotonic() + WORK_WITHIN_S
        while True:
            self.arena.set_state(slot, QUEUED)
            try:
                return self._exchange({"op": operation, "slot": slot, "alone": deaths > 0, **fields}, WORK_WITHIN_S)
            except _Gone as death:
                deaths += self.arena.state(slot) == (LOADING if death.loading else RUNNING)
                if deaths > DEATHS_ALLOWED:
                    raise _crash(loading=death.loading) from None
                if monotonic() > until:
                    raise _stalled() from None

    def unload(self, size: str) -> None:
        self.ask("unload", within_s=WORK_WITHIN_S, size=size)

    def load(self, size: str, compute_type: str) -> dict[str, Any]:
        """Have the server hold a model. Raises what loading it raised, LoadCrashed where that kills the server."""
        with self.slot() as slot:
            return self.ask_about(slot, "load", size=size, compute_type=compute_type)

    @contextmanager
    def slot(self) -> Iterator[int]:
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)

    def close(self) -> None:
        if (line := self._line) is not None:
            self._lost(line)

    def _exchange(self, request: dict[str, Any], within_s: float) -> dict[str, Any]:
        answer: Future[dict[str, Any]] = Future()
        request["id"] = next(self._ids)
        with self._lock:
            line = self._line = self._line or self._connected()
            self._asked[request["id"]] = answer
        try:
            line.send(request)
        except OSError:
            self._lost(line)
        try:
            found = self._awaited(answer, within_s)
        finally:
            with self._lock:
                self._asked.pop(request["id"], None)
        if "error" in found:
            kind = _ERRORS.get(found["error"]["type"], errors.EngineError)
            raise kind(found["error"]["message"])
        return found

    def _awaited(self, answer: "Future[dict[str, Any]]", within_s: float) -> dict[str, Any]:
        """Where it may take long, ask now and then whether the server is there. Raises EngineStalled."""
        until = monotonic() + within_s
        while True:
            try:
                return answer.result(min(within_s, self._answer_within_s))
            except TimeoutError:
                if within_s <= self._answer_within_s or monotonic() > until:
                    raise _stalled() from None
                self.ask("ping")

    def _connected(self) -> Line:
        line = Line(self._connect())
        try:
            line.send_arena(self.arena)
        except OSError:
            line.close()
            raise _Gone(loading=False) from None
        Thread(target=self._hear, args=(line,), name="engine-answers", daemon=True).start()
        return line

    def _hear(self, line: Line) -> None:
        try:
            while True:
                answer = line.receive()
                with self._lock:
                    asked = self._asked.pop(answer["id"], None)
                    self.waited_seconds += answer.get("waited", 0.0)
                if asked is not None:
                    asked.set_result(answer)
        except (OSError, EOFError):
            self._lost(line)

    def _lost(self, line: Line) -> None:
        """Everybody who waits for this server asks the next one."""
        with self._lock:
            if self._line is not line:
                return
            self._line = None
            asked, self._asked = self._asked, {}
            loading = self.arena.is_loading  # now: the next server writes there too
        line.close()
        for answer in asked.values():
            answer.set_exception(_Gone(loading=loading))


def _stalled() -> errors.EngineStalled:
    return errors.EngineStalled("The engine server does not answer: its device or its driver hangs, or it was stopped.")


def _crash(*, loading: bool) -> errors.EngineCrashed:
    if loading:
        return errors.LoadCrashed(
            "Loading this model has killed the engine twice: it may need more memory than there is."
        )
    return errors.EngineCrashed("This recording has killed the engine twice.")


def connect_to(path: Path, on_dead: Callable[[], object]) -> socket.socket:
    """Wait for the server at `path`. Raises EngineUnavailable, after `on_dead`, where it does not come back."""
    until = monotonic() + CONNECT_WITHIN_S
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TRY_EVERY_S)  # a server that hangs accepts nobody, and in the end nobody can even knock
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
        else:
            sock.settimeout(None)
            return sock
        if monotonic() > until or not is_supervised(path):
            on_dead()
            raise errors.EngineUnavailable("The engine server does not come back; its worker starts anew.")
        Event().wait(TRY_EVERY_S)
