"""A job that waits gets another priority or another time."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.orm import Session

import errors
from jobs.read import get_job
from jobs.states import Status, notify
from jobs.submit import run_at_problems
from models import Job


def reschedule(session: Session, job_id: UUID, owner: str | None, *, changes: dict[str, Any]) -> Job:
    """`changes`: priority, run_at (None: now). Raises NotFound; Conflict where the job does not wait.

    A job that is due keeps its place in line: a moment that has passed makes it neither older nor younger.
    A wake-up that is on its way already starts nothing early: a claim looks at the row.
    """
    if problems := run_at_problems(changes.get("run_at")):
        raise errors.InvalidOption(*problems)
    get_job(session, job_id, owner)
    if "run_at" in changes:
        changes = changes | {"run_at": func.greatest(changes["run_at"], func.least(Job.run_at, func.now()))}
    waiting = update(Job).where(Job.id == job_id, Job.status == Status.PENDING)
    moved = waiting.values(**changes, published_at=None, queue=None).returning(Job)
    job = session.scalars(moved, execution_options={"populate_existing": True}).one_or_none()
    if job is None:
        raise errors.Conflict("Only a job that waits can be rescheduled. This one has begun, or is final.")
    notify(session, job, relay=True)
    return job
