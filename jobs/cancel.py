"""Cancel and purge. A cancel is a move like any other: the worker's next heartbeat finds the job gone and stops."""

import uuid

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

import errors
from jobs.read import get_job
from jobs.states import FINAL, Status, move
from models import Job


def cancel(session: Session, job_id: uuid.UUID) -> Job:
    """Raises NotFound, or Conflict where the job is final already; a finish committed first wins."""
    get_job(session, job_id)
    status = session.scalar(select(Job.status).where(Job.id == job_id).with_for_update())  # it may be claimed meanwhile
    job = None
    if status in (Status.PENDING, Status.PROCESSING):
        job = move(session, job_id, Status(status), Status.CANCELLED, fence=None)
    if job is None:
        raise errors.Conflict("The job is final already and cannot be cancelled. Add ?purge=true to delete it.")
    return job


def purge(session: Session, job_id: uuid.UUID) -> str:
    """Delete a final job with its text and history; returns the storage key of its audio, for the caller to delete."""
    statement = delete(Job).where(Job.id == job_id, Job.status.in_(FINAL)).returning(Job.storage_key)
    key = session.scalar(statement)
    if key is None:
        get_job(session, job_id)
        raise errors.Conflict("The job is not final yet. Cancel it first, then purge it.")
    return key
