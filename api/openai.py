"""/v1: transcriptions, translations and models, for clients of OpenAI. A request waits for its job (api/waiting.py)."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

import errors
from api import openai_answers as answers
from api import waiting
from api.admission import admit
from api.deps import authenticated
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
from api.uploads import Form, Limits, kept_unless_refused, receive
from api.waiting import LEFT, Call, Following
from api.watch import Changes
from formats import FORMATS
from jobs.states import FINAL, Status
from models import Job

NO_FILE = "missing; send the recording as `curl -F file=@recording.mp3` does"
router = APIRouter(prefix="/v1", tags=["openai"])


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
    return {200: ok, **openai_documented(400, 401, 403, 404, 408, 409, 413, 429, 500, 503, 507)}


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
    options = await kept_unless_refused(call.request, form, call.storage, partial(_options, form))
    wanted = partial(options.to_request, task, call.settings, call.caller.delete_after_s)
    job_id = await waiting.accept(call, form, lambda: (form.uploads[0], wanted()))
    changes = waiting.follow(call, job_id)
    return await (_streamed(call, changes) if options.stream else _whole(call, options, changes))


def _options(form: Form) -> SpeechOptions:
    if not form.uploads:
        raise MissingParameter(("file", NO_FILE))
    return read_options(form.fields)


async def _whole(call: Call, options: SpeechOptions, changes: Following) -> Response:
    """The answer in one piece, when the job is final."""
    ended = await waiting.ended(call, changes)
    if ended is None:
        return Response(status_code=LEFT)
    if ended.job.status != Status.COMPLETED:
        return answers.failure_of(ended.job).as_response()
    result = await run_in_threadpool(waiting.take_result, ended.job.id)
    done = answers.Done(ended.job, result, ended.segments)
    return await run_in_threadpool(answers.answer, done, options)  # of hours: tokens and words of each segment


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
    raise waiting.broken_off()


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
        ended = waiting.final(job)
        if not await call.request.is_disconnected():
            yield await _last_event(ended)
    except errors.ServiceError as error:
        yield answers.error_event(openai_problem(openai_status(error.status), error.code, str(error)))


async def _last_event(job: Job) -> str:
    if job.status != Status.COMPLETED:
        return answers.error_event(answers.failure_of(job).as_json())
    result = await run_in_threadpool(waiting.take_result, job.id)
    return await run_in_threadpool(answers.done_event, answers.Done(job, result, ()))
