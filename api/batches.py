"""/batches/{batch_id}: how the jobs of one batch stand; their transcripts in one archive; cancel all of them."""

from collections import Counter
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

import errors
from api.deps import AppSettings, CallerOf, ReadSession, authenticated
from api.files import FormatName, Manner, archive, disposition
from api.present import job_summary
from api.problems import documented
from api.schemas import BatchCancelled, BatchOut, RequestCounts
from api.subtitles import check_formats, check_words
from database import transaction
from jobs import cancel, read
from jobs.states import Status
from jobs.submit import decode_options
from telemetry.events import emit

ZIP = "application/zip"
Formats = Annotated[list[FormatName], Query(alias="format", description="Repeat it for several.", max_length=6)]
router = APIRouter(prefix="/batches", tags=["transcribe"], dependencies=[Depends(authenticated)])


@router.get("/{batch_id}", responses=documented(401, 404, 422, 429, 503))
def get_batch(batch_id: UUID, session: ReadSession, settings: AppSettings, caller: CallerOf) -> BatchOut:
    """Counts and jobs of a batch; `completed` when none of its jobs can change any more."""
    batch, jobs = read.batch_jobs(session, batch_id, caller.scope)
    counts = Counter(Status(job.status) for job in jobs)
    return BatchOut(
        batch_id=batch.id,
        status="completed" if all(status.is_final for status in counts) else "processing",
        created_at=batch.created_at,
        request_counts=RequestCounts(
            total=len(jobs),
            completed=counts[Status.COMPLETED],
            failed=counts[Status.FAILED],
            cancelled=counts[Status.CANCELLED],
        ),
        jobs=[job_summary(session, job, settings) for job in jobs],
        errors=batch.refused,
    )


@router.get(
    "/{batch_id}/results",
    response_class=StreamingResponse,
    responses={
        **documented(401, 404, 409, 422, 429, 503),
        200: {"description": "A zip archive.", "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}}},
    },
)
def get_results(
    batch_id: UUID,
    session: ReadSession,
    caller: CallerOf,
    manner: Annotated[Manner, Depends(Manner)],
    formats: Formats = ["txt", "srt", "json"],  # noqa: B006 FastAPI copies it
) -> StreamingResponse:
    """The transcripts of a batch as a zip, with an index.json of all its jobs. 409 while none is completed."""
    check_formats(manner.subtitles, formats)
    _, jobs = read.batch_jobs(session, batch_id, caller.scope)
    if not any(job.status == Status.COMPLETED for job in jobs):
        raise errors.Conflict(f"No job of this batch is completed. GET /batches/{batch_id} says more.")
    check_words(manner.subtitles, has_words=decode_options(jobs[0]).word_timestamps)  # of all: they share options
    stream = archive([job.id for job in jobs], tuple(dict.fromkeys(formats)), manner)
    headers = {"Content-Disposition": disposition(f"batch-{batch_id}.zip")}
    return StreamingResponse(stream, media_type=ZIP, headers=headers)


@router.delete("/{batch_id}", responses=documented(401, 404, 422, 429, 503))
def cancel_batch(batch_id: UUID, caller: CallerOf) -> BatchCancelled:
    """Cancel every job of a batch that is pending or processing; the others stay as they are."""
    with transaction() as session:
        jobs = cancel.cancel_batch(session, batch_id, caller.scope)
    emit("batch.cancelled", batch_id=str(batch_id), jobs=len(jobs))
    return BatchCancelled(batch_id=batch_id, cancelled=[job.id for job in jobs])
