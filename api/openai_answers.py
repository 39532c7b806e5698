"""Answers in the shapes of OpenAI's audio API: a transcript, the events of a stream, why a job failed. No I/O."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse

import errors
from api.openai_schemas import Segment, SpeechOptions, Transcription, Usage, VerboseTranscription, Word
from api.present import segment_out
from api.problems import openai_problem
from formats import FORMATS, render
from jobs.states import Status
from languages import LANGUAGES
from models import Job, Result, SegmentRow

FRAMES_A_SECOND = 100  # of which Whisper counts `seek`
FAULTS_OF_THE_RECORDING = {errors.MediaError.code, *(kind.code for kind in errors.MediaError.__subclasses__())}
KEEP_ALIVE = ": still at work\n\n"


@dataclass(frozen=True, slots=True)
class Done:
    """A completed job with its text."""

    job: Job
    result: Result
    segments: Sequence[SegmentRow]

    @property
    def usage(self) -> Usage:
        return Usage(seconds=ceil(self.result.duration))

    @property
    def language(self) -> str:
        """Of the text, by its English name."""
        if self.job.task == "translate":
            return "english"
        return LANGUAGES.get(self.result.language or self.job.language or "", "")


def answer(done: Done, options: SpeechOptions) -> Response:
    if options.response_format == "text":
        return PlainTextResponse(done.result.text)
    if options.response_format in ("srt", "vtt"):
        text = render(options.response_format, map(segment_out, done.segments), options.subtitle_options())
        return Response(text, media_type=FORMATS[options.response_format].media_type)
    if options.response_format == "verbose_json":
        return JSONResponse(_verbose(done, options).model_dump(exclude_none=True))
    return JSONResponse(Transcription(text=done.result.text, usage=done.usage).model_dump())


def _verbose(done: Done, options: SpeechOptions) -> VerboseTranscription:
    wanted = options.timestamp_granularities or ["segment"]
    return VerboseTranscription(
        task="translate" if done.job.task == "translate" else "transcribe",
        language=done.language,
        duration=done.result.duration,
        text=done.result.text,
        segments=[_segment(row) for row in done.segments] if "segment" in wanted else None,
        words=[word for row in done.segments for word in _words(row)] if "word" in wanted else None,
        usage=done.usage,
    )


def _segment(row: SegmentRow) -> Segment:
    return Segment(
        id=row.number,
        seek=round(row.start * FRAMES_A_SECOND),
        start=row.start,
        end=row.end,
        text=row.text,
        tokens=row.tokens,
        temperature=row.temperature,
        avg_logprob=row.avg_logprob,
        compression_ratio=row.compression_ratio,
        no_speech_prob=row.no_speech_prob,
    )


def _words(row: SegmentRow) -> Iterator[Word]:
    for word in row.words or ():
        yield Word(word=word["word"].strip(), start=word["start"], end=word["end"])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no transcript, and will be none however often it is asked for."""

    status: int
    code: str
    message: str

    def as_json(self) -> dict[str, Any]:
        return openai_problem(self.status, self.code, self.message)

    def as_response(self) -> Response:
        """Without the header OpenAI's clients would send the same recording twice more."""
        return JSONResponse(self.as_json(), self.status, headers={"x-should-retry": "false"})


def failure_of(job: Job) -> Failure:
    """Of a job that is final and not completed."""
    if job.status == Status.CANCELLED:
        return Failure(409, "cancelled", "The job was cancelled. Send the recording again if it is wanted after all.")
    code = job.error_code or errors.ServiceError.code
    status = 400 if code in FAULTS_OF_THE_RECORDING else 500
    return Failure(status, code, job.error_message or "The recording could not be transcribed.")


class Text:
    """The text as it grows. What it gives out adds up to the text of the result, which has no space around it."""

    def __init__(self) -> None:
        self._has_begun = False
        self._held_back = ""  # space that counts only if something follows

    def more(self, text: str) -> str:
        text = self._held_back + text if self._has_begun else text.lstrip()
        said = text.rstrip()
        self._held_back = text[len(said) :]
        self._has_begun = self._has_begun or bool(said)
        return said


def segment_events(row: SegmentRow, text: Text) -> Iterator[str]:
    """The segment's event is that of a diarized stream, the only one with times: the speaker is not known."""
    if delta := text.more(row.text):
        yield event({"type": "transcript.text.delta", "delta": delta})
    times = {"start": row.start, "end": row.end, "text": row.text}
    yield event({"type": "transcript.text.segment", "id": str(row.number), "speaker": "", **times})


def done_event(done: Done) -> str:
    return event({"type": "transcript.text.done", "text": done.result.text, "usage": done.usage.model_dump()})


def error_event(problem: dict[str, Any]) -> str:
    return event({"type": "error", **problem})


def event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
