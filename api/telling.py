"""What somebody who follows a job is told, as events. A pure function of what has changed and of what they have seen.

The id of an event is a cursor, `next segment.last event`: whoever shows it goes on from there, with any API process.
Order: statuses by time; before a closing status every segment; `progress`, a snapshot, after what led to it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

import errors
from api.present import segment_out
from api.schemas import JOB_ID, MOMENT, ErrorInfo, StatusName
from api.watch import Changes, Cursor
from jobs.states import FINAL
from models import Job, JobEvent

FORGOTTEN = 1  # stands for a closing event that housekeeping has deleted
_ID = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})")


class ProgressEvent(BaseModel):
    job_id: UUID = Field(examples=[JOB_ID])
    status: StatusName = Field(examples=["processing"])
    progress: float = Field(description="Percent.", ge=0, le=100, examples=[42.5])


class StatusEvent(BaseModel):
    job_id: UUID = Field(examples=[JOB_ID])
    status: StatusName = Field(examples=["completed"])
    attempt: int = Field(examples=[1])
    error: ErrorInfo | None = Field(description="Why an attempt has failed.", examples=[None])
    at: datetime = Field(examples=[MOMENT])


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    cursor: Cursor  # of who has seen it
    data: BaseModel

    @property
    def id(self) -> str:
        return f"{self.cursor.segment}.{self.cursor.event}"

    @property
    def is_final(self) -> bool:
        return isinstance(self.data, StatusEvent) and self.data.status in FINAL

    def as_text(self) -> str:
        return f"event: {self.name}\nid: {self.id}\ndata: {self.data.model_dump_json()}\n\n"

    def as_frame(self) -> str:
        return f'{{"event":"{self.name}","id":"{self.id}","data":{self.data.model_dump_json()}}}'


def told(changes: Changes, cursor: Cursor) -> Iterator[Event]:
    """What one who has seen up to `cursor` is told: nothing where the job is final and all was seen."""
    job, events = changes.job, changes.events
    closing = events[-1:] if changes.is_final else ()
    for event in events[: len(events) - len(closing)]:
        cursor = replace(cursor, event=event.id)
        yield Event("status", cursor, _status(event))
    for row in changes.segments:
        cursor = replace(cursor, segment=row.number + 1)
        yield Event("segment", cursor, segment_out(row))
    if closing:
        yield Event("status", replace(cursor, event=closing[0].id), _status(closing[0]))
    elif not changes.is_final:
        yield Event("progress", cursor, _progress(job))
    elif not cursor.event:
        yield Event("status", replace(cursor, event=FORGOTTEN), _last_status(job))


def _progress(job: Job) -> ProgressEvent:
    return ProgressEvent.model_validate(
        {"job_id": job.id, "status": job.status, "progress": round(job.progress, 1)},
    )


def _status(event: JobEvent) -> StatusEvent:
    error = {key: event.detail[key] for key in ("code", "message") if key in event.detail} or None
    values = {"job_id": event.job_id, "status": event.to_status, "attempt": event.attempt}
    return StatusEvent.model_validate(values | {"error": error, "at": event.at})


def _last_status(job: Job) -> StatusEvent:
    error = None if job.error_code is None else {"code": job.error_code, "message": job.error_message or ""}
    values = {"job_id": job.id, "status": job.status, "attempt": job.attempt}
    return StatusEvent.model_validate(values | {"error": error, "at": job.completed_at})


def cursor_of(text: str | None, field: str) -> Cursor:
    if not text:
        return Cursor()
    if (parts := _ID.fullmatch(text)) is None:
        raise errors.InvalidOption((field, "must be the id of an event of this job, such as 12.34. Leave it out."))
    return Cursor(int(parts[1]), int(parts[2]))
