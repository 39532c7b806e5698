"""PATCH /transcribe/{job_id}/segments/{segment_id}: the text of a segment as a person has it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from api.deps import CallerOf, authenticated
from api.present import segment_out
from api.problems import documented
from api.schemas import SegmentOut
from database import transaction
from jobs import corrections
from telemetry.events import emit

LONGEST_TEXT = 5000  # characters; a segment is at most 30 s of speech
HIGHEST_ID = 2**31 - 1  # what the column holds


def _without_nul(value: object) -> object:
    """PostgreSQL keeps none."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character")
    return value


Text = Annotated[str, BeforeValidator(_without_nul), StringConstraints(strip_whitespace=True, max_length=LONGEST_TEXT)]
router = APIRouter(prefix="/transcribe", tags=["transcribe"], dependencies=[Depends(authenticated)])


class Correction(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: Text | None = Field(
        description="What was said. Null: as the machine heard it; empty: nothing was.", examples=["one, two, three"]
    )


@router.patch("/{job_id}/segments/{segment_id}", responses=documented(401, 404, 409, 422, 429, 503))
def correct_segment(
    job_id: UUID, segment_id: Annotated[int, Path(ge=0, le=HIGHEST_ID)], correction: Correction, caller: CallerOf
) -> SegmentOut:
    """Correct a segment of a completed job. What the machine said stays in `text`; 409 before the job is completed."""
    with transaction() as session:
        segment = segment_out(corrections.correct(session, job_id, segment_id, correction.text, caller.scope))
    emit("segment.corrected", job_id=str(job_id), segment=segment_id)
    return segment
