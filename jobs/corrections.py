"""What a person made of a segment. It stands beside what the machine said, which nothing here ever changes."""

import uuid

from sqlalchemy import update
from sqlalchemy.orm import Session

import errors
from jobs.read import get_job
from jobs.states import Status
from models import SegmentRow


def correct(session: Session, job_id: uuid.UUID, number: int, text: str | None, owner: str | None = None) -> SegmentRow:
    """None, and what the machine said too, take a correction back. Raises NotFound, or Conflict before the end."""
    job = get_job(session, job_id, owner)
    if job.status != Status.COMPLETED:  # which it stays: no attempt writes these segments any more
        raise errors.Conflict(f"The job is {job.status}. Its text can be corrected once it is completed.")
    which = (SegmentRow.job_id == job_id, SegmentRow.number == number)
    statement = update(SegmentRow).where(*which).values(corrected_text=text).returning(SegmentRow)
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise errors.NotFound(f"The job has no segment {number}. GET /transcribe/{job_id}/segments lists them.")
    if text == row.text.strip():
        row.corrected_text = None
    session.flush()
    return row
