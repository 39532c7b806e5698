"""Cancel and purge, a job or a batch. A cancel is a move like any other: the next heartbeat finds the job gone."""

import uuid

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

import errors
from jobs.read import batch_jobs, get_job
from jobs.states import FINAL, Status, move
from models import Job


def cancel(session: Session, job_id: uuid.UUID, owner: str | None = None) -> Job:
    """Raises NotFound, or Conflict where the job is final already; a finish committed first wins."""
    get_job(session, job_id, owner)
    status = session.scalar(select(Job.status).where(Job.id == job_id).with_for_update())  # it may be claimed meanwhile
    job = None
    if status in (Status.PENDING, Status.PROCESSING):
        job = move(session, job_id, Status(status), Status.CANCELLED, fence=None)
    if job is None:
        raise errors.Conflict("The job is final already and cannot be cancelled. Add ?purge=true to delete it.")
    return job


def cancel_batch(session: Session, batch_id: uuid.UUID, owner: str | None = None) -> list[Job]:
    """Cancel every job of a batch that is not final. Raises NotFound."""
    batch_jobs(session, batch_id, owner)
    is_open = (Job.batch_id == batch_id, Job.status.not_in(FINAL))
    # All locks first, in one order: a move locks the batch too (webhooks), and who finishes a job goes job, then batch
    open_jobs = session.execute(select(Job.id, Job.status).where(*is_open).order_by(Job.id).with_for_update()).all()
    moved = [move(session, job_id, Status(status), Status.CANCELLED, fence=None) for job_id, status in open_jobs]
    return [job for job in moved if job is not None]


def purge(session: Session, job_id: uuid.UUID, owner: str | None = None) -> str:
    """Delete a final job with its text and history; returns the storage key of its audio, for the caller to delete."""
    get_job(session, job_id, owner)
    statement = delete(Job).where(Job.id == job_id, Job.status.in_(FINAL)).returning(Job.storage_key)
    key = session.scalar(statement)
    if key is None:
        raise errors.Conflict("The job is not final yet. Cancel it first, then purge it.")
    return key
