"""POST /asr and /detect-language, as whisper-asr-webservice has them: for Bazarr, speakr and others that know those.

Options are query parameters; those that we have no use for are ignored, as they are there. A request waits for its job
(api/waiting.py).
"""

from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool

import errors
from api import waiting
from api.admission import admit
from api.asr_answers import MEDIA_TYPE, Output, failure_of, language_of, transcript
from api.files import disposition
from api.problems import documented
from api.schemas import Language, Prompt
from api.uploads import Form, Limits, clean_name, receive
from api.waiting import LEFT, Call, Following
from config import VERSION
from database import transaction
from jobs import attach, cancel
from jobs.states import Status
from jobs.submit import JobRequest, Upload, validate
from models import Job
from transcript import DecodeOptions

FIELD = "audio_file"
ENGINE = {"Asr-Engine": "faster_whisper"}
DETECTED_KEPT_S = 3600  # nobody asked for the text of a recording whose language was asked for
LOOK = DecodeOptions(beam_size=1)  # nor for a good one; no other door asks so, and none is attached to what we cancel
router = APIRouter(tags=["asr"])


class SoundOptions(BaseModel):
    encode: bool = Field(True, description="`false`: the file is sound without a header, 16 kHz, mono, s16le.")
    video_file: str | None = Field(None, description="What the recording is called, as Bazarr and subgen tell it.")

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        """Left empty is left out."""
        return {name: value for name, value in values.items() if value != ""} if isinstance(values, Mapping) else values

    def named(self, upload: Upload) -> Upload:
        name = clean_name(self.video_file) if self.video_file else upload.filename
        return replace(upload, filename=name if self.encode else f"{name}.wav")


class AsrOptions(SoundOptions):
    task: Literal["transcribe", "translate"] = Field("transcribe", description="`translate` writes English.")
    language: Language = Field(None, description="Code or English name; left out: detected.", examples=["en"])
    initial_prompt: Prompt | None = Field(None, description="Text that shows names and style to the model.")
    vad_filter: bool = Field(True, description="Skip what is not speech.")
    word_timestamps: bool = Field(False, description="Times of each word, in json.")
    output: Output = "txt"

    def to_decode(self) -> DecodeOptions:
        return DecodeOptions(
            language=self.language,
            task=self.task,
            word_timestamps=self.word_timestamps,
            initial_prompt=self.initial_prompt,
            vad_filter=self.vad_filter,
        )


class DetectedLanguage(BaseModel):
    detected_language: str = Field(description="Its English name.", examples=["english"])
    language_code: str = Field(description="`und` where nothing is said.", examples=["en"])
    confidence: float = Field(examples=[0.98])


def _multipart() -> dict[str, Any]:
    file = {"type": "string", "format": "binary", "description": "The recording."}
    schema = {"type": "object", "properties": {FIELD: file}, "required": [FIELD]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


DOOR: dict[str, Any] = {"dependencies": [Depends(admit)], "openapi_extra": _multipart()}
REFUSED = documented(401, 403, 408, 409, 413, 415, 422, 429, 500, 503, 507)
TEXT = {"description": "As `output` says.", "content": {"text/plain": {"schema": {"type": "string"}}}}


@router.post("/asr", response_class=Response, responses={200: TEXT, **REFUSED}, **DOOR)
async def asr(call: Annotated[Call, Depends(Call)], options: Annotated[AsrOptions, Query()]) -> Response:
    """Transcribe and wait for the text: `curl -F audio_file=@talk.mp3 "http://127.0.0.1:8000/asr?output=srt"`.

    The same request sent again while its job runs, or within ten minutes if its answer was lost, gets that job's text.
    """
    form = await _receive(call, options)
    job_id = await waiting.accept(call, form, partial(_asked, call, form, options, options.to_decode(), None))
    ended = await waiting.ended(call, waiting.follow(call, job_id))
    if ended is None:
        return Response(status_code=LEFT)
    if ended.job.status != Status.COMPLETED:
        return failure_of(call.request, ended.job)
    result = await run_in_threadpool(waiting.take_result, job_id)
    text = transcript(ended, result, options.output)
    headers = ENGINE | {"Content-Disposition": disposition(f"{form.uploads[0].filename}.{options.output}")}
    return Response(text, media_type=MEDIA_TYPE, headers=headers)


@router.post("/detect-language", response_model=DetectedLanguage, responses=REFUSED, **DOOR)
async def detect_language(
    call: Annotated[Call, Depends(Call)], options: Annotated[SoundOptions, Query()]
) -> Response | DetectedLanguage:
    """The language that is spoken. The job stops as soon as that is known; it is deleted an hour later."""
    form = await _receive(call, options)
    kept_s = min(filter(None, (DETECTED_KEPT_S, call.caller.delete_after_s)))
    job_id = await waiting.accept(call, form, partial(_asked, call, form, options, LOOK, kept_s))
    job = await _once_detected(call, waiting.follow(call, job_id))
    if job is None:
        return Response(status_code=LEFT)
    if job.detected_language is None and job.status in (Status.FAILED, Status.CANCELLED):
        return failure_of(call.request, job)
    await run_in_threadpool(_stop, call, job_id)
    code, name = language_of(job)
    return DetectedLanguage(detected_language=name, language_code=code, confidence=job.language_probability or 0.0)


@router.get("/status", include_in_schema=False)
async def status() -> JSONResponse:
    """What the test button of Bazarr asks for."""
    return JSONResponse({"version": f"Whisper Queue {VERSION}"})


async def _receive(call: Call, options: SoundOptions) -> Form:
    limits = Limits(FIELD, 1, call.settings.max_upload_bytes, refuse_at_once=True, is_pcm=not options.encode)
    return await receive(call.request, call.storage, limits)


def _asked(
    call: Call, form: Form, options: SoundOptions, decode: DecodeOptions, kept_s: int | None
) -> tuple[Upload, JobRequest]:
    if not form.uploads:
        raise errors.InvalidOption((FIELD, f"missing; send the recording as `curl -F {FIELD}=@recording.mp3` does"))
    kept_s = kept_s or call.caller.delete_after_s
    wanted = JobRequest(call.settings.whisper_model_size, "high", decode, delete_after_s=kept_s)
    validate(wanted, call.settings)
    return options.named(form.uploads[0]), wanted


async def _once_detected(call: Call, changes: Following) -> Job | None:
    """The job once its language is known, or it is final; None where its client has left before."""
    job: Job | None = None
    async with aclosing(changes):
        async for change in changes:
            if await call.request.is_disconnected():
                return None
            if change is not None:
                job = change.job
                if job.detected_language is not None:
                    return job
    return waiting.final(job)


def _stop(call: Call, job_id: UUID) -> None:
    """What is left of the recording is not wanted."""
    with transaction() as session:
        attach.mark_answered(session, job_id)
        with suppress(errors.Conflict, errors.NotFound):  # final, or purged
            cancel.cancel(session, job_id, call.caller.scope)
