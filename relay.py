"""The relay process: rings the doorbells, of webhooks too, expires leases, follows up dead letters. No media.

Woken by NOTIFY and by a tick. Two or more may run; one leads at a time.
"""

import os
import select
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from threading import Event
from time import monotonic, time
from types import FrameType
from uuid import UUID

import psycopg2
from psycopg2 import extensions
from sqlalchemy.orm import Session

import errors
import tasks
from config import Settings, get_settings
from database import connect_arguments, database_url, transaction
from jobs import presence, sweep
from jobs.housekeeping import Housekeeper
from jobs.routing import WEBHOOKS
from jobs.states import NOTIFY_CHANNEL
from storage import open_storage
from telemetry import metrics
from telemetry.events import count, emit
from telemetry.exporter import start_exporter
from telemetry.logs import configure_logs
from webhooks import doorbells

FORGET_EVERY_S = 60


@dataclass(frozen=True, slots=True)
class Instant:
    monotonic: float = field(default_factory=monotonic)  # stands still while the machine sleeps
    wall: float = field(default_factory=time)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What to ring in one tick."""

    jobs: Sequence[sweep.Doorbell] = ()
    letters: Sequence[UUID] = ()
    deliveries: Sequence[doorbells.Doorbell] = ()


class Relay:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = Event()
        self._listening: extensions.connection | None = None
        self._forget_at = 0.0
        self._sign_in_at = 0.0
        self._identity = presence.Identity("relay", socket.gethostname(), os.getpid(), os.getpid())
        self._housekeeper = Housekeeper(settings, open_storage(settings))
        self._expire_from = 0.0
        self._ticked_at = Instant(-inf, -inf)

    def run(self) -> None:
        emit("relay.started")
        self._housekeeper.start()
        while not self._stop.is_set():
            self._listen()
            self._tick()  # also for what was said while nobody listened
            self._wait()
        self._housekeeper.stop()
        self._sign_out()

    def _sign_out(self) -> None:
        try:
            presence.sign_out(self._identity)
        except errors.Unavailable:
            emit("relay.database_away", reason="while stopping")
        emit("relay.stopped")

    def stop(self, signum: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _tick(self) -> None:
        started = monotonic()
        try:
            self._sign_in()
            with transaction() as session:
                if is_leader := sweep.try_lead(session):
                    self._sweep(session)
            if is_leader:
                rung = self._ring()
                count("relay.ticked", seconds=monotonic() - started, rung=rung)
            self._ticked_at = Instant()
        except errors.Unavailable as reason:
            self._expire_from = monotonic() + self._settings.lease_seconds
            emit("relay.database_away", reason=str(reason))

    def _sweep(self, session: Session) -> None:
        if self._may_expire():
            sweep.expire_leases(session, self._settings)
        if monotonic() >= self._forget_at:
            self._forget_at = monotonic() + FORGET_EVERY_S
            sweep.forget_processes(session)

    def _may_expire(self) -> bool:
        """Not within a lease of a silence, be it ours, the database's or a sleeping machine's: nobody could renew."""
        now, before = Instant(), self._ticked_at
        longest_s = self._settings.lease_seconds / 2 + self._settings.relay_tick_seconds
        if max(now.monotonic - before.monotonic, now.wall - before.wall) > longest_s:
            self._expire_from = now.monotonic + self._settings.lease_seconds
        return now.monotonic >= self._expire_from

    def _sign_in(self) -> None:
        if monotonic() >= self._sign_in_at:
            self._sign_in_at = monotonic() + presence.interval_s(self._settings)
            presence.sign_in(self._identity, self._housekeeper.stats())

    def _ring(self) -> int:
        """How many jobs. Redis is asked before the transaction and told after it: no row is locked meanwhile."""
        try:
            lengths = tasks.queue_lengths()
            with transaction() as session:
                chosen = self._choose(session, lengths) if sweep.try_lead(session) else _Chosen()
            self._publish(chosen)
            return len(chosen.jobs)
        except tasks.BROKER_ERRORS as reason:
            emit("relay.redis_away", reason=type(reason).__name__)
            return 0

    def _choose(self, session: Session, lengths: dict[str, int]) -> "_Chosen":
        return _Chosen(
            sweep.choose_waiting(session, self._settings, lengths),
            sweep.choose_dead_letters(session, lengths),
            doorbells.choose_due(session, self._settings, length=lengths[WEBHOOKS]),
        )

    def _publish(self, chosen: "_Chosen") -> None:
        try:
            tasks.publish(chosen.jobs, chosen.letters, chosen.deliveries)
        except tasks.BROKER_ERRORS:
            with transaction() as session:  # where this fails too, they are rung again after REPUBLISH_SECONDS
                sweep.unring(session, chosen.jobs)
                doorbells.unring(session, chosen.deliveries)
            raise

    def _wait(self) -> None:
        """Until somebody notifies or a tick has passed; without a listening connection, just the tick."""
        if self._listening is None:
            self._stop.wait(self._settings.relay_tick_seconds)
            return
        try:
            if select.select([self._listening], [], [], self._settings.relay_tick_seconds)[0]:
                self._listening.poll()
                self._listening.notifies.clear()
        except (psycopg2.Error, OSError):
            self._listening = None

    def _listen(self) -> None:
        if self._listening is not None and not self._listening.closed:
            return
        arguments = connect_arguments(self._settings, application="relay-listen")
        url = database_url(self._settings).set(drivername="postgresql")
        try:
            self._listening = psycopg2.connect(url.render_as_string(hide_password=False), **arguments)
            self._listening.set_isolation_level(extensions.ISOLATION_LEVEL_AUTOCOMMIT)
            with self._listening.cursor() as cursor:
                cursor.execute(f"LISTEN {NOTIFY_CHANNEL}")
        except (psycopg2.Error, OSError):
            self._listening = None


def main() -> None:
    settings = get_settings()
    settings.require_servers()
    configure_logs(level=settings.log_level, fmt=settings.log_format, process="relay")
    metrics.start()
    start_exporter(settings)
    relay = Relay(settings)
    signal.signal(signal.SIGTERM, relay.stop)
    signal.signal(signal.SIGINT, relay.stop)
    relay.run()


if __name__ == "__main__":
    main()
