"""POST /transcribe/ and /transcribe/batch: a recording, many, or the address of one, become jobs."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response, status
from pydantic import ValidationError
from sqlalchemy.orm import Session

import errors
import outbound
import webhooks
from access import quota
from access.caller import Caller
from api.admission import admit
from api.deps import AppSettings, AppStorage, CallerOf
from api.fields import FORM, JSON, media_type, receive_fields
from api.problems import documented
from api.schemas import Accepted, BatchAccepted, TranscribeOptions
from api.uploads import BadFile, Form, Limits, clean_name, kept_if_new, receive
from config import Settings
from database import transaction
from jobs import idempotency, read
from jobs.states import Status
from jobs.submit import JobRequest, Upload, open_batch, submit, validate
from models import Batch, IdempotencyKey, Job
from storage import Storage, new_key
from telemetry.events import emit

KeyHeader = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="Sent again with the same request, it gives the same job (24 h)."),
]
REPLAYED = "Idempotent-Replayed"
router = APIRouter(prefix="/transcribe", tags=["transcribe"])


def _multipart(file_field: str, *, many: bool) -> dict[str, Any]:
    """The request body for the OpenAPI document; the body itself is read as a stream, not by FastAPI."""
    options = TranscribeOptions.model_json_schema()
    one = {"type": "string", "format": "binary"}
    files = {file_field: {"type": "array", "items": one} if many else one}
    schema = options | {"properties": files | options["properties"], "required": [file_field]}
    content = {"multipart/form-data": {"schema": schema}}
    if not many:
        address = {"url": {"type": "string", "format": "uri", "description": "Where a worker fetches the recording."}}
        by_url = options | {"properties": address | options["properties"], "required": ["url"]}
        content |= {JSON: {"schema": by_url}, FORM: {"schema": by_url}}
    return {"requestBody": {"required": True, "content": content}}


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that has come in whole, and from whom."""

    form: Form
    wanted: JobRequest
    caller: Caller
    request_id: str
    once: idempotency.Once | None

    def insert(self, session: Session, upload: Upload, batch_id: UUID | None = None) -> Job:
        return submit(
            session,
            upload,
            self.wanted,
            owner=self.caller.owner,
            request_id=self.request_id,
            batch_id=batch_id,
        )


@router.post(
    "/",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[Depends(admit)],
    responses=documented(401, 408, 409, 413, 415, 422, 429, 503, 507),
    openapi_extra=_multipart("file", many=False),
)
async def submit_recording(
    request: Request,
    response: Response,
    settings: AppSettings,
    storage: AppStorage,
    caller: CallerOf,
    idempotency_key: KeyHeader = None,
) -> Accepted:
    """Submit one recording: `curl -F file=@meeting.mp3 http://localhost:8000/transcribe/`.

    Or its address: `curl -d url=https://example.com/meeting.mp3 …`. Answers as soon as the file and the job are
    durable; poll `status_url`.
    """
    form = await _receive(request, settings, storage)
    accept = partial(_accept_one, form, request, caller, settings, idempotency_key)
    job, is_new = await kept_if_new(request, form, storage, accept)
    _say(response, url_of(job.id), is_new=is_new)
    return Accepted(job_id=job.id, status=Status.PENDING.value, status_url=url_of(job.id), created_at=job.created_at)


@router.post(
    "/batch",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[Depends(admit)],
    responses=documented(401, 408, 409, 413, 422, 429, 503, 507),
    openapi_extra=_multipart("files", many=True),
)
async def submit_batch(
    request: Request,
    response: Response,
    settings: AppSettings,
    storage: AppStorage,
    caller: CallerOf,
    idempotency_key: KeyHeader = None,
) -> BatchAccepted:
    """Submit many recordings with one set of options: `curl -F files=@a.mp3 -F files=@b.mp3 …`.

    A file that cannot be accepted is named in `errors`; the others become jobs.
    """
    limits = Limits("files", settings.max_batch_files, settings.max_upload_bytes, refuse_at_once=False)
    form = await receive(request, storage, limits)
    accept = partial(_accept_batch, form, request, caller, settings, idempotency_key)
    (batch, jobs), is_new = await kept_if_new(request, form, storage, accept)
    _say(response, f"/batches/{batch.id}", is_new=is_new)
    return BatchAccepted(
        batch_id=batch.id,
        status_url=f"/batches/{batch.id}",
        jobs=[{"job_id": job.id, "filename": job.filename} for job in jobs],
        errors=batch.refused,
    )


def url_of(job_id: UUID) -> str:
    return f"/transcribe/{job_id}"


def _say(response: Response, location: str, *, is_new: bool) -> None:
    response.headers["Location"] = location
    if not is_new:
        response.headers[REPLAYED] = "true"


async def _receive(request: Request, settings: Settings, storage: Storage) -> Form:
    if media_type(request) in (JSON, FORM):
        return Form(fields=await receive_fields(request))
    limits = Limits("file", max_files=1, max_file_bytes=settings.max_upload_bytes, refuse_at_once=True)
    return await receive(request, storage, limits)


def _accept_one(form: Form, request: Request, caller: Caller, settings: Settings, key: str | None) -> tuple[Job, bool]:
    """The job, and whether it is new."""
    _take_address(form, settings)
    job, is_new = _insert_one(_checked(form, "file", request, caller, settings, key))
    if is_new:
        emit("job.accepted", job_id=str(job.id), bytes=job.size_bytes, priority=job.priority)
    return job, is_new


def _insert_one(sent: Submission) -> tuple[Job, bool]:
    with transaction() as session:
        row = _begin(session, sent)
        if row is not None and row.job_id is not None:
            return read.get_job(session, row.job_id), False
        upload = sent.form.uploads[0]
        quota.check(session, sent.caller, jobs=1, size_bytes=upload.size_bytes)
        job = sent.insert(session, upload)
        if row is not None:
            row.job_id = job.id
        return job, True


def _accept_batch(
    form: Form, request: Request, caller: Caller, settings: Settings, key: str | None
) -> tuple[tuple[Batch, list[Job]], bool]:
    batch, jobs, is_new = _insert_batch(_checked(form, "files", request, caller, settings, key))
    if is_new:
        emit("batch.accepted", batch_id=str(batch.id), jobs=len(jobs), refused=len(batch.refused))
    return (batch, jobs), is_new


def _insert_batch(sent: Submission) -> tuple[Batch, list[Job], bool]:
    refused = [asdict(item) for item in sent.form.files if isinstance(item, BadFile)]
    with transaction() as session:
        row = _begin(session, sent)
        if row is not None and row.batch_id is not None:
            batch, jobs = read.batch_jobs(session, row.batch_id)
            return batch, list(jobs), False
        total_bytes = sum(upload.size_bytes for upload in sent.form.uploads)
        quota.check(session, sent.caller, jobs=len(sent.form.uploads), size_bytes=total_bytes)
        batch = open_batch(session, refused=refused, owner=sent.caller.owner, webhook_url=sent.wanted.webhook_url)
        jobs = [sent.insert(session, upload, batch.id) for upload in sent.form.uploads]
        if not jobs:
            webhooks.announce_batch(session, batch.id)
        if row is not None:
            row.batch_id = batch.id
        return batch, jobs, True


def _begin(session: Session, sent: Submission) -> IdempotencyKey | None:
    return None if sent.once is None else idempotency.begin(session, sent.once)


def _take_address(form: Form, settings: Settings) -> None:
    """`url` stands for a file that a worker is to fetch."""
    url = form.fields.pop("url", None)
    if url in (None, ""):
        return
    if form.files:
        raise errors.InvalidOption(("url", "came together with a file; send one or the other"))
    if not isinstance(url, str):
        raise errors.InvalidOption(("url", "expected an address, such as https://example.com/meeting.mp3"))
    outbound.check_url(url, outbound.networks(settings))
    name = clean_name(unquote(urlsplit(url).path))
    form.files.append(Upload(name, new_key(), 0, "", source_url=url))


def _checked(
    form: Form, file_field: str, request: Request, caller: Caller, settings: Settings, key: str | None
) -> Submission:
    """Raises Refused."""
    options = _options(form, file_field)
    wanted = options.to_request(settings.whisper_model_size, caller.delete_after_s)
    validate(wanted, settings)
    if wanted.webhook_url is not None:
        outbound.check_url(wanted.webhook_url, outbound.networks(settings))
    once = None if key is None else _once(key, request, caller, form, options)
    return Submission(form, wanted, caller, request.scope["request_id"], once)


def _once(key: str, request: Request, caller: Caller, form: Form, options: TranscribeOptions) -> idempotency.Once:
    idempotency.check_key(key)
    files = [
        (item.filename, item.code) if isinstance(item, BadFile) else (item.filename, item.sha256, item.source_url)
        for item in form.files
    ]
    fingerprint = idempotency.fingerprint(request.url.path, options.model_dump(mode="json"), files)
    return idempotency.Once(caller.owner, key, fingerprint)


def _options(form: Form, file_field: str) -> TranscribeOptions:
    if not form.files:
        raise errors.InvalidOption((file_field, f"missing; send recordings as `curl -F {file_field}=@recording.mp3`"))
    try:
        return TranscribeOptions.model_validate(form.fields)
    except ValidationError as error:
        problems = [(str(item["loc"][0]), _message(item["type"], item["msg"])) for item in error.errors()]
        raise errors.InvalidOption(*problems) from None


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown option; known are {', '.join(TranscribeOptions.model_fields)}"
    return message.removeprefix("Value error, ")
