"""A TCP proxy in front of PostgreSQL or the API that passes everything on, until a test asks it to cut or to swallow.

psycopg2 speaks the simple protocol: a transaction is BEGIN, its statements as plain text, COMMIT. That is all it reads.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

PIECE = 65536
LONGEST_TRANSACTION = 1024 * 1024  # bytes of it that are looked at
COMMIT, ROLLBACK = b"COMMIT\0", b"ROLLBACK\0"


class Moment(Enum):
    STATEMENT = auto()  # swallow from the statement on
    HOLD = auto()  # hold this one connection at the statement; the others go on
    COMMIT = auto()  # swallow from the COMMIT of its transaction on
    REPLY = auto()  # let the COMMIT through, cut before its reply
    SILENCE = auto()  # let the COMMIT through, and its reply never


@dataclass(eq=False)
class Trap:
    """Springs once, at the first transaction in which the statement is seen."""

    statement: bytes
    moment: Moment
    sprung: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)

    def springs(self, said: bytes) -> bool:
        if self.sprung.is_set() or self.statement not in said:
            return False
        if self.moment in (Moment.COMMIT, Moment.REPLY, Moment.SILENCE) and not said.endswith(COMMIT):
            return False
        self.sprung.set()
        return True


class Proxy:
    """`with Proxy(port) as proxy: connect(proxy.port)`."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._links: set[_Link] = set()
        self._lock = Lock()
        self._traps: list[Trap] = []
        self._is_open = Event()  # cleared: a black hole
        self._is_open.set()
        self.budget: int | None = None  # bytes of a client after which its connection is cut; None: no limit

    def __enter__(self) -> Self:
        Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() alone does not
        self._listener.close()
        self.cut()
        self.open()

    def cut(self) -> None:
        """Every connection, now. What was swallowed is lost."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    def swallow(self) -> None:
        """A black hole: connections stay, nothing passes, new ones are taken and not answered."""
        self._is_open.clear()

    def open(self) -> None:
        """What was swallowed goes on, as after a network partition."""
        self._is_open.set()

    @contextmanager
    def trap(self, statement: str, moment: Moment) -> Iterator[Trap]:
        trap = Trap(statement.encode(), moment)
        self._traps.append(trap)
        try:
            yield trap
        finally:
            self._traps.remove(trap)
            trap.released.set()
            self.open()

    @contextmanager
    def cutting_after(self, count: int) -> Iterator[None]:
        """Each connection is cut when its client has sent so many bytes; those that there are, at once."""
        self.budget = count
        self.cut()
        try:
            yield
        finally:
            self.budget = None

    def forget(self, link: "_Link") -> None:
        with self._lock:
            self._links.discard(link)

    def wait_open(self) -> None:
        self._is_open.wait()

    def sprung(self, said: bytes) -> Trap | None:
        trap = next((trap for trap in list(self._traps) if trap.springs(said)), None)
        if trap is not None and trap.moment in (Moment.STATEMENT, Moment.COMMIT):
            self.swallow()
        return trap

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            link.start()


class _Link:
    """One connection: a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._said = b""  # since the last COMMIT or ROLLBACK
        self._sent = 0
        self._mute: Trap | None = None  # the next reply is not passed on
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        for target in (self._up, self._down):
            Thread(target=self._until_cut, args=(target,), daemon=True).start()

    def close(self) -> None:
        self._proxy.forget(self)
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _until_cut(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):
            pump()
        self.close()

    def _up(self) -> None:
        while data := self._client.recv(PIECE):
            self._said = (self._said + data)[-LONGEST_TRANSACTION:]
            trap = self._proxy.sprung(self._said)
            self._mute = trap if trap is not None and trap.moment in (Moment.REPLY, Moment.SILENCE) else None
            if trap is not None and trap.moment is Moment.HOLD:
                trap.released.wait()
            if self._said.endswith((COMMIT, ROLLBACK)):
                self._said = b""
            self._proxy.wait_open()
            self._server.sendall(self._within_budget(data))

    def _within_budget(self, data: bytes) -> bytes:
        """Raises OSError after what is still allowed was sent."""
        budget = self._proxy.budget
        if budget is not None and self._sent + len(data) > budget:
            self._server.sendall(data[: max(0, budget - self._sent)])
            raise OSError("cut")
        self._sent += len(data)
        return data

    def _down(self) -> None:
        while data := self._server.recv(PIECE):
            self._proxy.wait_open()
            if self._mute is not None:
                if self._mute.moment is Moment.SILENCE:
                    self._mute.released.wait()
                return
            self._client.sendall(data)
