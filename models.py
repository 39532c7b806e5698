"""Every table, with its CHECK constraints. Rows hold state; how a state may change is the business of `jobs/`."""

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
Json = dict[str, Any]


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar = {datetime: DateTime(timezone=True), str: Text(), Json: JSONB(), float: Double()}


class Batch(Base):
    __tablename__ = "batches"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    refused: Mapped[list[Json]] = mapped_column(JSONB(), server_default=text("'[]'"))  # files that made no job
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Job(Base):
    __tablename__ = "transcription_jobs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    batch_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("batches.id"))
    request_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())  # differs within a batch

    # What was asked; never changed after the insert, so that a replay asks the same
    filename: Mapped[str]
    storage_key: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger())
    sha256: Mapped[str]
    model_size: Mapped[str]
    language: Mapped[str | None]
    task: Mapped[str] = mapped_column(server_default="transcribe")
    priority: Mapped[str] = mapped_column(server_default="normal")
    options: Mapped[Json] = mapped_column(server_default=text("'{}'"))  # the rest of transcript.DecodeOptions
    meta: Mapped[Json] = mapped_column("metadata", server_default=text("'{}'"))
    delete_after_s: Mapped[int | None]  # counted from the moment it is final

    # Where it stands; written by jobs/states.py alone
    status: Mapped[str] = mapped_column(server_default="pending")
    attempt: Mapped[int] = mapped_column(server_default="0")  # claims so far; only grows; the fence
    failures: Mapped[int] = mapped_column(server_default="0")  # exceptions
    losses: Mapped[int] = mapped_column(server_default="0")  # its child crashed, hung or ran out of memory
    infra_losses: Mapped[int] = mapped_column(server_default="0")  # the whole worker died
    retrying: Mapped[bool] = mapped_column(server_default=text("false"))  # goes by the retry queue, alone in its worker
    run_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    queue: Mapped[str | None]  # where its doorbell was last rung, and when
    published_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    delete_at: Mapped[datetime | None]  # set when it becomes final
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]

    # The running attempt
    claimed_by: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    progress: Mapped[float] = mapped_column(server_default="0")  # percent

    # What attempts have found out; kept for the next one
    audio: Mapped[Json | None]
    position_s: Mapped[float] = mapped_column(server_default="0")  # everything before is transcribed
    detected_language: Mapped[str | None]
    language_probability: Mapped[float | None]
    model_used: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("status IN ('pending','processing','completed','failed','cancelled')", name="status"),
        CheckConstraint("priority IN ('high','normal')", name="priority"),
        CheckConstraint("task IN ('transcribe','translate')", name="task"),
        CheckConstraint("progress BETWEEN 0 AND 100", name="progress"),
        CheckConstraint("size_bytes > 0", name="size"),
        CheckConstraint(
            "(status = 'processing') = (num_nulls(lease_until, deadline_at, claimed_by) = 0)",
            name="lease",
        ),
        CheckConstraint("(status IN ('completed','failed','cancelled')) = (completed_at IS NOT NULL)", name="final"),
        CheckConstraint("status <> 'processing' OR attempt > 0", name="attempt"),
        CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="failed_says_why"),
        # The relay's reads, each a short range however large the table is
        Index(
            "ix_jobs_waiting",
            "retrying",
            "priority",
            "run_at",
            "created_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("ix_jobs_leases", "lease_until", postgresql_where=text("status = 'processing'")),
        # Housekeeping
        Index("ix_jobs_delete_at", "delete_at", postgresql_where=text("delete_at IS NOT NULL")),
        Index("ix_jobs_completed_at", "completed_at", postgresql_where=text("completed_at IS NOT NULL")),
        Index("ix_jobs_storage_key", "storage_key"),
        # Keyset pages: newest first, alone and by each filter
        Index("ix_jobs_newest", "created_at", "id"),
        Index("ix_jobs_status_newest", "status", "created_at", "id"),
        Index("ix_jobs_batch", "batch_id", "created_at", "id", postgresql_where=text("batch_id IS NOT NULL")),
    )


class Result(Base):
    __tablename__ = "transcription_results"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("transcription_jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int]
    text: Mapped[str]
    language: Mapped[str | None]  # null where there was no speech
    language_probability: Mapped[float | None]
    duration: Mapped[float]
    word_count: Mapped[int]
    confidence: Mapped[float | None]  # mean token probability, weighted by duration; null without speech
    processing_s: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SegmentRow(Base):
    """Checkpoints, partial results and the text of the result: one row a segment, numbered from 0 in time order."""

    __tablename__ = "transcript_segments"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("transcription_jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[float]
    end: Mapped[float]
    text: Mapped[str]
    avg_logprob: Mapped[float]
    no_speech_prob: Mapped[float]
    compression_ratio: Mapped[float]
    temperature: Mapped[float]
    tokens: Mapped[list[int]] = mapped_column(JSONB())
    words: Mapped[list[Json] | None] = mapped_column(JSONB(none_as_null=True))

    __table_args__ = (CheckConstraint('"end" >= start', name="times"),)


class JobEvent(Base):
    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("transcription_jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    from_status: Mapped[str | None]
    to_status: Mapped[str]
    detail: Mapped[Json] = mapped_column(server_default=text("'{}'"))
    at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_job_events_job", "job_id", "id"),)


class ErrorLog(Base):
    """The dead letters. A failed job has exactly one that is not resolved."""

    __tablename__ = "error_logs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("transcription_jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    error_type: Mapped[str]  # a code of errors.py, or lost, hung
    message: Mapped[str]
    stack_trace: Mapped[str | None]
    failures: Mapped[int]
    losses: Mapped[int]
    infra_losses: Mapped[int]
    worker: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    notified_at: Mapped[datetime | None]  # the follow-up on transcription.dlq is done
    resolved_at: Mapped[datetime | None]
    resolution: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("(resolved_at IS NULL) = (resolution IS NULL)", name="resolution"),
        CheckConstraint("resolution IN ('replayed','dismissed')", name="resolution_kind"),
        Index("uq_error_logs_open_job", "job_id", unique=True, postgresql_where=text("resolved_at IS NULL")),
        Index("ix_error_logs_newest", "created_at", "id"),
    )


class Process(Base):
    """One row a relay or worker child, refreshed every few seconds: who is alive, and what it counts."""

    __tablename__ = "processes"

    id: Mapped[str] = mapped_column(primary_key=True)  # host:main pid:child pid
    kind: Mapped[str]
    worker: Mapped[str]  # host:main pid; the children of one worker share it
    queues: Mapped[list[str]] = mapped_column(JSONB())
    stats: Mapped[Json] = mapped_column(
        "pool", server_default=text("'{}'")
    )  # a child's model pool, a relay's housekeeping
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("kind IN ('worker','relay')", name="kind"),
        Index("ix_processes_worker", "worker", "seen_at"),
    )
