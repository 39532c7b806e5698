"""What the relay does in one tick: expire leases, choose which doorbells to ring, forget dead workers.

One relay at a time: a transaction-level advisory lock, which a frozen leader loses with its transaction.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from config import Settings
from jobs import claim, read, routing
from jobs.dead import unnotified
from jobs.progress import Fence
from jobs.retry import Cause
from jobs.states import Status
from jobs.turns import take_turns
from models import Job, Process
from telemetry.events import emit

LEADER_LOCK = 7_203_412
SMALLEST_WINDOW = 4  # doorbells a queue holds at least, so that a pick-up never waits for the relay
EXPIRE_AT_MOST = 100  # jobs a tick
FORGET_PROCESSES_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Doorbell:
    queue: str
    job_id: uuid.UUID
    attempt: int  # the number that the claim will give out


def try_lead(session: Session, lock: int = LEADER_LOCK) -> bool:
    """Whether this transaction is the leader's."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(lock))))


def expire_leases(session: Session, settings: Settings) -> int:
    """Take back jobs whose worker is silent. Not within a lease of a database restart: nobody could renew."""
    up_since = func.pg_postmaster_start_time()
    lapsed = (
        select(Job)
        .where(
            Job.status == Status.PROCESSING,
            Job.lease_until < func.now(),
            up_since < func.now() - timedelta(seconds=settings.lease_seconds),
        )
        .order_by(Job.lease_until)
        .limit(EXPIRE_AT_MOST)
        .with_for_update(skip_locked=True)
    )
    return sum(_take_back(session, job, settings) for job in session.scalars(lapsed).all())


def _take_back(session: Session, job: Job, settings: Settings) -> bool:
    cause = Cause.LOSS if _is_worker_alive(session, job, settings) else Cause.INFRA
    emit("attempt.lost", job_id=str(job.id), attempt=job.attempt, worker=job.claimed_by, cause=cause)
    reason = claim.Reason("lost", "The worker died or went silent in the middle of the job.")
    return claim.give_up_attempt(
        session, Fence(job.id, job.attempt), reason, settings, cause=cause, worker=job.claimed_by
    )


def _is_worker_alive(session: Session, job: Job, settings: Settings) -> bool:
    """Whether any child of the same worker was seen lately: then only the child died."""
    worker = (job.claimed_by or "").rpartition(":")[0]
    seen = Process.seen_at > func.now() - timedelta(seconds=settings.lease_seconds / 2)
    return session.scalar(select(Process.id).where(Process.worker == worker, seen).limit(1)) is not None


def ring_waiting(
    session: Session, settings: Settings, *, queue_length: Callable[[str], int], ring: Callable[[Doorbell], None]
) -> int:
    """Fill each queue up to its window with jobs that are due, callers in turn. A doorbell rung twice is harmless."""
    window = max(SMALLEST_WINDOW, 2 * read.slots(session, within_s=settings.lease_seconds))
    rung = 0
    for queue in (routing.HIGH, routing.NORMAL, routing.RETRY):
        room = window - queue_length(queue)
        for doorbell in _choose(session, queue, settings, room=room, window=window) if room > 0 else ():
            ring(doorbell)
            rung += 1
    return rung


def _choose(session: Session, queue: str, settings: Settings, *, room: int, window: int) -> list[Doorbell]:
    if queue == routing.RETRY:
        return _due_again(session, queue, settings, Job.retrying.is_(True), limit=room)
    own = _in_turn(session, queue, "high" if queue == routing.HIGH else "normal", settings, room=room, window=window)
    if queue != routing.HIGH:
        return own
    aged = _room_for_aged(session, settings, window)
    return [*_promoted(session, settings, room=aged, window=window), *own] if aged > 0 else own


def _promoted(session: Session, settings: Settings, *, room: int, window: int) -> list[Doorbell]:
    """Jobs that have waited for long behind more urgent ones; where there are none of those, nothing is in the way.

    What took a child down stays alone on the retry queue, however long it waits.
    """
    waited_s = settings.promote_after_seconds
    is_old = Job.run_at <= func.now() - timedelta(seconds=waited_s)
    has_urgent = _is_waiting(session, "high")
    found: list[Doorbell] = []
    if has_urgent or _is_waiting(session, "normal"):
        again = and_(Job.retrying, Job.losses == 0, is_old)
        found += _due_again(session, routing.HIGH, settings, again, limit=room)
    if has_urgent and room > len(found):
        left = room - len(found)
        found += _in_turn(session, routing.HIGH, "normal", settings, room=left, window=window, waited_s=waited_s)
    return found


def _is_waiting(session: Session, priority: str) -> bool:
    due = (Job.status == Status.PENDING, Job.retrying.is_(False), Job.priority == priority, Job.run_at <= func.now())
    return session.scalar(select(Job.id).where(*due).limit(1)) is not None


def _in_turn(
    session: Session,
    queue: str,
    priority: str,
    settings: Settings,
    *,
    room: int,
    window: int,
    waited_s: float = 0,
) -> list[Doorbell]:
    turns = take_turns(
        session,
        priority,
        queue=queue,
        room=room,
        window=window,
        stale_s=settings.republish_seconds,
        waited_s=waited_s,
    )
    return [Doorbell(queue, turn.job_id, turn.attempt + 1) for turn in turns]


def _room_for_aged(session: Session, settings: Settings, window: int) -> int:
    """Aged jobs hold a share of the high queue, so that they never starve and never push the urgent ones out."""
    not_its_own = or_(Job.priority == "normal", Job.retrying.is_(True))
    waiting = (Job.status == Status.PENDING, not_its_own, Job.queue == routing.HIGH)
    held = session.scalar(select(func.count()).where(*waiting, Job.published_at >= _stale(settings))) or 0
    return max(0, window // routing.AGED_SHARE - held)


def _due_again(
    session: Session, queue: str, settings: Settings, which: ColumnElement[bool], *, limit: int
) -> list[Doorbell]:
    """Retried jobs by age, chosen and marked in one statement; undone with the transaction if ringing fails."""
    chosen = (
        select(Job.id)
        .where(
            Job.status == Status.PENDING,
            Job.run_at <= func.now(),
            or_(Job.published_at.is_(None), Job.published_at < _stale(settings)),
            which,
        )
        .order_by(Job.run_at, Job.created_at, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED")  # in an IN the planner may run it again for each row, LIMIT and all
    )
    mark = update(Job).where(Job.id == chosen.c.id).values(published_at=func.now(), queue=queue)
    rows = session.execute(mark.returning(Job.run_at, Job.created_at, Job.id, Job.attempt)).all()
    return [Doorbell(queue, job_id, attempt + 1) for _, _, job_id, attempt in sorted(rows)]


def _stale(settings: Settings) -> ColumnElement[datetime]:
    """A doorbell rung before this was lost, or nobody had time: ring it again."""
    return func.now() - timedelta(seconds=settings.republish_seconds)


def ring_dead_letters(
    session: Session, *, queue_length: Callable[[str], int], ring: Callable[[uuid.UUID], None]
) -> int:
    """One window at a time: the next only when the queue is empty, so that Redis never holds more."""
    if queue_length(routing.DLQ):
        return 0
    letters = unnotified(session, limit=2 * SMALLEST_WINDOW)
    for error_id in letters:
        ring(error_id)
    return len(letters)


def forget_processes(session: Session) -> None:
    session.execute(delete(Process).where(Process.seen_at < func.now() - FORGET_PROCESSES_AFTER))
