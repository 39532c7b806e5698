"""Cancel and purge. A cancel is a move like any other: the worker's next heartbeat finds the job gone and stops."""

import uuid

from sqlalchemy import delete
from sqlalchemy.orm import Session

import errors
from jobs.read import get_job
from jobs.states import FINAL, Status, move
from models import Job


def cancel(session: Session, job_id: uuid.UUID) -> Job:
    """Raises NotFound, or Conflict where the job is final already; a finish committed first wins."""
    get_job(session, job_id)
    for status in (Status.PENDING, Status.PROCESSING, Status.PENDING):  # it may be claimed or given back meanwhile
        job = move(session, job_id, status, Status.CANCELLED, fence=None)
        if job is not None:
            return job
    raise errors.Conflict("The job is final already and cannot be cancelled. Add ?purge=true to delete it.")


def purge(session: Session, job_id: uuid.UUID) -> str:
    """Delete a final job with its text and history; returns the storage key of its audio, for the caller to delete."""
    statement = delete(Job).where(Job.id == job_id, Job.status.in_(FINAL)).returning(Job.storage_key)
    key = session.scalar(statement)
    if key is None:
        get_job(session, job_id)
        raise errors.Conflict("The job is not final yet. Cancel it first, then purge it.")
    return key
