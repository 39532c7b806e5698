"""What is told: a delivery is recorded in the transaction that makes its job or batch final. Sends nothing."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models import Batch, DisabledReceiver, Job, WebhookDelivery

FINAL = ("completed", "failed", "cancelled")  # as jobs.states has it, which stands above this room


def announce(session: Session, job: Job) -> None:
    """Record what there is to tell about a job that has just become final, in the transaction that made it so."""
    if job.webhook_url is not None and job.completed_at is not None:
        message = _message(f"transcription.{job.status}", job.completed_at, _about(job))
        _record(session, message, owner=job.owner, url=job.webhook_url, job_id=job.id)
    if job.batch_id is not None:
        announce_batch(session, job.batch_id)


def announce_batch(session: Session, batch_id: UUID) -> None:
    """Tell of a batch once all of its jobs are final; only the first time. Jobs are locked before their batch, always.

    Of two jobs that finish together the second waits for the lock, and counts what the first has committed.
    """
    told = select(Batch).where(Batch.id == batch_id, Batch.webhook_url.is_not(None))
    batch = session.scalars(told.with_for_update(key_share=True)).one_or_none()
    if batch is None or batch.webhook_url is None:
        return
    rows = session.execute(
        select(Job.status, func.count(), func.max(Job.completed_at))
        .where(Job.batch_id == batch_id)
        .group_by(Job.status)
    ).all()
    counts = {status: count for status, count, _ in rows}
    if counts.keys() <= set(FINAL):
        at = max((completed_at for _, _, completed_at in rows if completed_at), default=batch.created_at)
        message = _message("batch.completed", at, _about_batch(batch_id, counts))
        _record(session, message, owner=batch.owner, url=batch.webhook_url, batch_id=batch_id)


def _about(job: Job) -> dict[str, Any]:
    batch = {} if job.batch_id is None else {"batch_id": str(job.batch_id)}
    return {"job_id": str(job.id), **batch, "status": job.status, "metadata": job.meta}


def _about_batch(batch_id: UUID, counts: dict[str, int]) -> dict[str, Any]:
    by_status = {status: counts.get(status, 0) for status in FINAL}
    request_counts = {"total": sum(counts.values()), **by_status}
    return {"batch_id": str(batch_id), "status": "completed", "request_counts": request_counts}


def _message(kind: str, at: datetime, data: dict[str, Any]) -> dict[str, Any]:
    timestamp = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"type": kind, "timestamp": timestamp, "data": data}


def _record(session: Session, message: dict[str, Any], *, owner: str, url: str, **subject: UUID) -> None:
    is_disabled = session.get(DisabledReceiver, (owner, url)) is not None
    ended = {"state": "disabled", "next_try_at": None, "finished_at": func.now()} if is_disabled else {}
    row = {"owner": owner, "url": url, "type": message["type"], "payload": message, **subject, **ended}
    session.execute(insert(WebhookDelivery).values(**row).on_conflict_do_nothing())
