"""What the relay does in one tick: expire leases, choose which doorbells to ring, forget dead workers.

One relay at a time: a transaction-level advisory lock, which a frozen leader loses with its transaction.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from config import Settings
from jobs import claim, cordons, read, routing
from jobs.dead import unnotified
from jobs.pauses import is_paused, paused_queues
from jobs.progress import Fence
from jobs.retry import Cause
from jobs.states import Status
from jobs.turns import take_turns, unmark
from models import Job, Process
from telemetry.events import emit

LEADER_LOCK = 7_203_412
SMALLEST_WINDOW = 4  # doorbells a queue holds at least, so that a pick-up never waits for the relay
NEVER_S = 1e9
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


def choose_waiting(session: Session, settings: Settings, lengths: Mapping[str, int]) -> list[Doorbell]:
    """Mark as rung what fills each queue up to its window: jobs that are due, callers in turn.

    The caller publishes them after its COMMIT, so that a claim never waits for Redis. A doorbell rung twice is
    harmless. `lengths`: messages in each queue.
    """
    drawn = read.drawn_queues(session, within_s=settings.lease_seconds)
    window = max(SMALLEST_WINDOW, 2 * len(drawn))
    held, chosen = dict(lengths), list[Doorbell]()
    paused = paused_queues(session)
    for queue in [queue for queue in routing.OF_JOBS if queue not in paused]:
        way = replace(_Way.of_class(queue, session, settings, drawn, window), paused=paused)
        if (room := window - held[way.queue]) > 0:
            found = _choose(way, room, length=held[way.queue])
            held[way.queue] += len(found)
            chosen += found
    return chosen


@dataclass(frozen=True, slots=True)
class _Way:
    """How the jobs of a class reach a worker in this tick."""

    session: Session
    settings: Settings
    of: str  # the queue of their class
    queue: str  # where they are rung
    window: int
    waited_s: float  # only those that are due for so long
    is_retry_alone: bool  # whether somebody draws from the retry queue and from none of the others
    paused: set[str] = field(default_factory=set)  # queues

    @classmethod
    def of_class(
        cls, queue: str, session: Session, settings: Settings, drawn: Sequence[set[str]], window: int
    ) -> "_Way":
        """In a queue that nobody draws from jobs would be stuck. A worker that only starts anew is waited for first."""
        served = [one for one in routing.OF_JOBS if any(one in queues for queues in drawn)]
        target = queue if queue in served or not served else served[0]
        waited_s = 0 if target == queue else settings.promote_after_seconds
        is_retry_alone = any(
            routing.RETRY in queues and not queues & {routing.HIGH, routing.NORMAL} for queues in drawn
        )
        return cls(session, settings, queue, target, window, waited_s, is_retry_alone)


def _rung(session: Session, queue: str) -> int:
    """Waiting jobs whose doorbell should lie in the queue."""
    is_rung = (Job.status == Status.PENDING, Job.queue == queue, Job.published_at.is_not(None))
    return session.scalar(select(func.count()).where(*is_rung)) or 0


def _choose(way: _Way, room: int, *, length: int) -> list[Doorbell]:
    """`length`: messages in the queue. Where none was lost, none is rung again while long jobs keep everybody busy."""
    if way.of == routing.RETRY:
        return _due_again(way, limit=room)
    is_whole = length >= _rung(way.session, way.queue)
    stale_s = NEVER_S if is_whole else way.settings.republish_seconds
    own = _in_turn(way, "high" if way.of == routing.HIGH else "normal", room=room, stale_s=stale_s)
    if way.of != routing.HIGH or way.queue != routing.HIGH:
        return own
    aged = _room_for_aged(way.session, way.settings, way.window)
    return [*_promoted(replace(way, waited_s=way.settings.promote_after_seconds), room=aged), *own] if aged > 0 else own


def _promoted(way: _Way, *, room: int) -> list[Doorbell]:
    """Jobs that have waited for long behind more urgent ones; where there are none of those, nothing is in the way.

    What took a child down stays on the retry queue, unless all who draw from that draw from the others first.
    """
    has_urgent, found = _is_waiting(way.session, "high"), list[Doorbell]()
    if not way.is_retry_alone and (has_urgent or _is_waiting(way.session, "normal")):
        found = _due_again(way, limit=room)
    if has_urgent and room > len(found) and routing.NORMAL not in way.paused:
        found += _in_turn(way, "normal", room=room - len(found), stale_s=way.settings.republish_seconds)
    return found


def _is_waiting(session: Session, priority: str) -> bool:
    due = (Job.status == Status.PENDING, Job.retrying.is_(False), Job.priority == priority, Job.run_at <= func.now())
    return session.scalar(select(Job.id).where(*due).limit(1)) is not None


def _in_turn(way: _Way, priority: str, *, room: int, stale_s: float) -> list[Doorbell]:
    turns = take_turns(
        way.session,
        priority,
        queue=way.queue,
        room=room,
        window=way.window,
        stale_s=stale_s,
        waited_s=way.waited_s,
    )
    return [Doorbell(way.queue, turn.job_id, turn.attempt + 1) for turn in turns]


def _room_for_aged(session: Session, settings: Settings, window: int) -> int:
    """Aged jobs hold a share of the high queue, so that they never starve and never push the urgent ones out."""
    not_its_own = or_(Job.priority == "normal", Job.retrying.is_(True))
    waiting = (Job.status == Status.PENDING, not_its_own, Job.queue == routing.HIGH)
    held = session.scalar(select(func.count()).where(*waiting, Job.published_at >= _stale(settings))) or 0
    return max(0, window // routing.AGED_SHARE - held)


def _due_again(way: _Way, *, limit: int) -> list[Doorbell]:
    """Suspects by age, chosen and marked in one statement."""
    chosen = (
        select(Job.id)
        .where(
            Job.status == Status.PENDING,
            Job.retrying,
            ~is_paused(),
            Job.run_at <= func.now() - timedelta(seconds=way.waited_s),
            or_(Job.published_at.is_(None), Job.published_at < _stale(way.settings)),
        )
        .order_by(Job.run_at, Job.created_at, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED")  # in an IN the planner may run it again for each row, LIMIT and all
    )
    mark = update(Job).where(Job.id == chosen.c.id).values(published_at=func.now(), queue=way.queue)
    rows = way.session.execute(mark.returning(Job.run_at, Job.created_at, Job.id, Job.attempt)).all()
    return [Doorbell(way.queue, job_id, attempt + 1) for _, _, job_id, attempt in sorted(rows)]


def _stale(settings: Settings) -> ColumnElement[datetime]:
    """A doorbell rung before this was lost, or nobody had time: ring it again."""
    return func.now() - timedelta(seconds=settings.republish_seconds)


def unring(session: Session, doorbells: Sequence[Doorbell]) -> None:
    """Redis took none of these, or it is not known which: they are chosen again as soon as it is back."""
    unmark(session, Job.id.in_([doorbell.job_id for doorbell in doorbells]))


def choose_dead_letters(session: Session, lengths: Mapping[str, int]) -> Sequence[uuid.UUID]:
    """One window at a time: the next only when the queue is empty, so that Redis never holds more."""
    return () if lengths[routing.DLQ] else unnotified(session, limit=2 * SMALLEST_WINDOW)


def forget_processes(session: Session) -> None:
    session.execute(delete(Process).where(Process.seen_at < func.now() - FORGET_PROCESSES_AFTER))
    cordons.forget(session)
