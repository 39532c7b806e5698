"""/v1: transcriptions, translations and models, for clients of OpenAI.

A request becomes a job of high priority and waits for it, without a thread or a database connection. The job is as
durable as any other: a client that goes away does not cancel it, and finds it again (jobs/attach.py).
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

import errors
from access import quota
from api import openai_answers as answers
from api.admission import admit
from api.deps import AppSettings, AppStorage, CallerOf, authenticated
from api.openai_schemas import (
    MODELS,
    REPEATED,
    MissingParameter,
    Model,
    ModelList,
    ModelNotFound,
    SpeechOptions,
    Transcription,
    VerboseTranscription,
    read_options,
)
from api.problems import openai_documented, openai_problem, openai_status
from api.submit import KeyHeader
from api.uploads import Form, Limits, kept_unless_refused, receive
from api.watch import Changes, Watchers
from database import transaction
from formats import FORMATS
from jobs import attach, read
from jobs.states import FINAL, Status
from jobs.submit import JobRequest, Upload, submit
from models import Job, Result, SegmentRow
from telemetry.events import emit

HEARTBEAT_S = 15.0  # so often a stream says that it is alive, and a request looks whether its client still is
NO_FILE = "missing; send the recording with its file name, as `curl -F file=@recording.mp3` does"
LEFT = 499  # for the log alone: nobody reads it
Following = AsyncGenerator[Changes | None, None]
router = APIRouter(prefix="/v1", tags=["openai"])


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and what it takes to make a job of it."""

    request: Request
    settings: AppSettings
    storage: AppStorage
    caller: CallerOf
    idempotency_key: KeyHeader = None


def _multipart() -> dict[str, Any]:
    """The request body for the OpenAPI document; the body itself is read as a stream, not by FastAPI."""
    options = SpeechOptions.model_json_schema()
    names = {"timestamp_granularities": "timestamp_granularities[]", "keywords": "keywords[]"}
    properties = {names.get(name, name): schema for name, schema in options["properties"].items()}
    file = {"file": {"type": "string", "format": "binary", "description": "The recording."}}
    schema = options | {"properties": file | properties, "required": ["file", *options["required"]]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _spoken() -> dict[int | str, dict[str, Any]]:
    texts = ("text/plain", FORMATS["srt"].media_type, FORMATS["vtt"].media_type, "text/event-stream")
    content = {media_type: {"schema": {"type": "string"}} for media_type in texts}
    ok = {"model": VerboseTranscription | Transcription, "content": content, "description": "As `response_format` says"}
    return {200: ok, **openai_documented(400, 401, 403, 404, 409, 413, 429, 500, 503, 507)}


SPOKEN: dict[str, Any] = {
    "response_class": Response,
    "response_model": None,
    "dependencies": [Depends(admit)],
    "responses": _spoken(),
    "openapi_extra": _multipart(),
}


@router.post("/audio/transcriptions", **SPOKEN)
async def create_transcription(call: Annotated[Call, Depends(Call)]) -> Response:
    """Transcribe and wait for the text, as `client.audio.transcriptions.create(...)` of the package `openai` does.

    The same request sent again while its job runs, or within ten minutes if its answer was lost, gets that job's text.
    """
    return await _speak(call, "transcribe")


@router.post("/audio/translations", **SPOKEN)
async def create_translation(call: Annotated[Call, Depends(Call)]) -> Response:
    """The same, translated to English."""
    return await _speak(call, "translate")


@router.get("/models", dependencies=[Depends(authenticated)], responses=openai_documented(401, 429, 503))
async def list_models() -> ModelList:
    """Every name that `model` takes."""
    return MODELS


@router.get(
    "/models/{model:path}", dependencies=[Depends(authenticated)], responses=openai_documented(401, 404, 429, 503)
)
async def retrieve_model(model: str) -> Model:
    """One of them; 404 for a name that `model` does not take."""
    for known in MODELS.data:
        if known.id == model:
            return known
    raise ModelNotFound(f"The model `{model}` does not exist here. GET /v1/models lists those that do.")


async def _speak(call: Call, task: str) -> Response:
    limits = Limits("file", 1, call.settings.max_upload_bytes, refuse_at_once=True, repeated=REPEATED)
    form = await receive(call.request, call.storage, limits)
    options, job_id = await run_in_threadpool(_accept, call, form, task)
    watchers: Watchers = call.request.app.state.watchers
    changes = watchers.follow(job_id, call.caller.scope, heartbeat_s=HEARTBEAT_S)
    return await (_streamed(call, changes) if options.stream else _whole(call, options, changes))


def _accept(call: Call, form: Form, task: str) -> tuple[SpeechOptions, UUID]:
    with kept_unless_refused(form, call.storage):
        if not form.uploads:
            raise MissingParameter(("file", NO_FILE))
        options = read_options(form.fields)
        wanted = options.to_request(task, call.settings, call.caller.delete_after_s)
        job, is_new = _attach_or_insert(call, form.uploads[0], wanted)
    if is_new:
        emit("job.accepted", job_id=str(job.id), bytes=job.size_bytes, priority=job.priority)
    else:
        form.discard(call.storage)
        emit("job.attached", job_id=str(job.id))
    return options, job.id


def _attach_or_insert(call: Call, upload: Upload, wanted: JobRequest) -> tuple[Job, bool]:
    """The job, and whether it is new."""
    owner = call.caller.owner
    same = attach.sameness(owner, upload.sha256, wanted, call.idempotency_key)
    with transaction() as session:
        if (job := attach.find(session, same)) is not None:
            return job, False
        quota.check(session, call.caller, jobs=1, size_bytes=upload.size_bytes)
        request_id = call.request.scope["request_id"]
        return submit(session, upload, wanted, owner=owner, request_id=request_id, attach_key=same.key), True


async def _whole(call: Call, options: SpeechOptions, changes: Following) -> Response:
    """The answer in one piece, when the job is final."""
    job: Job | None = None
    segments: list[SegmentRow] = []
    async with aclosing(changes):
        async for change in changes:
            if await call.request.is_disconnected():
                return Response(status_code=LEFT)
            if change is not None:
                job = change.job
                segments += change.segments
    if (ended := _final(job)).status != Status.COMPLETED:
        return answers.failure_of(ended).as_response()
    result = await run_in_threadpool(_take_result, ended.id)
    return answers.answer(answers.Done(ended, result, segments), options)


async def _streamed(call: Call, changes: Following) -> Response:
    """Events as segments come. A job that fails before it has said anything is answered by a status, as without."""
    first = await _first_news(changes)
    if first is not None and first.job.status in (Status.FAILED, Status.CANCELLED) and not first.segments:
        return answers.failure_of(first.job).as_response()
    events = _events(call, _put_back(first, changes))
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _first_news(changes: Following) -> Changes | None:
    """The first that can be shown: text, the end, or None after a heartbeat without either."""
    async for change in changes:
        if change is None or change.segments or change.job.status in FINAL:
            return change
    raise _broken_off()


async def _put_back(first: Changes | None, changes: Following) -> Following:
    async with aclosing(changes):
        yield first
        async for change in changes:
            yield change


async def _events(call: Call, changes: Following) -> AsyncIterator[str]:
    text, job = answers.Text(), None
    try:
        async for change in changes:
            if change is None:
                yield answers.KEEP_ALIVE
                continue
            job = change.job
            for row in change.segments:
                for event in answers.segment_events(row, text):
                    yield event
        ended = _final(job)
        if not await call.request.is_disconnected():
            yield await _last_event(ended)
    except errors.ServiceError as error:
        yield answers.error_event(openai_problem(openai_status(error.status), error.code, str(error)))


async def _last_event(job: Job) -> str:
    if job.status != Status.COMPLETED:
        return answers.error_event(answers.failure_of(job).as_json())
    result = await run_in_threadpool(_take_result, job.id)
    return answers.done_event(answers.Done(job, result, ()))


def _final(job: Job | None) -> Job:
    if job is None or job.status not in FINAL:
        raise _broken_off()
    return job


def _broken_off() -> errors.Unavailable:
    """The process stops, or somebody has deleted the job."""
    return errors.Unavailable("The service is about to restart. Send the same request again: it goes on with its job.")


def _take_result(job_id: UUID) -> Result:
    """For a client that is there to get it: the next request of this kind is a job of its own."""
    with transaction() as session:
        attach.mark_answered(session, job_id)
        result = read.get_result(session, job_id)
    if result is None:
        raise _broken_off()
    return result
