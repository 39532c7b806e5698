"""Accept a job: check the options against each other, insert the row. The file is already durable in storage."""

import json
import re
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

import errors
from config import MODEL_SIZES, Settings
from jobs.states import Status, count_move, wake_relay
from languages import LANGUAGES, MULTI
from models import Batch, Job, JobEvent
from telemetry import traces
from transcript import DecodeOptions

# Models that were not trained to translate answer in the spoken language; refusing is honest.
_TRACK = re.compile(r"[0-9]{1,3}|[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")  # a number, or a tag as in BCP 47
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # the escape, not a backslash followed by u0000
LATEST_RUN = timedelta(days=30)
_CANNOT_TRANSLATE = ("turbo", "large-v3-turbo")


@dataclass(frozen=True, slots=True)
class Upload:
    filename: str  # as the caller named it; for people, never a path
    storage_key: str
    size_bytes: int  # 0 for a recording that a worker has yet to fetch
    sha256: str
    source_url: str | None = None


@dataclass(frozen=True, slots=True)
class JobRequest:
    model_size: str
    priority: str = "normal"
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    metadata: dict[str, Any] = field(default_factory=dict)
    delete_after_s: int | None = None  # None: kept as long as the operator keeps jobs
    webhook_url: str | None = None
    run_at: datetime | None = None  # not before


def validate(request: JobRequest, settings: Settings) -> None:
    """Raises errors.InvalidOption naming every option that cannot be met."""
    problems = [
        *_model_problems(request.model_size, settings),
        *_language_problems(request),
        *_track_problems(request.decode.audio_track),
        *_text_problems(request),
        *run_at_problems(request.run_at),
    ]
    if problems:
        raise errors.InvalidOption(*problems)


def _model_problems(model_size: str, settings: Settings) -> list[tuple[str, str]]:
    if model_size in MODEL_SIZES or _is_allowed_path(model_size, settings):
        return []
    return [("model_size", f"unknown model; expected one of {', '.join(MODEL_SIZES)}")]


def _is_allowed_path(model_size: str, settings: Settings) -> bool:
    if "/" not in model_size or "\0" in model_size:
        return False
    allowed = [Path(folder).resolve() for folder in settings.model_allowed_paths.split(":") if folder]
    return any(Path(model_size).resolve().is_relative_to(folder) for folder in allowed)


def _language_problems(request: JobRequest) -> list[tuple[str, str]]:
    problems = []
    language, model = request.decode.language, request.model_size
    if language not in (None, MULTI, *LANGUAGES):
        problems.append(("language", "unknown language; expected a code such as en, de, fr, or leave it out to detect"))
    elif request.decode.languages and language not in (None, MULTI):
        problems.append(("languages", "goes with language=multi or without a language; leave one of them out"))
    elif model.endswith(".en") and language not in (None, "en"):
        problems.append(("language", f"{model} understands only English; choose a model without .en"))
    if request.decode.task == "translate" and _is_unable_to_translate(model):
        problems.append(("task", f"{model} cannot translate; choose a multilingual model that is not turbo or distil"))
    return problems


def _track_problems(wanted: str | None) -> list[tuple[str, str]]:
    """Whether the recording has it, the decoder knows."""
    if wanted is None or _TRACK.fullmatch(wanted) or wanted.lower() in LANGUAGES.values():
        return []
    return [("audio_track", "expected the number of a sound track, from 0, or its language, such as 1 or en")]


def run_at_problems(run_at: datetime | None) -> list[tuple[str, str]]:
    """A moment that has passed means now."""
    if run_at is None or run_at <= datetime.now(UTC) + LATEST_RUN:
        return []
    return [("run_at", f"may lie at most {LATEST_RUN.days} days ahead")]


def _is_unable_to_translate(model: str) -> bool:
    return model.endswith(".en") or model.startswith("distil-") or model in _CANNOT_TRANSLATE


def _text_problems(request: JobRequest) -> list[tuple[str, str]]:
    texts = {
        "metadata": request.metadata,
        "initial_prompt": request.decode.initial_prompt,
        "hotwords": request.decode.hotwords,
    }
    complaint = "holds a NUL, half a surrogate pair or a number that is none; send plain text and JSON"
    return [(name, complaint) for name, value in texts.items() if not is_storable(value)]


def is_storable(value: Any) -> bool:
    """Whether PostgreSQL can hold it as JSON: no NUL, no half surrogates, no NaN."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except ValueError:
        return False
    return _NUL.search(text) is None


def submit(
    session: Session,
    upload: Upload,
    request: JobRequest,
    *,
    owner: str = "",
    request_id: str | None = None,
    batch_id: uuid.UUID | None = None,
    attach_key: str | None = None,
) -> Job:
    """Insert a pending job and wake the relay, both with the caller's commit."""
    options = asdict(request.decode)
    job = Job(
        **asdict(upload),
        owner=owner,
        batch_id=batch_id,
        request_id=request_id,
        attach_key=attach_key,
        traceparent=traces.traceparent(),
        model_size=request.model_size,
        language=options.pop("language"),
        task=options.pop("task"),
        priority=request.priority,
        options=options,
        meta=request.metadata,
        delete_after_s=request.delete_after_s,
        webhook_url=request.webhook_url,
        **({} if request.run_at is None else {"run_at": func.greatest(request.run_at, func.clock_timestamp())}),
    )
    session.add(job)
    session.flush()
    session.add(JobEvent(job_id=job.id, attempt=0, from_status=None, to_status=Status.PENDING))
    wake_relay(session, Status.PENDING.value)
    count_move(session, job, "")
    return job


def open_batch(
    session: Session, *, refused: list[dict[str, Any]], owner: str = "", webhook_url: str | None = None
) -> Batch:
    """`refused`: {filename, code, detail} of each file that makes no job."""
    batch = Batch(refused=refused, owner=owner, webhook_url=webhook_url)
    session.add(batch)
    session.flush()
    return batch


def decode_options(job: Job) -> DecodeOptions:
    """The options a job was submitted with."""
    options = job.options | {"languages": tuple(job.options.get("languages", ()))}
    return DecodeOptions(language=job.language, task=job.task, **options)
