"""What goes over the wire, with examples. pydantic stands only at this edge."""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from config import MODEL_SIZES
from jobs.submit import JobRequest
from languages import language_choice, language_code
from transcript import DecodeOptions

MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 32  # objects and lists within each other; pydantic can show about 250
MAX_DELETE_AFTER_S = 10 * 365 * 86_400
StatusName = Literal["pending", "processing", "completed", "failed", "cancelled"]
PriorityName = Literal["high", "normal"]
JOB_ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
BATCH_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
ERROR_ID = "9b2d6c1e-52a1-4b0b-8f0e-2f6f1b7c9f10"
_ISO_8601 = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}", re.ASCII)
MOMENT = "2026-01-31T09:30:00.000000Z"
Row = TypeVar("Row", bound=BaseModel)


def _metadata(value: Any) -> Any:
    """A form field carries JSON as text."""
    if isinstance(value, str):
        if len(value.encode()) > MAX_METADATA_BYTES:
            raise ValueError(f"must have at most {MAX_METADATA_BYTES} bytes")
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('must be a JSON object, such as {"customer": 7}') from None
    if not isinstance(value, dict):
        raise ValueError('must be a JSON object, such as {"customer": 7}')  # noqa: TRY004 pydantic reports ValueError
    if not _is_nested_at_most(MAX_METADATA_DEPTH, value):
        raise ValueError(f"may hold at most {MAX_METADATA_DEPTH} objects and lists within each other")
    return value


def _is_nested_at_most(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is None or (levels > 0 and all(_is_nested_at_most(levels - 1, one) for one in inner))


def _absent(value: Any) -> Any:
    """A form field left empty was not given."""
    return None if value == "" else value


def _language(value: Any) -> Any:
    return language_choice(value) if isinstance(value, str) else value


def _languages(value: Any) -> Any:
    """A form field carries a list with commas."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("must be a list of languages, such as en,de")
    return list(dict.fromkeys(code for name in names if (code := language_code(name))))


def _written_out(value: Any) -> Any:
    """pydantic would take a bare number for seconds since 1970."""
    if isinstance(value, int | float) or (isinstance(value, str) and not _ISO_8601.match(value)):
        raise ValueError("expected a date and time, such as 2026-01-31T09:30:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    """PostgreSQL knows no offset of 16 hours or more."""
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("lies outside of the years 1 to 9999") from None


Moment = Annotated[datetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
RunAt = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
OptionalText = Annotated[str | None, BeforeValidator(_absent)]
Language = Annotated[str | None, BeforeValidator(_language)]
Prompt = Annotated[str, StringConstraints(max_length=2000)]


class TranscribeOptions(BaseModel):
    """Options of POST /transcribe/, the same for every file of a batch."""

    model_config = ConfigDict(extra="forbid")

    model_size: OptionalText = Field(
        None, description=f"Whisper model: {', '.join(MODEL_SIZES)}. Default: the operator's.", examples=["small"]
    )
    language: Language = Field(
        None,
        description="Code or English name; `multi`: detected for each part; left out: detected once.",
        examples=["en"],
    )
    languages: Annotated[list[str], BeforeValidator(_languages)] = Field(
        default_factory=list,
        description="The only ones that may be detected, such as `en,de`.",
        examples=[["en", "de"]],
    )
    task: Literal["transcribe", "translate"] = Field("transcribe", description="`translate` writes English.")
    priority: PriorityName = Field("normal", description="`high` starts before every `normal`.")
    word_timestamps: bool = Field(False, description="Times and probability of each word.")
    initial_prompt: Annotated[Prompt | None, BeforeValidator(_absent)] = Field(
        None, description="Text that shows names and style to the model."
    )
    hotwords: Annotated[Prompt | None, BeforeValidator(_absent)] = Field(
        None, description="Words to expect, separated by spaces."
    )
    vad_filter: bool = Field(True, description="Skip what is not speech.")
    vad_threshold: Annotated[float | None, BeforeValidator(_absent)] = Field(
        None, gt=0, lt=1, description="Probability from which sound counts as speech. Default: 0.5."
    )
    audio_track: OptionalText = Field(
        None, max_length=40, description="Sound track: its number, from 0, or its language.", examples=["1"]
    )
    channels: Literal["mix", "separate"] = Field("mix", description="`separate` transcribes each channel by itself.")
    condition_on_previous_text: bool = Field(
        False, description="Show each part the text before it: one style throughout, but errors may spread."
    )
    temperature: Annotated[float | None, BeforeValidator(_absent)] = Field(
        None, ge=0, le=1, description="Sampling temperature. Default: 0, with Whisper's fallback steps."
    )
    beam_size: int = Field(5, ge=1, le=10, description="1 is fastest.")
    metadata: Annotated[dict[str, Any], BeforeValidator(_metadata)] = Field(
        default_factory=dict, description="A JSON object of at most 16 KiB that comes back with the job."
    )
    delete_after_seconds: Annotated[int | None, BeforeValidator(_absent)] = Field(
        None, ge=1, le=MAX_DELETE_AFTER_S, description="Delete audio, text and job so long after it is final."
    )

    run_at: Annotated[RunAt | None, BeforeValidator(_absent)] = Field(
        None, description="Not before this moment (RFC 3339), at most 30 days ahead.", examples=[MOMENT]
    )
    webhook_url: OptionalText = Field(
        None, description="Called when the job is final (Standard Webhooks).", examples=["https://example.com/hook"]
    )

    def to_request(self, default_model: str, kept_s: int | None = None) -> JobRequest:
        """`kept_s`: the caller's jobs are deleted that long after they are final, if not sooner."""
        fields = self.model_dump(include=_DECODE_FIELDS)
        decode = DecodeOptions(**fields, languages=tuple(self.languages))
        model = self.model_size or default_model
        delete_after_s = min(filter(None, (self.delete_after_seconds, kept_s)), default=None)
        return JobRequest(model, self.priority, decode, self.metadata, delete_after_s, self.webhook_url, self.run_at)


_DECODE_FIELDS = {
    "language", "task", "word_timestamps", "initial_prompt", "hotwords", "vad_filter", "vad_threshold", "audio_track",
    "channels", "condition_on_previous_text", "temperature", "beam_size",
}  # fmt: skip


class Accepted(BaseModel):
    job_id: UUID = Field(examples=[JOB_ID])
    status: StatusName = Field(examples=["pending"])
    status_url: str = Field(examples=[f"/transcribe/{JOB_ID}"])
    created_at: datetime = Field(examples=[MOMENT])


class BatchItem(BaseModel):
    job_id: UUID = Field(examples=[JOB_ID])
    filename: str = Field(examples=["meeting.mp3"])


class RefusedFile(BaseModel):
    filename: str = Field(examples=["notes.docx"])
    code: str = Field(examples=["unsupported_media"])
    detail: str = Field(examples=["notes.docx: neither the file name nor the content is audio or video."])


class BatchAccepted(BaseModel):
    batch_id: UUID = Field(examples=[BATCH_ID])
    status_url: str = Field(examples=[f"/batches/{BATCH_ID}"])
    jobs: list[BatchItem]
    errors: list[RefusedFile]


class ErrorInfo(BaseModel):
    code: str = Field(examples=["undecodable_audio"])
    message: str = Field(examples=["The file is not audio or video that can be decoded."])


class WordOut(BaseModel):
    word: str = Field(examples=[" one"])
    start: float = Field(examples=[0.32])
    end: float = Field(examples=[0.61])
    probability: float = Field(examples=[0.98])


class SegmentOut(BaseModel):
    id: int = Field(examples=[0])
    start: float = Field(description="Seconds from the start of the recording.", examples=[0.32])
    end: float = Field(examples=[2.84])
    text: str = Field(examples=["one two three four five six seven"])
    corrected_text: str | None = Field(
        None, description="What a person made of `text`; null where nobody did.", examples=[None]
    )
    avg_logprob: float = Field(examples=[-0.11])
    no_speech_prob: float = Field(examples=[0.01])
    compression_ratio: float = Field(examples=[0.92])
    words: list[WordOut] | None = Field(None, description="Only where word_timestamps was asked for.")
    language: str | None = Field(None, description="Of this segment.", examples=["en"])
    channel: int | None = Field(None, description="From 0; null where channels are mixed.", examples=[None])


class WarningOut(BaseModel):
    """Something that the reader of the text should know; each code may have fields of its own."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(examples=["no_speech_in"])
    message: str = Field(examples=["No speech was found in loud parts of the recording."])


class ResultOut(BaseModel):
    text: str = Field(examples=["one two three four five six seven"])
    language: str | None = Field(description="Null where there was no speech.", examples=["en"])
    language_probability: float | None = Field(examples=[0.99])
    duration: float = Field(description="Seconds of audio.", examples=[3.1])
    word_count: int = Field(examples=[7])
    confidence: float | None = Field(description="Mean token probability; null where there was no speech.")
    model_used: str | None = Field(description="Smaller than asked for where memory ran out.", examples=["small"])
    model_revision: str | None = Field(
        None,
        description="The model hub's commit of its weights; null for `demo` and for a folder of the operator's own.",
        examples=["ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"],
    )
    warnings: list[WarningOut] = Field(default_factory=list, description="What the text may lack.")
    segments: list[SegmentOut]


class WaitingFor(BaseModel):
    code: Literal["queued", "scheduled", "retry", "worker_trouble", "paused", "no_worker"] = Field(examples=["queued"])
    detail: str = Field(examples=["Jobs that are taken before it: 3."])


class JobSummary(BaseModel):
    job_id: UUID = Field(examples=[JOB_ID])
    batch_id: UUID | None = Field(examples=[None])
    filename: str = Field(examples=["meeting.mp3"])
    status: StatusName = Field(examples=["processing"])
    progress: float = Field(description="Percent.", ge=0, le=100, examples=[42.5])
    priority: PriorityName = Field(examples=["normal"])
    model_size: str = Field(examples=["small"])
    model_used: str | None = Field(examples=["small"])
    language: str | None = Field(description="As asked for, or as detected.", examples=["en"])
    task: str = Field(examples=["transcribe"])
    attempt: int = Field(description="Attempts begun so far.", examples=[1])
    max_attempts: int = Field(description="Failures after which the job is a dead letter.", examples=[5])
    next_attempt_at: datetime | None = Field(description="Of a job that is not due yet.", examples=[None])
    error: ErrorInfo | None = Field(description="Why the last attempt failed.", examples=[None])
    source_url: str | None = Field(description="Where the recording is fetched from.", examples=[None])
    download: dict[str, Any] | None = Field(examples=[{"received_bytes": 1048576, "total_bytes": 8388608}])
    audio: dict[str, Any] | None = Field(examples=[{"duration": 183.4, "codec": "mp3", "container": "mp3"}])
    metadata: dict[str, Any] = Field(examples=[{"customer": 7}])
    created_at: datetime = Field(examples=[MOMENT])
    started_at: datetime | None = Field(examples=[MOMENT])
    completed_at: datetime | None = Field(examples=[None])
    delete_at: datetime | None = Field(description="When it will be deleted, as the caller asked.", examples=[None])
    waiting_for: WaitingFor | None = Field(description="Why it waits; null unless pending.", examples=[None])


class JobOut(JobSummary):
    queue_position: int | None = Field(description="1 is next; null unless it waits and is due.", examples=[None])
    eta_seconds: float | None = Field(description="Estimate; null where there is nothing to go by.", examples=[12.5])
    result: ResultOut | None = Field(description="Present when completed.", examples=[None])


class Cancelled(BaseModel):
    job_id: UUID = Field(examples=[JOB_ID])
    status: StatusName = Field(examples=["cancelled"])


class RequestCounts(BaseModel):
    total: int = Field(examples=[2])
    completed: int = Field(examples=[1])
    failed: int = Field(examples=[0])
    cancelled: int = Field(examples=[0])


class BatchOut(BaseModel):
    batch_id: UUID = Field(examples=[BATCH_ID])
    status: Literal["processing", "completed"] = Field(description="`completed` when every job is final.")
    created_at: datetime = Field(examples=[MOMENT])
    request_counts: RequestCounts
    jobs: list[JobSummary]
    errors: list[RefusedFile]


class BatchCancelled(BaseModel):
    batch_id: UUID = Field(examples=[BATCH_ID])
    cancelled: list[UUID] = Field(description="Jobs that were not final.", examples=[[JOB_ID]])


class SegmentsOut(BaseModel):
    job_id: UUID = Field(examples=[JOB_ID])
    status: StatusName = Field(examples=["processing"])
    segments: list[SegmentOut]


class ErrorOut(BaseModel):
    id: UUID = Field(examples=[ERROR_ID])
    job_id: UUID = Field(examples=[JOB_ID])
    error_type: str = Field(examples=["undecodable_audio"])
    message: str = Field(examples=["The file is not audio or video that can be decoded."])
    attempt: int = Field(examples=[1])
    retry_count: int = Field(description="Failures, losses and lost workers before this.", examples=[0])
    worker: str | None = Field(examples=["host:4711:4712"])
    created_at: datetime = Field(examples=[MOMENT])
    resolved_at: datetime | None = Field(examples=[None])
    resolution: Literal["replayed", "dismissed"] | None = Field(examples=[None])


class ErrorDetail(ErrorOut):
    stack_trace: str | None = Field(description="For operators; never shown elsewhere.")
    job: JobSummary


class ListOut(BaseModel, Generic[Row]):
    object: Literal["list"] = "list"
    data: list[Row]
    first_id: UUID | None = Field(examples=[JOB_ID])
    last_id: UUID | None = Field(description="Give it as `after` for the next page.", examples=[JOB_ID])
    has_more: bool = Field(examples=[False])


class JobQuery(BaseModel):
    """Filters of GET /jobs/; each narrows."""

    model_config = ConfigDict(extra="forbid")

    status: StatusName | None = None
    priority: PriorityName | None = None
    language: Language = Field(None, description="As asked for, or as detected.", examples=["en"])
    q: str | None = Field(None, max_length=200, description="Part of the file name.")
    batch_id: UUID | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    limit: int = Field(20, ge=1, le=100)
    after: UUID | None = Field(None, description="`last_id` of the page before.")


class Replayed(BaseModel):
    job_ids: list[UUID] = Field(examples=[[JOB_ID]])


class Health(BaseModel):
    status: Literal["ok", "degraded"] = Field(examples=["ok"])
    version: str = Field(examples=["0.2.0"])


class Ready(BaseModel):
    status: Literal["ready", "not ready"] = Field(examples=["ready"])
    database: bool = Field(examples=[True])
    redis: bool = Field(examples=[True])
    migrations: bool = Field(description="Whether the schema is the one this version needs.")


class Component(BaseModel):
    """Whether a part answers, with what else is known of it."""

    model_config = ConfigDict(extra="allow")

    ok: bool = Field(examples=[True])


class AdminHealth(BaseModel):
    status: Literal["ok", "degraded"] = Field(examples=["ok"])
    version: str = Field(examples=["0.2.0"])
    problems: list[str] = Field(description="What is not well, in words.", examples=[[]])
    database: Component
    redis: Component
    queues: dict[str, Any] = Field(examples=[{"transcription.high": 0, "transcription.normal": 3}])
    jobs: dict[str, Any] = Field(examples=[{"pending": 3, "processing": 2, "dead_letters": 0}])
    workers: dict[str, Any] = Field(examples=[{"alive": 1, "busy": 2, "concurrency": 2}])
    relay: Component
    model_pool: dict[str, Any] = Field(examples=[{"hits": 38, "misses": 2, "hit_rate": 0.95, "loaded": []}])
    devices: list[dict[str, Any]] = Field(description="Each engine server, or worker child with its own engine.")
    storage: Component
    housekeeping: dict[str, Any] = Field(examples=[{"last_run": MOMENT, "deleted_jobs": 7, "deleted_files": 0}])
    backlog: dict[str, Any] = Field(examples=[{"jobs": 3, "audio_seconds": 512.0, "accepting": True}])
    paused: list[dict[str, Any]] = Field(description="Queues and callers.", examples=[[]])
    flower_url: str | None = Field(None, examples=["http://127.0.0.1:8001"])
