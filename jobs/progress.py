"""The heartbeat of a running attempt: renews the lease, hears of cancels, ends a child that no longer answers.

A thread, since it must beat while the main thread is inside native code. It never writes a status on its own account
except to give up the attempt it belongs to.
"""

import faulthandler
import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Self

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.sql.dml import ReturningUpdate

import errors
from config import Settings
from database import transaction
from jobs.states import Status
from models import Job

LONGEST_BEAT_S = 2.0  # so that a cancel is heard within 2 s, however long the lease
GRACE_S = 2.5  # time the main thread has to notice that the job is no longer its own; then the child leaves
LEAVE_CODE = 70  # EX_SOFTWARE: a child that ended itself


@dataclass(frozen=True, slots=True)
class Fence:
    """What identifies one attempt: the job, and the number the claim gave out."""

    job_id: uuid.UUID
    attempt: int


@dataclass(frozen=True, slots=True)
class Ended:
    """When the heartbeat found that the job is not this attempt's any more, and its status then (None: purged)."""

    status: str | None
    at: float


class Heartbeat:
    """`with Heartbeat(...) as beat:` around the work; `beat.check()` between steps raises what has happened."""

    def __init__(
        self,
        fence: Fence,
        *,
        lease_s: float,
        is_draining: Callable[[], bool],
        on_overdue: Callable[[], object],
        leave: Callable[[int], object] = os._exit,
        waited_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`on_overdue` records that the deadline passed, before `leave` ends the process.

        `waited_s`: seconds so far in which the device worked for others while this job waited. They move the deadline.
        """
        self._fence = fence
        self._lease_s = lease_s
        self._is_draining = is_draining
        self._on_overdue = on_overdue
        self._leave = leave
        self._waited_s = waited_s
        self._waited_before_s = waited_s()  # what the deadline knows of
        self._done = Event()
        self._renewed_at = monotonic()
        self._ended: Ended | None = None
        self._interval_s = min(lease_s / 4, LONGEST_BEAT_S)
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)
        self._watchdog = Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._watchdog.join()
        faulthandler.cancel_dump_traceback_later()  # first: a beat that a frozen database holds up ends nobody
        self._thread.join(timeout=self._lease_s)

    def check(self) -> None:
        """Raises Cancelled, LeaseLost or Draining if the attempt must end; cheap enough for every step."""
        if self._ended is not None and self._ended.status == Status.CANCELLED:
            raise errors.Cancelled("The job was cancelled.")
        if self._ended is not None or monotonic() - self._renewed_at > self._lease_s:
            raise errors.LeaseLost("The lease ran out; another attempt may be running.")
        if self._is_draining():
            raise errors.Draining("The worker is shutting down.")

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):  # the claim has just set the lease
            overdue = self._beat()
            if self._must_leave(overdue=overdue):
                self._leave(LEAVE_CODE)

    def _watch(self) -> None:
        """Arm a C thread of CPython's that needs no GIL: it ends the process where native code holds it for a lease.

        Not from the heartbeat's thread: a frozen database may hold that up, and is no reason to end the process.
        """
        while not self._done.is_set():
            faulthandler.dump_traceback_later(self._lease_s, exit=True, file=sys.__stderr__)  # type: ignore[arg-type]
            self._done.wait(self._interval_s)

    def _beat(self) -> bool:
        """Renew the lease. True: the attempt is past its deadline."""
        asked_at = monotonic()
        try:
            overdue = self._renew()
        except errors.Unavailable:
            return False  # not renewed: check() raises when this lasts for a lease
        if overdue is not None:
            self._renewed_at = asked_at
        return bool(overdue)

    def _renew(self) -> bool | None:
        """Whether the deadline has passed; None, and `_ended`, where the job is not ours any more."""
        waited_s = self._waited_s()
        with transaction() as session:
            overdue = session.scalar(_renewal(self._fence, self._lease_s, waited_s - self._waited_before_s))
            if overdue is None and self._ended is None:
                status = session.scalar(select(Job.status).where(Job.id == self._fence.job_id))
                self._ended = Ended(status, monotonic())
        self._waited_before_s = waited_s
        return overdue

    def _must_leave(self, *, overdue: bool) -> bool:
        if self._done.is_set():
            return False
        if overdue:
            self._on_overdue()
            return not self._done.is_set()
        return self._ended is not None and monotonic() - self._ended.at > GRACE_S


def deadline_after_progress(settings: Settings) -> ColumnElement[datetime]:
    """For an attempt that has just got on: never less time than it has, and as much as a new one."""
    return func.greatest(Job.deadline_at, func.now() + timedelta(seconds=settings.deadline_base_seconds))


def _renewal(fence: Fence, lease_s: float, waited_s: float) -> ReturningUpdate[bool]:
    return (
        update(Job)
        .where(Job.id == fence.job_id, Job.attempt == fence.attempt, Job.status == Status.PROCESSING)
        .values(
            lease_until=func.now() + timedelta(seconds=lease_s),
            deadline_at=Job.deadline_at + timedelta(seconds=waited_s),
        )
        .returning(Job.deadline_at < func.now())
    )
