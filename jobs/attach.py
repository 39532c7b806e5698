"""Equal requests to /v1 wait for one job: who sends the same again, after a timeout say, is attached to the first.

Exactly once: the look and the insert that may follow are one transaction, and no two equal ones run at once. Never
attaches to a job that failed or was cancelled.
"""

import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from jobs import idempotency
from jobs.states import Status
from jobs.submit import JobRequest
from models import Job

UNANSWERED_KEPT = timedelta(minutes=10)  # so long a client that lost its connection may come back for the answer


@dataclass(frozen=True, slots=True)
class Sameness:
    """What requests have in common that wait for one job."""

    key: str  # Job.attach_key
    is_named: bool  # by an Idempotency-Key: the job counts for a day, answered or not


def sameness(owner: str, sha256: str, request: JobRequest, idempotency_key: str | None = None) -> Sameness:
    """Of requests from one caller: equal bytes and equal options, whatever the file is called. Raises InvalidOption."""
    if idempotency_key is not None:
        idempotency.check_key(idempotency_key)
    key = idempotency.fingerprint(owner, sha256, asdict(request), idempotency_key)
    return Sameness(key, is_named=idempotency_key is not None)


def find(session: Session, same: Sameness) -> Job | None:
    """The job to wait for, if there is one. Holds equal requests up until the commit: the caller inserts one if not."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(same.key, 0))))
    is_running = Job.status.in_((Status.PENDING, Status.PROCESSING))
    query = select(Job).where(Job.attach_key == same.key, or_(is_running, _is_to_be_fetched(same)))
    return session.scalars(query.order_by(Job.created_at.desc()).limit(1)).one_or_none()


def _is_to_be_fetched(same: Sameness) -> ColumnElement[bool]:
    lost = and_(Job.answered_at.is_(None), Job.completed_at > func.now() - UNANSWERED_KEPT)
    named = Job.created_at > func.now() - idempotency.KEPT
    return and_(Job.status == Status.COMPLETED, or_(lost, named) if same.is_named else lost)


def mark_answered(session: Session, job_id: uuid.UUID) -> None:
    session.execute(update(Job).where(Job.id == job_id, Job.answered_at.is_(None)).values(answered_at=func.now()))
