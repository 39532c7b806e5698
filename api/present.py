"""Rows as callers see them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from api.schemas import (
    ErrorDetail,
    ErrorInfo,
    ErrorOut,
    JobOut,
    JobSummary,
    ListOut,
    ResultOut,
    SegmentOut,
    WaitingFor,
    WarningOut,
    WordOut,
)
from config import Settings
from jobs import read
from jobs.read import Page
from jobs.states import Status
from jobs.waiting import QUEUED, Facts, Reason, facts, reason_for
from models import ErrorLog, Job, Result, SegmentRow


def job_summary(session: Session, job: Job, settings: Settings) -> JobSummary:
    return JobSummary(
        job_id=job.id,
        batch_id=job.batch_id,
        filename=job.filename,
        status=job.status,
        progress=round(job.progress, 1),
        priority=job.priority,
        model_size=job.model_size,
        model_used=job.model_used,
        language=read.language_of(job),
        task=job.task,
        attempt=job.attempt,
        max_attempts=settings.max_failures,
        next_attempt_at=job.run_at if job.status == Status.PENDING and _is_later(job) else None,
        error=None if job.error_code is None else ErrorInfo(code=job.error_code, message=job.error_message or ""),
        source_url=job.source_url,
        download=job.download,
        audio=job.audio,
        metadata=job.meta,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        delete_at=job.delete_at,
        waiting_for=_why_it_waits(session, job),
    )


def _why_it_waits(session: Session, job: Job) -> WaitingFor | None:
    """Without its place in line, which takes a question for each job."""
    if job.status != Status.PENDING:
        return None
    known = facts(session)
    return _waiting_for(reason_for(job, known, None, known.now()))


def job_out(
    session: Session, job: Job, summary: JobSummary, position: int | None, known: Facts, reason: Reason | None
) -> JobOut:
    """Everything about one job: its place in the queue while it waits, its result once it is completed."""
    counted = position if reason is None or reason.code == QUEUED else None  # of what is held up nobody knows how long
    return JobOut(
        **dict(summary) | {"waiting_for": _waiting_for(reason)},
        queue_position=position,
        eta_seconds=read.eta_seconds(session, job, counted, known.now(), mean_s=known.mean_s, at_once=known.at_once),
        result=result_out(session, job),
    )


def _waiting_for(reason: Reason | None) -> WaitingFor | None:
    return None if reason is None else WaitingFor(code=reason.code, detail=reason.detail)


def _is_later(job: Job) -> bool:
    return bool(job.attempt) or job.run_at > datetime.now(UTC)


def result_out(session: Session, job: Job) -> ResultOut | None:
    if job.status != Status.COMPLETED:
        return None
    result = read.get_result(session, job.id)
    return None if result is None else _result(job, result, read.segments(session, job.id))


def _result(job: Job, result: Result, rows: Sequence[SegmentRow]) -> ResultOut:
    return ResultOut(
        text=result.text,
        language=result.language,
        language_probability=result.language_probability,
        duration=result.duration,
        word_count=result.word_count,
        confidence=result.confidence,
        model_used=job.model_used,
        model_revision=result.model_revision,
        warnings=[WarningOut(**warning) for warning in result.warnings],
        segments=[segment_out(row) for row in rows],
    )


def segment_out(row: SegmentRow) -> SegmentOut:
    return SegmentOut(
        id=row.number,
        start=row.start,
        end=row.end,
        text=row.text.strip(),
        corrected_text=row.corrected_text,
        avg_logprob=row.avg_logprob,
        no_speech_prob=row.no_speech_prob,
        compression_ratio=row.compression_ratio,
        words=None if row.words is None else [WordOut(**word) for word in row.words],
        language=row.language,
        channel=row.channel,
    )


def corrected(result: ResultOut) -> ResultOut:
    """With the words of people in place of the machine's, which have no times of their own."""
    segments = [_corrected(segment) for segment in result.segments]
    if segments == result.segments:
        return result
    text = " ".join(segment.text for segment in segments if segment.text)
    return result.model_copy(update={"text": text, "word_count": len(text.split()), "segments": segments})


def _corrected(segment: SegmentOut) -> SegmentOut:
    if segment.corrected_text is None:
        return segment
    return segment.model_copy(update={"text": segment.corrected_text, "words": None})


def error_out(error: ErrorLog) -> ErrorOut:
    return ErrorOut(**_error(error))


def error_detail(session: Session, error: ErrorLog, settings: Settings) -> ErrorDetail:
    job = job_summary(session, read.get_job(session, error.job_id), settings)
    return ErrorDetail(**_error(error), stack_trace=error.stack_trace, job=job)


def _error(error: ErrorLog) -> dict[str, Any]:
    return {
        "id": error.id,
        "job_id": error.job_id,
        "error_type": error.error_type,
        "message": error.message,
        "attempt": error.attempt,
        "retry_count": max(0, error.failures + error.losses + error.infra_losses - 1),
        "worker": error.worker,
        "created_at": error.created_at,
        "resolved_at": error.resolved_at,
        "resolution": error.resolution,
    }


def job_list(session: Session, page: Page[Job], settings: Settings) -> ListOut[JobSummary]:
    return ListOut[JobSummary](data=[job_summary(session, job, settings) for job in page.rows], **edges(page))


def error_list(page: Page[ErrorLog]) -> ListOut[ErrorOut]:
    return ListOut[ErrorOut](data=[error_out(error) for error in page.rows], **edges(page))


def edges(page: Page[Any]) -> dict[str, Any]:
    ids = [row.id for row in page.rows]
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None, "has_more": page.has_more}
