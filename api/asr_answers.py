"""Answers in the shapes of whisper-asr-webservice: a transcript, a language, why a job failed. No I/O."""

import json
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse

from api import openai_answers, problems
from api.waiting import Ended
from formats import FORMATS
from languages import LANGUAGES
from models import Job, Result, SegmentRow

MEDIA_TYPE = "text/plain"  # whatever the output is: so it is there
UNKNOWN = ("und", "undetermined")  # ISO 639-2
Output = Literal["txt", "vtt", "srt", "tsv", "json"]


def transcript(ended: Ended, result: Result, output: Output) -> str:
    if output != "json":
        return FORMATS[output].render(ended.segments)
    segments = [_segment(row) for row in ended.segments]
    text = "".join(row.text for row in ended.segments)
    language = result.language or ended.job.language
    return json.dumps({"text": text, "segments": segments, "language": language}, ensure_ascii=False)


def _segment(row: SegmentRow) -> dict[str, Any]:
    """As faster-whisper's dataclass of this name."""
    return {
        "id": row.number,
        "seek": round(row.start * openai_answers.FRAMES_A_SECOND),
        "start": row.start,
        "end": row.end,
        "text": row.text,
        "tokens": row.tokens,
        "avg_logprob": row.avg_logprob,
        "compression_ratio": row.compression_ratio,
        "no_speech_prob": row.no_speech_prob,
        "words": row.words,
        "temperature": row.temperature,
    }


def language_of(job: Job) -> tuple[str, str]:
    """Code and English name."""
    code = job.detected_language
    return UNKNOWN if code is None else (code, LANGUAGES.get(code, code))


def failure_of(request: Request, job: Job) -> JSONResponse:
    """Why a job that is final has no text."""
    failure = openai_answers.failure_of(job)
    is_of_the_recording = failure.code in openai_answers.FAULTS_OF_THE_RECORDING
    return problems.answer(request, 422 if is_of_the_recording else failure.status, failure.code, failure.message)
