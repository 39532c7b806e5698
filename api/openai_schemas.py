"""What OpenAI's audio API takes and gives, in the names of its clients, and the job that such a request stands for."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

import errors
from api.schemas import Language, Prompt
from api.subtitles import SubtitleFields, check_formats
from config import MODEL_SIZES, Settings
from jobs.submit import JobRequest, validate
from transcript import DecodeOptions

OPENAI_MODEL = "whisper-1"  # what clients name that were written for api.openai.com; here, the operator's default
LISTS = ("timestamp_granularities", "keywords")
REPEATED = frozenset(LISTS) | {f"{name}[]" for name in LISTS}  # clients send either
OUR_NAMES = {"model_size": "model", "initial_prompt": "prompt", "task": "model"}  # ours, to what the caller has sent
REFUSED = {
    "include": "log probabilities of tokens are not given here; verbose_json has avg_logprob for each segment",
    "known_speaker_names": "speakers are not told apart here; leave it out",
    "known_speaker_references": "speakers are not told apart here; leave it out",
    "languages": "one language can be asked for, as `language`; leave it out to detect",
}


class UnknownParameter(errors.InvalidOption):
    code = "unknown_parameter"


class MissingParameter(errors.InvalidOption):
    code = "missing_required_parameter"


class UnsupportedParameter(errors.InvalidOption):
    code = "unsupported_parameter"


class ModelNotFound(errors.NotFound):
    code = "model_not_found"


class SpeechOptions(SubtitleFields):
    """Options of POST /v1/audio/transcriptions and /v1/audio/translations; those of subtitles are our own."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description=f"`{OPENAI_MODEL}`: the operator's; or one of {', '.join(MODEL_SIZES)}.")
    language: Language = Field(
        None, description="Of the recording, as a code or in English; leave out to detect.", examples=["en"]
    )
    prompt: Prompt | None = Field(None, description="Text that shows names and style to the model.")
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: float = Field(0, ge=0, le=1, description="0: with Whisper's fallback steps.")
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        default_factory=list, description="For verbose_json. Default: segment."
    )
    stream: bool = Field(False, description="Answer with server-sent events, as the text comes.")
    keywords: list[Prompt] = Field(default_factory=list, description="Words to expect.")
    hotwords: Prompt | None = Field(None, description="Our own. Words to expect, separated by spaces.")
    vad_filter: bool = Field(True, description="Our own. Skip what is not speech.")
    chunking_strategy: Any = Field(None, description="Without effect.")
    user: Any = Field(None, description="Without effect.")

    def to_request(self, task: str, settings: Settings, delete_after_s: int | None) -> JobRequest:
        """Raises ModelNotFound, or InvalidOption in the caller's names."""
        decode = DecodeOptions(
            language=self.language,
            task=task,
            word_timestamps="word" in self.timestamp_granularities or bool(self.subtitle_options().given),
            initial_prompt=self.prompt,
            hotwords=" ".join(filter(None, [self.hotwords, *self.keywords])) or None,
            vad_filter=self.vad_filter,
            temperature=self.temperature or None,
        )
        model_size = size_of(self.model, settings)
        request = JobRequest(model_size, priority="high", decode=decode, delete_after_s=delete_after_s)
        try:
            validate(request, settings)
        except errors.InvalidOption as error:
            raise errors.InvalidOption(*((OUR_NAMES.get(name, name), text) for name, text in error.problems)) from None
        return request


def size_of(model: str, settings: Settings) -> str:
    """Raises ModelNotFound."""
    if model == OPENAI_MODEL:
        return settings.whisper_model_size
    if model not in MODEL_SIZES:
        known = ", ".join((OPENAI_MODEL, *MODEL_SIZES))
        raise ModelNotFound(f"The model `{model}` does not exist here. Choose one of {known}.")
    return model


def read_options(fields: Mapping[str, Any]) -> SpeechOptions:
    """Raises InvalidOption naming one field, as OpenAI does."""
    try:
        options = SpeechOptions.model_validate(_plain(fields))
    except ValidationError as error:
        raise _problem(error.errors()[0]) from None
    _check_together(options)
    return options


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Lists and objects by their plain names, `keywords[]` as `keywords`; nothing that was left empty."""
    plain: dict[str, Any] = {}
    for sent, value in fields.items():
        name = sent.partition("[")[0]
        if name in REFUSED:
            raise UnsupportedParameter((name, REFUSED[name]))
        if name in LISTS:
            for one in value if isinstance(value, list) else [value]:
                plain.setdefault(name, []).extend(_listed(name, one))
        elif value != "":
            plain[name if name == "chunking_strategy" else sent] = value
    return plain


def _listed(name: str, value: str) -> list[Any]:
    """Some clients put the whole list into one field: as JSON, or with commas where a value has none."""
    if value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            return list(json.loads(value))
    values = value.split(",") if name == "timestamp_granularities" else [value]
    return [one.strip() for one in values if one.strip()]


def _problem(error: ErrorDetails) -> errors.InvalidOption:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return UnknownParameter((name, f"unknown parameter; known are file, {', '.join(SpeechOptions.model_fields)}"))
    if error["type"] == "missing":
        return MissingParameter((name, f"missing; send {name}={OPENAI_MODEL}, or GET /v1/models for others"))
    return errors.InvalidOption((name, error["msg"].removeprefix("Value error, ")))


def _check_together(options: SpeechOptions) -> None:
    if options.timestamp_granularities and options.response_format != "verbose_json":
        raise errors.InvalidOption(("timestamp_granularities", "needs response_format=verbose_json"))
    if options.stream and options.response_format in ("srt", "vtt"):
        raise errors.InvalidOption(("response_format", f"{options.response_format} cannot be streamed; choose json"))
    check_formats(options.subtitle_options(), [options.response_format])


class Usage(BaseModel):
    type: Literal["duration"] = "duration"
    seconds: int = Field(description="Of audio, rounded up.", examples=[4])


class Transcription(BaseModel):
    text: str = Field(examples=["one two three four five six seven"])
    usage: Usage


class Segment(BaseModel):
    id: int = Field(examples=[0])
    seek: int = Field(description="Where the segment begins, in frames of 10 ms.", examples=[32])
    start: float = Field(examples=[0.32])
    end: float = Field(examples=[2.84])
    text: str = Field(examples=[" one two three four five six seven"])
    tokens: list[int] = Field(examples=[[50364, 472]])
    temperature: float = Field(examples=[0.0])
    avg_logprob: float = Field(examples=[-0.11])
    compression_ratio: float = Field(examples=[0.92])
    no_speech_prob: float = Field(examples=[0.01])


class Word(BaseModel):
    word: str = Field(examples=["one"])
    start: float = Field(examples=[0.32])
    end: float = Field(examples=[0.61])


class VerboseTranscription(Transcription):
    task: Literal["transcribe", "translate"]
    language: str = Field(description="English name of the language of the text; empty where there was no speech.")
    duration: float = Field(description="Seconds of audio.", examples=[3.1])
    segments: list[Segment] | None = Field(None, description="Left out where only words were asked for.")
    words: list[Word] | None = Field(None, description="Only where asked for.")


class Model(BaseModel):
    id: str = Field(examples=["small"])
    object: Literal["model"] = "model"
    created: int = 1_677_532_384  # as api.openai.com says of whisper-1; clients ask for a number
    owned_by: str = "whisper-queue"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


MODELS = ModelList(data=[Model(id=name) for name in (OPENAI_MODEL, *MODEL_SIZES)])
