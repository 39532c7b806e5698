"""One job: status, now or once it changes, segments, result; cancel and purge."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response, status
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

import errors
from api.deps import AppSettings, AppStorage, CallerOf, ReadSession, authenticated
from api.files import File, FormatName, Manner, disposition, rendered, stem
from api.patience import Wait
from api.present import job_out, job_summary, result_out, segment_out
from api.problems import documented
from api.recording import PRESIGNED_S, Redirect
from api.schemas import MOMENT, Cancelled, JobOut, JobSummary, PriorityName, RunAt, SegmentsOut
from api.subtitles import check_formats, check_words
from api.threads import Threads, in_thread
from api.validators import NOT_MODIFIED, headers_of, is_known, job_tag, result_tag
from api.watch import Watchers
from config import Settings
from database import transaction
from formats import FORMATS, PLAIN
from jobs import cancel, read
from jobs.files import delete_files, transcript_key
from jobs.reschedule import reschedule
from jobs.states import Status
from jobs.submit import decode_options
from jobs.waiting import facts, place, reason_for
from storage import Storage
from telemetry.events import emit

Purge = Annotated[bool, Query(description="Delete audio, text and history of a job that is final.")]
router = APIRouter(prefix="/transcribe", tags=["transcribe"], dependencies=[Depends(authenticated)])


class Reschedule(BaseModel):
    """What of a waiting job is changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    priority: PriorityName = Field("normal", description="`high` starts before every `normal`.")
    run_at: RunAt | None = Field(None, description="Not before; null: now.", examples=[MOMENT])


@router.get(
    "/{job_id}",
    response_model=JobOut,
    responses={**documented(401, 404, 422, 429, 503), 304: {"description": NOT_MODIFIED}},
)
async def get_job(
    request: Request, response: Response, job_id: UUID, settings: AppSettings, caller: CallerOf, wait: Wait = None
) -> Response | JobOut:
    """Status, progress, place in the queue; the result once completed. 200 as long as the job exists."""
    if wait is not None:
        watchers: Watchers = request.app.state.watchers
        await watchers.moved(job_id, caller.scope, within_s=wait)
    headers, shown = await run_in_threadpool(_shown, request, job_id, settings, caller.scope)
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait}"
    if shown is None:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    response.headers.update(headers)
    return shown


def _shown(
    request: Request, job_id: UUID, settings: Settings, owner: str | None
) -> tuple[dict[str, str], JobOut | None]:
    """Headers, and the job unless the caller has it as it is."""
    with transaction() as session:
        job = read.get_job(session, job_id, owner)
        summary, known = job_summary(session, job, settings), facts(session)
        now = known.now()
        position = place(session, job, now)
        reason = reason_for(job, known, position, now)
        tag = job_tag(summary, position, reason, read.corrections(session, job_id))
        if is_known(request, tag):
            return headers_of(tag), None
        return headers_of(tag), job_out(session, job, summary, position, known, reason)


@router.patch("/{job_id}", responses=documented(400, 401, 404, 409, 422, 429, 503))
def reschedule_job(job_id: UUID, wanted: Reschedule, settings: AppSettings, caller: CallerOf) -> JobSummary:
    """Another priority, or another time, for a job that waits: 409 once it has begun."""
    changes = wanted.model_dump(include=wanted.model_fields_set)
    with transaction() as session:
        shown = job_summary(session, reschedule(session, job_id, caller.scope, changes=changes), settings)
    emit("job.rescheduled", job_id=str(job_id), **changes)
    return shown


@router.get("/{job_id}/segments", responses=documented(401, 404, 422, 429, 503))
def get_segments(
    job_id: UUID,
    session: ReadSession,
    caller: CallerOf,
    after: Annotated[int, Query(ge=-1, description="Only segments with a higher id.")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> SegmentsOut:
    """What is transcribed so far, also while the job runs or after it was cancelled."""
    job = read.get_job(session, job_id, caller.scope)
    rows = read.segments(session, job_id, after=after, limit=limit)
    return SegmentsOut(job_id=job_id, status=job.status, segments=[segment_out(row) for row in rows])


@router.get(
    "/{job_id}/result",
    response_class=Response,
    responses={
        **documented(401, 404, 409, 422, 429, 503),
        304: {"description": NOT_MODIFIED},
        307: {"description": "Where the store has it (with redirect=true)."},
        200: {
            "description": "The transcript in the format asked for.",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/ResultOut"}},
                **{media: {"schema": {"type": "string"}} for media, _, _ in FORMATS.values()},
            },
        },
    },
)
async def get_result(
    request: Request,
    job_id: UUID,
    storage: AppStorage,
    caller: CallerOf,
    manner: Annotated[Manner, Depends(Manner)],
    wanted: Annotated[FormatName, Query(alias="format", description="Default: json.")] = "json",
    redirect: Redirect = False,  # noqa: FBT002 a query parameter
) -> Response:
    """The transcript as a file. 409 while the job is not completed."""
    check_formats(manner.subtitles, [wanted])
    headers, made = await run_in_threadpool(
        _made, request, job_id, caller.scope, wanted, manner, may_be_known=not redirect
    )
    if made is None:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    file, filename = made
    if redirect and manner.subtitles == PLAIN:
        key = transcript_key(job_id, f"corrected.{wanted}" if manner.as_corrected else wanted)
        threads: Threads = request.app.state.threads
        if url := await in_thread(threads.storage, _stored, storage, key, file, filename):
            return RedirectResponse(url, status.HTTP_307_TEMPORARY_REDIRECT)
    headers["Content-Disposition"] = disposition(filename)
    return Response(file.content, media_type=file.media_type, headers=headers)


def _made(
    request: Request, job_id: UUID, owner: str | None, wanted: FormatName, manner: Manner, *, may_be_known: bool
) -> tuple[dict[str, str], tuple[File, str] | None]:
    """Headers, and the transcript with the name of its file unless the caller has it as it is."""
    with transaction() as session:
        job = read.get_job(session, job_id, owner)
        tag = result_tag(job.completed_at, read.corrections(session, job_id), request)
        if job.status == Status.COMPLETED and may_be_known and is_known(request, tag):
            return headers_of(tag), None
        result = result_out(session, job)
    if result is None:
        raise errors.Conflict(f"The job is {job.status}; there is no result. GET /transcribe/{job_id} says more.")
    check_words(manner.subtitles, has_words=decode_options(job).word_timestamps)
    file = rendered(result, wanted, manner)
    return headers_of(tag), (file, f"{stem(job.filename)}{file.suffix}")


def _stored(storage: Storage, key: str, file: File, filename: str) -> str | None:
    """Put the transcript beside the recording; where it can be downloaded, if the store lets anybody download."""
    url = storage.presigned_url(key, filename=filename, media_type=file.media_type, expires_s=PRESIGNED_S)
    if url is not None:
        with storage.create(key) as writer:
            writer.write(file.content.encode())
            writer.commit()
    return url


@router.delete(
    "/{job_id}",
    response_model=Cancelled,
    responses={**documented(401, 404, 409, 422, 429, 503), 204: {"description": "Purged (with purge=true)."}},
)
async def cancel_or_purge(
    request: Request,
    job_id: UUID,
    storage: AppStorage,
    caller: CallerOf,
    purge: Purge = False,  # noqa: FBT002 a query parameter
) -> Response | Cancelled:
    """Cancel a job that is pending or processing; with `purge=true` delete one that is final."""
    if purge:
        threads: Threads = request.app.state.threads
        return await in_thread(threads.purges, _purge, job_id, storage, caller.scope)
    return await run_in_threadpool(_cancel, job_id, caller.scope)


def _cancel(job_id: UUID, owner: str | None) -> Cancelled:
    with transaction() as session:
        job = cancel.cancel(session, job_id, owner)
    emit("job.cancelled", job_id=str(job_id))
    return Cancelled(job_id=job.id, status="cancelled")


def _purge(job_id: UUID, storage: Storage, owner: str | None) -> Response:
    """The files go while the row is locked: no replay takes the job meanwhile, and a failure keeps it to try again.

    The sweep for orphans would not do instead: it passes over what is older than the oldest job.
    """
    with transaction() as session:
        key = cancel.purge(session, job_id, owner)
        delete_files(storage, job_id, key)
    emit("job.purged", job_id=str(job_id))
    return Response(status_code=status.HTTP_204_NO_CONTENT)
