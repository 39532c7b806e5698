"""POST /transcribe/ and everything about one job."""

from dataclasses import asdict
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response, status
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

import errors
from api.admission import admit
from api.deps import AppSettings, AppStorage, ReadSession, require_key
from api.present import job_out, result_out, segment_out
from api.problems import documented
from api.schemas import Accepted, BatchAccepted, Cancelled, JobOut, ResultOut, SegmentsOut, TranscribeOptions
from api.uploads import BadFile, Form, Limits, receive
from config import Settings
from database import transaction
from formats import FORMATS
from jobs import cancel, read
from jobs.states import Status
from jobs.submit import JobRequest, Upload, open_batch, submit, validate
from models import Batch, Job
from storage import Storage
from telemetry.events import emit

FormatName = Literal["json", "txt", "srt", "vtt", "tsv"]
Purge = Annotated[bool, Query(description="Delete audio, text and history of a job that is final.")]
router = APIRouter(prefix="/transcribe", tags=["transcribe"], dependencies=[Depends(require_key)])


def _multipart(file_field: str, *, many: bool) -> dict[str, Any]:
    """The request body for the OpenAPI document; the body itself is read as a stream, not by FastAPI."""
    schema = TranscribeOptions.model_json_schema()
    one = {"type": "string", "format": "binary"}
    schema["properties"] = {file_field: {"type": "array", "items": one} if many else one, **schema["properties"]}
    schema["required"] = [file_field]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post(
    "/",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[Depends(admit)],
    responses=documented(401, 413, 415, 422, 503, 507),
    openapi_extra=_multipart("file", many=False),
)
async def submit_recording(
    request: Request, response: Response, settings: AppSettings, storage: AppStorage
) -> Accepted:
    """Submit one recording: `curl -F file=@meeting.mp3 http://localhost:8000/transcribe/`.

    Answers as soon as the file and the job are durable; poll `status_url`.
    """
    limits = Limits("file", max_files=1, max_file_bytes=settings.max_upload_bytes, refuse_at_once=True)
    form = await receive(request, storage, limits)
    job = await run_in_threadpool(_accept_one, form, request, settings, storage)
    response.headers["Location"] = _url(job.id)
    return Accepted(job_id=job.id, status=Status.PENDING.value, status_url=_url(job.id), created_at=job.created_at)


@router.post(
    "/batch",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[Depends(admit)],
    responses=documented(401, 413, 422, 503, 507),
    openapi_extra=_multipart("files", many=True),
)
async def submit_batch(
    request: Request, response: Response, settings: AppSettings, storage: AppStorage
) -> BatchAccepted:
    """Submit many recordings with one set of options: `curl -F files=@a.mp3 -F files=@b.mp3 …`.

    A file that cannot be accepted is named in `errors`; the others become jobs.
    """
    limits = Limits("files", settings.max_batch_files, settings.max_upload_bytes, refuse_at_once=False)
    form = await receive(request, storage, limits)
    batch, jobs = await run_in_threadpool(_accept_batch, form, request, settings, storage)
    response.headers["Location"] = f"/batches/{batch.id}"
    return BatchAccepted(
        batch_id=batch.id,
        status_url=f"/batches/{batch.id}",
        jobs=[{"job_id": job.id, "filename": job.filename} for job in jobs],
        errors=batch.refused,
    )


def _url(job_id: UUID) -> str:
    return f"/transcribe/{job_id}"


def _accept_one(form: Form, request: Request, settings: Settings, storage: Storage) -> Job:
    wanted = _checked(form, "file", settings, storage)
    with transaction() as session:
        job = submit(session, _uploads(form)[0], wanted, request_id=request.scope["request_id"])
    emit("job.accepted", job_id=str(job.id), bytes=job.size_bytes, priority=job.priority)
    return job


def _accept_batch(form: Form, request: Request, settings: Settings, storage: Storage) -> tuple[Batch, list[Job]]:
    wanted = _checked(form, "files", settings, storage)
    refused = [asdict(item) for item in form.files if isinstance(item, BadFile)]
    with transaction() as session:
        batch = open_batch(session, refused=refused)
        jobs = [
            submit(session, upload, wanted, request_id=request.scope["request_id"], batch_id=batch.id)
            for upload in _uploads(form)
        ]
    emit("batch.accepted", batch_id=str(batch.id), jobs=len(jobs), refused=len(refused))
    return batch, jobs


def _checked(form: Form, file_field: str, settings: Settings, storage: Storage) -> JobRequest:
    """The options, or a refusal that leaves nothing in storage. Later files are kept: a COMMIT may be in doubt."""
    try:
        wanted = _options(form, file_field, settings)
        validate(wanted, settings)
    except BaseException:
        for upload in _uploads(form):
            storage.delete(upload.storage_key)
        raise
    return wanted


def _options(form: Form, file_field: str, settings: Settings) -> JobRequest:
    if not form.files:
        raise errors.InvalidOption((file_field, f"missing; send recordings as `curl -F {file_field}=@recording.mp3`"))
    try:
        options = TranscribeOptions.model_validate(form.fields)
    except ValidationError as error:
        problems = [(str(item["loc"][0]), _message(item["type"], item["msg"])) for item in error.errors()]
        raise errors.InvalidOption(*problems) from None
    return options.to_request(settings.whisper_model_size)


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown option; known are {', '.join(TranscribeOptions.model_fields)}"
    return message.removeprefix("Value error, ")


def _uploads(form: Form) -> list[Upload]:
    return [item for item in form.files if isinstance(item, Upload)]


@router.get("/{job_id}", responses=documented(401, 404, 503))
def get_job(job_id: UUID, session: ReadSession, settings: AppSettings) -> JobOut:
    """Status, progress, place in the queue; the result once completed. 200 as long as the job exists."""
    return job_out(session, read.get_job(session, job_id), settings)


@router.get("/{job_id}/segments", responses=documented(401, 404, 503))
def get_segments(
    job_id: UUID,
    session: ReadSession,
    after: Annotated[int, Query(ge=-1, description="Only segments with a higher id.")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> SegmentsOut:
    """What is transcribed so far, also while the job runs or after it was cancelled."""
    job = read.get_job(session, job_id)
    rows = read.segments(session, job_id, after=after, limit=limit)
    return SegmentsOut(job_id=job_id, status=job.status, segments=[segment_out(row) for row in rows])


@router.get(
    "/{job_id}/result",
    response_class=Response,
    responses={
        **documented(401, 404, 409, 503),
        200: {
            "description": "The transcript in the format asked for.",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/ResultOut"}},
                **{media: {"schema": {"type": "string"}} for media, _, _ in FORMATS.values()},
            },
        },
    },
)
def get_result(
    job_id: UUID,
    session: ReadSession,
    wanted: Annotated[FormatName, Query(alias="format", description="Default: json.")] = "json",
) -> Response:
    """The transcript as a file. 409 while the job is not completed."""
    job = read.get_job(session, job_id)
    result = result_out(session, job)
    if result is None:
        raise errors.Conflict(f"The job is {job.status}; there is no result. GET {_url(job_id)} says more.")
    media_type, suffix, content = _rendered(result, wanted)
    headers = {"Content-Disposition": _disposition(f"{_stem(job.filename)}{suffix}")}
    return Response(content, media_type=media_type, headers=headers)


def _rendered(result: ResultOut, name: str) -> tuple[str, str, str]:
    """Media type, file suffix and content."""
    if name == "json":
        return "application/json", ".json", result.model_dump_json(exclude_none=False)
    media_type, suffix, render = FORMATS[name]
    return media_type, suffix, render(result.segments)


def _stem(filename: str) -> str:
    return filename.rpartition(".")[0] or filename


def _disposition(filename: str) -> str:
    """RFC 6266: a plain name for old clients, the true one percent-encoded."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


@router.delete(
    "/{job_id}",
    response_model=Cancelled,
    responses={**documented(401, 404, 409, 503), 204: {"description": "Purged (with purge=true)."}},
)
def cancel_or_purge(
    job_id: UUID,
    storage: AppStorage,
    purge: Purge = False,  # noqa: FBT002 a query parameter
) -> Response | Cancelled:
    """Cancel a job that is pending or processing; with `purge=true` delete one that is final."""
    if purge:
        return _purge(job_id, storage)
    with transaction() as session:
        job = cancel.cancel(session, job_id)
    emit("job.cancelled", job_id=str(job_id))
    return Cancelled(job_id=job.id, status="cancelled")


def _purge(job_id: UUID, storage: Storage) -> Response:
    with transaction() as session:
        key = cancel.purge(session, job_id)
        storage.delete(key)  # before the commit: a crash in between leaves a row without audio, never the reverse
    emit("job.purged", job_id=str(job_id))
    return Response(status_code=status.HTTP_204_NO_CONTENT)
