"""Taking a job and giving it back: claim, release, finish, fail, cancel. Every write is fenced by the attempt."""

import random
import traceback
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from threading import Event
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

import errors
from config import Settings
from database import transaction
from jobs import retry
from jobs.pauses import is_paused
from jobs.progress import Fence
from jobs.states import Status, move
from models import ErrorLog, Job, Result
from telemetry.events import emit

MAX_MESSAGE = 500  # characters of an error that callers see
MAX_TRACE = 20_000
Answer = TypeVar("Answer")
PAUSE_S = 0.5  # between tries while the database is away


@dataclass(frozen=True, slots=True)
class Claim:
    fence: Fence
    job: Job  # as it was when claimed, detached


def claim(job_id: uuid.UUID, *, claimed_by: str, settings: Settings) -> Claim | None:
    """Count the attempt and commit, before the first byte of the file is read: so a segfault counts too.

    None: somebody else has it, it is cancelled, paused, or not due. A doorbell rung twice is a no-op.
    """
    try:
        with transaction() as session:
            job = move(
                session,
                job_id,
                Status.PENDING,
                Status.PROCESSING,
                fence=None,
                guards=(Job.run_at <= func.now(), ~is_paused()),
                detail={"claimed_by": claimed_by},
                **_lease(claimed_by, settings),
            )
    except errors.Unavailable:
        job = _claimed_in_doubt(job_id, claimed_by, settings.lease_seconds)
    return None if job is None else Claim(Fence(job.id, job.attempt), job)


def _claimed_in_doubt(job_id: uuid.UUID, claimed_by: str, patience_s: float) -> Job | None:
    """The job, if a COMMIT whose answer was lost gave it to us: a child has one job at a time."""
    ours = (Job.id == job_id, Job.status == Status.PROCESSING, Job.claimed_by == claimed_by)
    found, _ = patiently(lambda session: session.scalar(select(Job).where(*ours)), patience_s)
    return found


def _lease(claimed_by: str, settings: Settings) -> dict[str, Any]:
    return {
        "attempt": Job.attempt + 1,
        "claimed_by": claimed_by,
        "lease_until": func.now() + timedelta(seconds=settings.lease_seconds),
        "deadline_at": func.now() + timedelta(seconds=settings.deadline_base_seconds),
        "started_at": func.coalesce(Job.started_at, func.now()),
    }


def finish(fence: Fence, result: Result, *, patience_s: float) -> bool:
    """Status and result in one transaction. False: fenced, cancelled, or given up after `patience_s` of no database."""

    def write(session: Session) -> bool:
        job = move(
            session,
            fence.job_id,
            Status.PROCESSING,
            Status.COMPLETED,
            fence=fence.attempt,
            progress=100,
            error_code=None,
            error_message=None,
        )
        if job is not None:
            session.add(result)
        return job is not None

    return _durably(fence, {Status.COMPLETED}, write, patience_s)


def release(fence: Fence, *, reason: str, patience_s: float, delay_s: float = 0) -> bool:
    """Give the job back uncounted: what ended the attempt is no fault of the recording. False: fenced."""
    run_at = func.now() + timedelta(seconds=delay_s) if delay_s else Job.run_at  # as old as it was, so first in line

    def write(session: Session) -> bool:
        job = move(
            session,
            fence.job_id,
            Status.PROCESSING,
            Status.PENDING,
            fence=fence.attempt,
            detail={"reason": reason},
            run_at=run_at,
        )
        return job is not None

    return _durably(fence, {Status.PENDING}, write, patience_s)


def fail(fence: Fence, error: BaseException, settings: Settings, *, cause: retry.Cause, worker: str | None) -> bool:
    """Record a failed attempt: pending again later, or failed with its dead letter."""
    trace = _storable("".join(traceback.format_exception(error)))[-MAX_TRACE:]

    def write(session: Session) -> bool:
        return give_up_attempt(session, fence, describe(error), settings, cause=cause, worker=worker, trace=trace)

    return _durably(fence, {Status.PENDING, Status.FAILED}, write, settings.lease_seconds)


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    message: str  # for callers: no path, SQL or secret
    retryable: bool = True
    alone: bool = False  # it needs a worker that has its device to itself


def describe(error: BaseException) -> Reason:
    """Only errors of our own tree have messages fit for callers."""
    if isinstance(error, errors.ServiceError):
        alone = isinstance(error, errors.OutOfMemory)
        return Reason(error.code, _storable(str(error))[:MAX_MESSAGE], error.retryable, alone)
    if isinstance(error, MemoryError):
        return Reason("out_of_memory", "The worker ran out of memory.")
    return Reason("internal_error", "The worker failed in an unexpected way; the operator's log has the details.")


def _storable(text: str) -> str:
    """PostgreSQL's text holds no NUL and no half surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def give_up_attempt(
    session: Session,
    fence: Fence,
    reason: Reason,
    settings: Settings,
    *,
    cause: retry.Cause,
    worker: str | None,
    trace: str | None = None,
) -> bool:
    """One attempt ended badly: plan what follows and write it, in the caller's transaction. False: fenced."""
    row = session.execute(
        select(Job, func.extract("epoch", func.now() - func.coalesce(Job.stalled_at, func.now())))
        .where(Job.id == fence.job_id, Job.attempt == fence.attempt, Job.status == Status.PROCESSING)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return False
    job, stalled_s = row
    counters = retry.Counters(job.failures, job.losses, job.infra_losses)
    plan = retry.plan(
        cause,
        counters,
        retry.Limits.of(settings),
        retryable=reason.retryable,
        chance=random.random(),  # noqa: S311
        stalled_s=float(stalled_s),
        alone=reason.alone,
    )
    if isinstance(plan, retry.Again):
        return _try_again(session, fence, reason, plan, cause)
    return _bury(session, fence, reason, plan, worker=worker, trace=trace)


def _try_again(session: Session, fence: Fence, reason: Reason, plan: retry.Again, cause: retry.Cause) -> bool:
    code, delay_s = reason.code, plan.delay_s
    emit("job.retrying", job_id=str(fence.job_id), attempt=fence.attempt, code=code, cause=cause, delay_s=delay_s)
    is_stalled = cause is retry.Cause.WORKER
    job = move(
        session,
        fence.job_id,
        Status.PROCESSING,
        Status.PENDING,
        fence=fence.attempt,
        detail={"code": reason.code, "message": reason.message, "cause": cause},
        run_at=func.now() + timedelta(seconds=plan.delay_s),
        retrying=plan.retrying,
        stalled_at=func.coalesce(Job.stalled_at, func.now()) if is_stalled else Job.stalled_at,
        error_code=reason.code,
        error_message=reason.message,
        **asdict(plan.counters),
    )
    return job is not None


def _bury(
    session: Session, fence: Fence, reason: Reason, plan: retry.Dead, *, worker: str | None, trace: str | None
) -> bool:
    job = move(
        session,
        fence.job_id,
        Status.PROCESSING,
        Status.FAILED,
        fence=fence.attempt,
        detail={"code": reason.code, "message": reason.message, "why_final": plan.reason},
        error_code=reason.code,
        error_message=reason.message,
        **asdict(plan.counters),
    )
    if job is None:
        return False
    session.add(
        ErrorLog(
            job_id=job.id,
            attempt=job.attempt,
            error_type=reason.code,
            message=f"{reason.message} ({plan.reason})",
            stack_trace=trace,
            worker=worker,
            **asdict(plan.counters),
        )
    )
    return True


def patiently(write: Callable[[Session], Answer], patience_s: float) -> tuple[Answer, bool]:
    """What `write` returned, and whether an earlier COMMIT is in doubt; tries again while the database is away.

    Raises Unavailable after `patience_s`.
    """
    until = monotonic() + patience_s
    in_doubt = False
    while True:
        try:
            with transaction() as session:
                return write(session), in_doubt
        except errors.Unavailable:
            in_doubt = True
            if monotonic() > until:
                raise
            Event().wait(PAUSE_S)


def _durably(fence: Fence, targets: set[Status], write: Callable[[Session], bool], patience_s: float) -> bool:
    """Write, also across a database restart: a COMMIT in doubt is resolved by reading the row again."""

    def is_ours(session: Session) -> bool:
        job = session.get(Job, fence.job_id)
        return job is not None and job.attempt == fence.attempt and job.status in targets

    try:
        written, in_doubt = patiently(write, patience_s)
        return written or (in_doubt and patiently(is_ours, patience_s)[0])
    except errors.Unavailable:
        return False  # the lease runs out and the relay takes the job back
