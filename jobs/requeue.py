"""An operator's push: a job that waits, runs or has failed is rung again at once. Counts nothing against the job."""

import uuid

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

import errors
from database import transaction
from jobs.claim import release
from jobs.dead import replay
from jobs.progress import Fence
from jobs.read import get_job
from jobs.states import Status, notify
from models import ErrorLog, Job
from telemetry.events import emit

PATIENCE_S = 5.0  # while the database is away
_MOVED_ON = "The job moved on in the same moment; nothing was changed. Look at it again."


def requeue(job_id: uuid.UUID) -> Status:
    """The status that it was in. Raises NotFound; Conflict where there is nothing to push.

    A running attempt is fenced: its worker stops at the next checkpoint, and what it had saved stays.
    """
    with transaction() as session:
        job = get_job(session, job_id)
        was = Status(job.status)
        _push(session, job, was)
    if was is Status.PROCESSING and not release(
        Fence(job.id, job.attempt), reason="requeued", patience_s=PATIENCE_S
    ):  # a transaction of its own
        raise errors.Conflict(_MOVED_ON)
    emit("job.requeued", job_id=str(job_id), was=was)
    return was


def _push(session: Session, job: Job, was: Status) -> None:
    match was:
        case Status.PENDING:
            _make_due(session, job.id)
        case Status.FAILED:
            replay(session, _last_letter(session, job))
        case Status.COMPLETED | Status.CANCELLED:
            raise errors.Conflict(f"The job is {was}: there is nothing to try again. Submit its recording anew.")


def _make_due(session: Session, job_id: uuid.UUID) -> None:
    """Where a doorbell is on its way already, the second one is a no-op."""
    due = update(Job).where(Job.id == job_id, Job.status == Status.PENDING).returning(Job)
    job = session.scalars(due.values(run_at=func.least(Job.run_at, func.now()), published_at=None)).one_or_none()
    if job is None:
        raise errors.Conflict(_MOVED_ON)
    notify(session, job, relay=True)


def _last_letter(session: Session, job: Job) -> uuid.UUID:
    """Of its last attempt; also one that was dismissed."""
    letters = select(ErrorLog.id).where(ErrorLog.job_id == job.id, ErrorLog.attempt == job.attempt)
    letter = session.scalar(letters.order_by(ErrorLog.created_at.desc()).limit(1))
    if letter is None:
        raise errors.Conflict(_MOVED_ON)
    return letter
