"""Why a job waits: a pure function of the job, and of facts about all jobs that are looked at every few seconds."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from time import monotonic

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from jobs import read
from jobs.cordons import CODE
from jobs.pauses import CALLER, QUEUE, pauses
from jobs.routing import queue_for
from jobs.states import Status
from models import Job, Process, Result

QUEUED = "queued"  # nothing is in its way but other jobs
FRESH_S = 5.0
RECENT = 20  # results that an estimate goes by


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true for all jobs."""

    drawn: frozenset[str]  # queues that somebody draws from who is well
    at_once: int  # jobs that can run at once
    ill: int  # worker children
    cordoned: int  # likewise
    mean_s: float | None  # processing time of the last results
    clock_ahead: timedelta  # the database's, which says what is due
    paused_queues: frozenset[str] = frozenset()
    paused_callers: frozenset[str] = frozenset()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock_ahead


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    detail: str


_lock = Lock()
_known: dict[Engine, tuple[float, Facts]] = {}  # of this process's database


def facts(session: Session, *, within_s: float = 30) -> Facts:
    """As they were at most FRESH_S ago."""
    engine = session.get_bind().engine
    with _lock:
        seen_at, known = _known.get(engine, (0.0, None))
    if known is None or monotonic() - seen_at > FRESH_S:
        known = look(session, within_s=within_s)
        with _lock:
            _known.clear()
            _known[engine] = (monotonic(), known)
    return known


def look(session: Session, *, within_s: float) -> Facts:
    """As they are now."""
    drawn = read.drawn_queues(session, within_s=within_s)
    idle = session.scalars(select(Process.illness).where(read.is_seen(within_s), Process.illness.is_not(None))).all()
    cordoned = sum(one is not None and one["code"] == CODE for one in idle)
    recent = select(Result.processing_s).order_by(Result.created_at.desc()).limit(RECENT).subquery()
    mean_s = session.scalar(select(func.avg(recent.c.processing_s)))
    paused = pauses(session)
    return Facts(
        frozenset(queue for queues in drawn for queue in queues),
        len(drawn),
        len(idle) - cordoned,
        cordoned,
        None if mean_s is None else float(mean_s),
        _clock_ahead(session),
        frozenset(one.name for one in paused if one.kind == QUEUE),
        frozenset(one.name for one in paused if one.kind == CALLER),
    )


def _clock_ahead(session: Session) -> timedelta:
    asked_at = datetime.now(UTC)
    return (session.scalar(select(func.clock_timestamp())) or asked_at) - asked_at


def place(session: Session, job: Job, now: datetime) -> int | None:
    """In line, from 1; None unless it is due."""
    return read.queue_position(session, job) if job.run_at <= now else None


def reason_for(job: Job, known: Facts, position: int | None, now: datetime) -> Reason | None:
    """None unless it is pending."""
    if job.status != Status.PENDING:
        return None
    queue = queue_for(priority=job.priority, retrying=job.retrying)
    if reason := _paused(job, queue, known):
        return reason
    if job.run_at > now:
        return _not_due(job)
    if queue not in known.drawn:
        return _no_worker(queue, known)
    return Reason(QUEUED, _turn(position))


def _turn(position: int | None) -> str:
    if position is None:
        return "It waits for its turn."
    return "It is next." if position == 1 else f"Jobs that are taken before it: {position - 1}."


def _paused(job: Job, queue: str, known: Facts) -> Reason | None:
    if job.owner in known.paused_callers:
        return Reason("paused", "An operator has paused the jobs of this caller.")
    return Reason("paused", f"An operator has paused the queue {queue}.") if queue in known.paused_queues else None


def _no_worker(queue: str, known: Facts) -> Reason:
    if known.drawn:
        return Reason("no_worker", f"It is due, and no worker that is well draws from {queue}.")
    idle = {"ill": known.ill, "cordoned": known.cordoned}
    trouble = " and ".join(f"{count} are {what}" for what, count in idle.items() if count)
    return Reason("no_worker", f"It is due, and no worker child takes jobs: {trouble or 'none is alive'}.")


def _not_due(job: Job) -> Reason:
    moment = job.run_at.isoformat(timespec="seconds")
    if job.stalled_at is not None:
        return Reason("worker_trouble", f"The worker could not do it, see `error`; it is tried again at {moment}.")
    if job.attempt:
        why = "An attempt failed, see `error`" if job.error_code else "Its worker gave it back"
        return Reason("retry", f"{why}; it is tried again at {moment}.")
    return Reason("scheduled", f"It is to run at {moment}.")
