"""Signs of life: a row a process, refreshed every few seconds, with what it counts; and a look at what was ordered."""

import json
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

import errors
from config import Settings, get_settings
from database import transaction
from jobs import cordons
from jobs.orders import Watch
from models import ModelOrder, Process
from telemetry.events import emit

LONGEST_INTERVAL_S = 5.0
SIGNS_MISSED = 3  # a process that missed so many signs of life counts as gone


def new_birth() -> str:
    """Tells a worker from its predecessor: in a container both have the same host name and pid."""
    return uuid4().hex[:8]


@dataclass(frozen=True, slots=True)
class Identity:
    kind: str  # worker, relay
    host: str
    main_pid: int
    pid: int
    queues: tuple[str, ...] = ()
    born: str = field(default_factory=new_birth)  # the children of one worker are told theirs

    @property
    def worker(self) -> str:
        """Shared by the children of one worker."""
        return f"{self.host}:{self.main_pid}.{self.born}"

    @property
    def name(self) -> str:
        return f"{self.worker}:{self.pid}"


def interval_s(settings: Settings) -> float:
    return min(LONGEST_INTERVAL_S, settings.lease_seconds / 6)


def seen_within_s(settings: Settings) -> float:
    """Who gave a sign of life within so many seconds is alive."""
    return SIGNS_MISSED * interval_s(settings)


def devices_of(children: Sequence[Process]) -> list[dict[str, Any]]:
    """Each engine server, or child with an engine of its own, once: the children of a server all tell the same."""
    told = {
        (child.worker, one["pid"]): {**one, "worker": child.worker}
        for child in children
        for one in child.stats.get("devices", ())
    }
    return list(told.values())


def illnesses(children: Sequence[Process]) -> list[str]:
    """Why children claim no job, each reason once."""
    return sorted({child.illness["message"] for child in children if child.illness and is_ill(child)})


def is_ill(child: Process) -> bool:
    """One whose worker is cordoned claims no job either, and is as well as before."""
    return child.illness is not None and child.illness["code"] != cordons.CODE


def sign_in(
    identity: Identity, stats: Mapping[str, Any] | None = None, illness: Mapping[str, Any] | None = None
) -> None:
    """`illness`: {code, message, since}, of a child that claims no job."""
    changing = {"pool": _plain(stats or {}), "illness": _plain(illness) if illness else None, "seen_at": func.now()}
    row = {"id": identity.name, "kind": identity.kind, "worker": identity.worker, "queues": list(identity.queues)}
    statement = insert(Process).values(**row, **changing)
    with transaction() as session:
        session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changing))


def _plain(values: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(values, default=datetime.isoformat))


def sign_out(identity: Identity) -> None:
    with transaction() as session:
        session.execute(delete(Process).where(Process.id == identity.name))


def is_alive(host: str, settings: Settings) -> bool:
    """Whether a process of `host` signed in within a lease: the health check of containers that serve no port."""
    seen = Process.seen_at > func.now() - timedelta(seconds=settings.lease_seconds)
    with transaction() as session:
        query = select(Process.id).where(Process.id.startswith(f"{host}:", autoescape=True), seen)
        return session.scalar(query.limit(1)) is not None


class Presence:
    """Signs in again and again, on a thread. Where the database is away a sign is missed, nothing more.

    Another thread counts: a sign of life waits for no engine, and tells what was counted last.
    """

    def __init__(
        self,
        identity: Identity,
        settings: Settings,
        stats: Callable[[], Mapping[str, Any]],
        on_order: Callable[[ModelOrder], object] | None = None,
        illness: Callable[[], Mapping[str, Any] | None] = lambda: None,
        cordon: cordons.Watch | None = None,
    ) -> None:
        """`on_order` is told, on the same thread, of each order that was placed since the first look, once.

        `illness` tells why the child claims no job: {code, message, since}; None where it is well. `cordon` is
        refreshed with each sign of life.
        """
        self._identity = identity
        self._interval_s = interval_s(settings)
        self._stats = stats
        self._on_order = on_order
        self._illness = illness
        self._cordon = cordon
        self._orders = Watch()
        self._done = Event()
        self._counted: Mapping[str, Any] = {}
        self._thread = Thread(target=self._run, name="presence", daemon=True)
        self._counter = Thread(target=self._count, name="statistics", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._counter.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(timeout=self._interval_s)
        _attempt(lambda: sign_out(self._identity))

    def _run(self) -> None:
        while not self._done.is_set():
            self._look_for_orders()  # first, so that whoever is seen alive obeys what is ordered from then on
            _attempt(lambda: sign_in(self._identity, self._counted, self._why_not()))
            self._done.wait(self._interval_s)

    def _why_not(self) -> Mapping[str, Any] | None:
        cordoned = None if self._cordon is None else self._cordon.as_illness()
        return self._illness() or cordoned

    def _look_for_orders(self) -> None:
        if self._on_order is None:
            return
        try:
            with transaction() as session:
                orders = self._orders.unseen(session)
                if self._cordon is not None:
                    self._cordon.look(session)
            for order in orders:
                self._on_order(order)
        except errors.Unavailable:
            return
        except Exception as error:  # noqa: BLE001 orders that cannot be read must not make the child look dead
            emit("presence.orders_failed", reason=type(error).__name__)

    def _count(self) -> None:
        while not self._done.is_set():
            try:
                self._counted = self._stats()
            except Exception as error:  # noqa: BLE001 the next count may succeed
                emit("presence.statistics_failed", reason=type(error).__name__)
                self._counted = {}
            self._done.wait(self._interval_s)


def _attempt(action: Callable[[], None]) -> None:
    try:
        action()
    except errors.Unavailable:
        return


if __name__ == "__main__":
    sys.exit(not is_alive(socket.gethostname(), get_settings()))
