"""Status, TRANSITIONS, move(): the only writer of a job's status.

A move is a compare-and-set on (id, status, attempt): who lost the job cannot write. Its event row goes in the same
transaction.
"""

import uuid
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, event, func, update
from sqlalchemy.orm import Session

import webhooks
from models import Job, JobEvent
from telemetry.events import count


class Status(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.PROCESSING, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.PENDING}),
    Status.FAILED: frozenset({Status.PENDING}),  # replay
    Status.COMPLETED: frozenset(),
    Status.CANCELLED: frozenset(),
}
FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
NOTIFY_CHANNEL = "whisper_queue"  # wakes the relay: something may have to be published
EVENTS_CHANNEL = "whisper_queue_events"  # carries the id of a job that has changed, for whoever watches it


def move(
    session: Session,
    job_id: uuid.UUID,
    from_: Status,
    to: Status,
    *,
    fence: int | None,
    guards: tuple[ColumnElement[bool], ...] = (),
    detail: dict[str, Any] | None = None,
    **values: Any,
) -> Job | None:
    """Change a status if the job still is in `from_`, at attempt `fence` (None: whichever), and every guard holds.

    Returns the row as it now is, or None where the fence refused and nothing was written.
    """
    if to not in TRANSITIONS[from_]:
        raise AssertionError(f"{from_} -> {to} is not in TRANSITIONS. This is a bug.")
    conditions = [Job.id == job_id, Job.status == from_, *guards]
    if fence is not None:
        conditions.append(Job.attempt == fence)
    statement = update(Job).where(*conditions).values(status=to, **_follows(from_, to), **values).returning(Job)
    job = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if job is None:
        return None
    session.add(JobEvent(job_id=job_id, attempt=job.attempt, from_status=from_, to_status=to, detail=detail or {}))
    if to in FINAL:
        webhooks.announce(session, job)
    notify(session, job, relay=to not in (Status.COMPLETED, Status.CANCELLED) or job.webhook_url is not None)
    count_move(session, job, from_)
    return job


def count_move(session: Session, job: Job, from_: str) -> None:
    """Once it is committed: what was rolled back has not happened."""
    moved = {
        "from_status": from_,
        "to_status": job.status,
        "priority": job.priority,
        "attempt": job.attempt,
        "code": job.error_code,
        "age_s": (datetime.now(UTC) - job.created_at).total_seconds(),
    }
    event.listen(session, "after_commit", lambda _: count("job.moved", **moved), once=True)


def notify(session: Session, job: Job, *, relay: bool) -> None:
    """With the caller's commit: tell who watches the job, and wake the relay where it has something to do."""
    tell_watchers(session, job.id)
    if relay:
        wake_relay(session, job.status)


def wake_relay(session: Session, why: str) -> None:
    session.execute(func.pg_notify(NOTIFY_CHANNEL, why).select())


def tell_watchers(session: Session, job_id: uuid.UUID) -> None:
    session.execute(func.pg_notify(EVENTS_CHANNEL, str(job_id)).select())


def _follows(from_: Status, to: Status) -> dict[str, Any]:
    """The columns that a change of status carries along; the CHECK constraints demand them."""
    values: dict[str, Any] = {}
    if from_ is Status.PROCESSING:
        values |= {"lease_until": None, "deadline_at": None, "claimed_by": None}
    if to in FINAL:
        values |= {"completed_at": func.now(), "delete_at": func.now() + Job.delete_after_s * timedelta(seconds=1)}
    if to is Status.PENDING:
        values |= {"completed_at": None, "delete_at": None, "published_at": None}
    return values
