"""Every table, with its CHECK constraints. Rows hold state; how a state may change is the business of `jobs/`."""

import uuid
from datetime import UTC, datetime, timedelta
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
    literal_column,
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
WAITING = ("retrying", "priority", "owner", "run_at", "created_at")
RUNG = "status = 'pending' AND published_at IS NOT NULL"
NOW = func.statement_timestamp()  # one moment for all that a statement writes
# UUIDv7 (RFC 9562, 5.7): milliseconds, the version, the microseconds within, 62 bits by chance. So the place of a row
# in a list, which goes by created_at and id, outlives the row: who has its id can go on from there.
NEW_ID: Any = literal_column("""encode((
    SELECT int8send(us / 1000 * 65536 + 7 * 4096 + us % 1000) || substring(uuid_send(gen_random_uuid()) FROM 9)
    FROM (SELECT CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint) AS us) AS now
), 'hex')::uuid""")


def made_at(row_id: uuid.UUID) -> datetime | None:
    """The created_at of a row with such an id; None for one that is not of ours, or of before version 0.2."""
    ms, us = row_id.int >> 80, row_id.int >> 64 & 0xFFF
    if row_id.version != 7 or us > 999:
        return None
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms, microseconds=us)
    except OverflowError:
        return None


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar = {datetime: DateTime(timezone=True), str: Text(), Json: JSONB(), float: Double()}


class Batch(Base):
    __tablename__ = "batches"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    owner: Mapped[str] = mapped_column(server_default="")  # as Job.owner
    refused: Mapped[list[Json]] = mapped_column(JSONB(), server_default=text("'[]'"))  # files that made no job
    webhook_url: Mapped[str | None]  # told when every job is final
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_batches_owner_newest", "owner", "created_at", "id"),)


class Job(Base):
    __tablename__ = "transcription_jobs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=NEW_ID)
    owner: Mapped[str] = mapped_column(server_default="")  # access.Caller.owner; empty: whoever needs no key
    batch_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("batches.id"))
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]  # W3C Trace Context of the request, where traces are on
    created_at: Mapped[datetime] = mapped_column(default=NOW, server_default=func.clock_timestamp())

    # What was asked; never changed after the insert, so that a replay asks the same
    filename: Mapped[str]
    storage_key: Mapped[str]
    source_url: Mapped[str | None]  # a worker fetches it, and gives storage_key anew, before it decodes
    size_bytes: Mapped[int] = mapped_column(BigInteger())  # 0 until it is fetched
    sha256: Mapped[str]
    model_size: Mapped[str]
    language: Mapped[str | None]
    task: Mapped[str] = mapped_column(server_default="transcribe")
    priority: Mapped[str] = mapped_column(server_default="normal")
    options: Mapped[Json] = mapped_column(server_default=text("'{}'"))  # the rest of transcript.DecodeOptions
    meta: Mapped[Json] = mapped_column("metadata", server_default=text("'{}'"))
    delete_after_s: Mapped[int | None]  # counted from the moment it is final
    webhook_url: Mapped[str | None]
    attach_key: Mapped[str | None]  # equal for equal requests of one caller to /v1, which wait for one job together
    answered_at: Mapped[datetime | None]  # such a request had its answer: the next one is a job of its own

    # Where it stands; written by jobs/states.py alone
    status: Mapped[str] = mapped_column(server_default="pending")
    attempt: Mapped[int] = mapped_column(server_default="0")  # claims so far; only grows; the fence
    failures: Mapped[int] = mapped_column(server_default="0")  # exceptions
    losses: Mapped[int] = mapped_column(server_default="0")  # its child crashed, hung or ran out of memory
    infra_losses: Mapped[int] = mapped_column(server_default="0")  # the whole worker died
    retrying: Mapped[bool] = mapped_column(server_default=text("false"))  # goes by the retry queue, alone in its worker
    stalled_at: Mapped[datetime | None]  # since when workers could not do it, for reasons of their own
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
    download: Mapped[Json | None]  # of source_url: {received_bytes, total_bytes}
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
        CheckConstraint("size_bytes > 0 OR (size_bytes = 0 AND source_url IS NOT NULL)", name="size"),
        CheckConstraint("(status = 'processing') = (num_nulls(lease_until,deadline_at,claimed_by) = 0)", name="lease"),
        CheckConstraint("(status IN ('completed','failed','cancelled')) = (completed_at IS NOT NULL)", name="final"),
        CheckConstraint("status <> 'processing' OR attempt > 0", name="attempt"),
        CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="failed_says_why"),
        # The relay's reads, each a short range however large the table is
        Index("ix_jobs_waiting_by_owner", *WAITING, postgresql_where=text("status = 'pending'")),
        Index("ix_jobs_rung", "queue", "published_at", postgresql_where=text(RUNG)),
        Index("ix_jobs_leases", "lease_until", postgresql_where=text("status = 'processing'")),
        # Housekeeping
        Index("ix_jobs_delete_at", "delete_at", postgresql_where=text("delete_at IS NOT NULL")),
        Index("ix_jobs_completed_at", "completed_at", postgresql_where=text("completed_at IS NOT NULL")),
        Index("ix_jobs_storage_key", "storage_key"),
        # Keyset pages: newest first, alone and by each filter
        Index("ix_jobs_newest", "created_at", "id"),
        Index("ix_jobs_status_newest", "status", "created_at", "id"),
        Index("ix_jobs_owner_newest", "owner", "created_at", "id", postgresql_where=text("owner <> ''")),
        Index("ix_jobs_attach", "attach_key", postgresql_where=text("attach_key IS NOT NULL")),
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
    warnings: Mapped[list[Json]] = mapped_column(JSONB(), server_default="[]")  # what could not be done
    model_revision: Mapped[str | None]  # of the weights of Job.model_used
    processing_s: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_transcription_results_newest", "created_at"),)


class SegmentRow(Base):
    """Checkpoints, partial results and the text of the result: one row a segment, numbered from 0 in time order."""

    __tablename__ = "transcript_segments"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("transcription_jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[float]
    end: Mapped[float]
    text: Mapped[str]
    corrected_text: Mapped[str | None]  # what a person made of it
    avg_logprob: Mapped[float]
    no_speech_prob: Mapped[float]
    compression_ratio: Mapped[float]
    temperature: Mapped[float]
    tokens: Mapped[list[int]] = mapped_column(JSONB())
    words: Mapped[list[Json] | None] = mapped_column(JSONB(none_as_null=True))
    language: Mapped[str | None]
    channel: Mapped[int | None]

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

    __table_args__ = (Index("ix_job_events_job", "job_id", "id"), Index("ix_job_events_at", "at"))


class ErrorLog(Base):
    """The dead letters. A failed job has exactly one that is not resolved."""

    __tablename__ = "error_logs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=NEW_ID)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("transcription_jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    error_type: Mapped[str]  # a code of errors.py, or lost, hung
    message: Mapped[str]
    stack_trace: Mapped[str | None]
    failures: Mapped[int]
    losses: Mapped[int]
    infra_losses: Mapped[int]
    worker: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=NOW, server_default=func.now())
    notified_at: Mapped[datetime | None]  # the follow-up on transcription.dlq is done
    resolved_at: Mapped[datetime | None]
    resolution: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("(resolved_at IS NULL) = (resolution IS NULL)", name="resolution"),
        CheckConstraint("resolution IN ('replayed','dismissed')", name="resolution_kind"),
        Index("uq_error_logs_open_job", "job_id", unique=True, postgresql_where=text("resolved_at IS NULL")),
        Index("ix_error_logs_job", "job_id"),
        Index("ix_error_logs_newest", "created_at", "id"),
        Index("ix_error_logs_untold", "created_at", postgresql_where=text("notified_at IS NULL")),
    )


class Process(Base):
    """One row a relay or worker child, refreshed every few seconds: who is alive, and what it counts."""

    __tablename__ = "processes"
    id: Mapped[str] = mapped_column(primary_key=True)  # host:main pid:child pid
    kind: Mapped[str]
    worker: Mapped[str]  # host:main pid; the children of one worker share it
    queues: Mapped[list[str]] = mapped_column(JSONB())
    # A child's model pool, a relay's housekeeping
    stats: Mapped[Json] = mapped_column("pool", server_default=text("'{}'"))
    illness: Mapped[Json | None] = mapped_column(JSONB(none_as_null=True))  # {code, message, since}: it claims no job
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("kind IN ('worker','relay')", name="kind"),
        Index("ix_processes_worker", "worker", "seen_at"),
    )


class Pause(Base):
    """A queue, or a caller, whose waiting jobs are not begun. What runs goes on."""

    __tablename__ = "pauses"
    kind: Mapped[str] = mapped_column(primary_key=True)  # queue, caller
    name: Mapped[str] = mapped_column(primary_key=True)  # of the queue; the caller's `owner`
    paused_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    paused_by: Mapped[str]
    reason: Mapped[str | None]

    __table_args__ = (CheckConstraint("kind IN ('queue','caller')", name="kind"),)


class Cordon(Base):
    """A worker that begins no job; its children see it with their next sign of life."""

    __tablename__ = "cordons"
    worker: Mapped[str] = mapped_column(primary_key=True)  # as in processes
    drains: Mapped[bool]  # gives back what it runs, too
    since: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ordered_by: Mapped[str]


class AuditEntry(Base):
    """What an operator changed; written with the change itself."""

    __tablename__ = "audit_log"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=NEW_ID)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]  # a caller's name, or who ran `python -m admin`
    action: Mapped[str]  # noun.verb
    target: Mapped[str]
    detail: Mapped[Json] = mapped_column(server_default=text("'{}'"))


class ModelOrder(Base):
    """The last order about a model; workers that live see it with their next sign of life."""

    __tablename__ = "model_orders"
    size: Mapped[str] = mapped_column(primary_key=True)
    wanted: Mapped[str]
    ordered_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (CheckConstraint("wanted IN ('loaded','unloaded')", name="wanted"),)


class ApiKey(Base):
    """Who may call. The key itself is nowhere: only an HMAC of it."""

    __tablename__ = "api_keys"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str]
    role: Mapped[str]
    hint: Mapped[str]  # its first characters, for people to tell keys apart
    hmac: Mapped[str] = mapped_column(unique=True)
    rate_limit_per_minute: Mapped[int | None]  # None: the setting's, as the next two
    quota_waiting_jobs: Mapped[int | None]
    quota_audio_hours_per_day: Mapped[float | None]
    delete_after_s: Mapped[int | None]  # jobs of this key are kept no longer after they are final
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("role IN ('user','admin')", name="role"),)


class IdempotencyKey(Base):
    """What a caller's key has made; written with it, in one transaction."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]  # SHA-256 of the request
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("transcription_jobs.id", ondelete="CASCADE"))
    batch_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_idempotency_keys_created_at", "created_at"),
        Index("ix_idempotency_keys_job_id", "job_id", postgresql_where=text("job_id IS NOT NULL")),
        Index("ix_idempotency_keys_batch_id", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
    )


class WebhookDelivery(Base):
    """One message to one receiver, from the moment its job is final until it is delivered or given up."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=NEW_ID)
    owner: Mapped[str]
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("transcription_jobs.id", ondelete="CASCADE"))
    batch_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    url: Mapped[str]
    type: Mapped[str]
    payload: Mapped[Json]
    state: Mapped[str] = mapped_column(server_default="pending")
    tries: Mapped[int] = mapped_column(server_default="0")
    next_try_at: Mapped[datetime | None] = mapped_column(server_default=func.now())  # None once it is not pending
    published_at: Mapped[datetime | None]  # when its doorbell was last rung
    response_status: Mapped[int | None]  # of the last try
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=NOW, server_default=func.clock_timestamp())
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('pending','delivered','failed','disabled')", name="state"),
        CheckConstraint("(state = 'pending') = (next_try_at IS NOT NULL)", name="next_try"),
        CheckConstraint("(state = 'pending') = (finished_at IS NULL)", name="finished"),
        CheckConstraint("num_nonnulls(job_id, batch_id) = 1", name="subject"),
        Index("ix_webhook_deliveries_due", "next_try_at", postgresql_where=text("state = 'pending'")),
        Index("ix_webhook_deliveries_job", "job_id"),
        Index("uq_webhook_deliveries_batch", "batch_id", unique=True, postgresql_where=text("batch_id IS NOT NULL")),
        Index("ix_webhook_deliveries_newest", "created_at", "id"),
        Index("ix_webhook_deliveries_owner_newest", "owner", "created_at", "id"),
    )


class WebhookSecret(Base):
    """Which secret signs an owner's webhooks: it is derived from SECRET_KEY, the owner and this number."""

    __tablename__ = "webhook_secrets"

    owner: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(server_default="1")
    rotated_at: Mapped[datetime | None]  # the one before signs too, for a while


class DisabledReceiver(Base):
    """A receiver that answered 410 Gone: nothing more is sent there, unless a replay succeeds."""

    __tablename__ = "disabled_receivers"

    owner: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(primary_key=True)
    disabled_at: Mapped[datetime] = mapped_column(server_default=func.now())
