"""Dead letters: list, replay, resolve. A replay asks for exactly what the job asked for the first time."""

import uuid
from datetime import datetime

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

import errors
from jobs.read import Page, page_of
from jobs.states import Status, move
from models import ErrorLog, Job, made_at


def list_errors(
    session: Session, *, resolved: bool | None, error_type: str | None, limit: int, after: uuid.UUID | None
) -> Page[ErrorLog]:
    query = select(ErrorLog).order_by(ErrorLog.created_at.desc(), ErrorLog.id.desc())
    if resolved is not None:
        query = query.where(ErrorLog.resolved_at.is_not(None) if resolved else ErrorLog.resolved_at.is_(None))
    if error_type is not None:
        query = query.where(ErrorLog.error_type == error_type.replace("\0", "?"))  # no text of ours holds a NUL
    if after is not None:
        query = query.where(tuple_(ErrorLog.created_at, ErrorLog.id) < (_moment(session, after), after))
    return page_of(session.scalars(query.limit(limit + 1)).all(), limit)


def _moment(session: Session, error_id: uuid.UUID) -> datetime:
    """When this letter was written, also of one that is gone with its job. Raises NotFound where nothing tells."""
    is_gone = session.get(ErrorLog, error_id) is None
    return (made_at(error_id) if is_gone else None) or get_error(session, error_id).created_at


def get_error(session: Session, error_id: uuid.UUID) -> ErrorLog:
    error = session.get(ErrorLog, error_id)
    if error is None:
        raise errors.NotFound("There is no dead letter with this id. GET /admin/errors lists them.")
    return error


def replay(session: Session, error_id: uuid.UUID) -> Job:
    """Put the job back to pending with fresh counters; `attempt` goes on growing."""
    error = _locked(session, error_id)
    job = move(
        session,
        error.job_id,
        Status.FAILED,
        Status.PENDING,
        fence=error.attempt,
        detail={"reason": "replayed", "error_id": str(error_id)},
        run_at=func.now(),
        failures=0,
        losses=0,
        infra_losses=0,
        retrying=False,
        stalled_at=None,
        error_code=None,
        error_message=None,
    )
    if job is None:
        raise errors.Conflict("The job of this dead letter is not failed any more; nothing was replayed.")
    error.resolved_at, error.resolution = func.now(), "replayed"
    return job


def replay_matching(session: Session, *, error_type: str | None, limit: int) -> list[uuid.UUID]:
    """Replay the oldest open dead letters, `limit` at most; returns the ids of their jobs."""
    query = (
        select(ErrorLog.id)
        .where(ErrorLog.resolved_at.is_(None))
        .order_by(ErrorLog.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if error_type is not None:
        query = query.where(ErrorLog.error_type == error_type.replace("\0", "?"))
    return [replay(session, error_id).id for error_id in session.scalars(query).all()]


def resolve(session: Session, error_id: uuid.UUID) -> ErrorLog:
    """Close a dead letter without trying again. Resolving twice is a no-op."""
    error = _locked(session, error_id)
    if error.resolved_at is None:
        error.resolved_at, error.resolution = func.now(), "dismissed"
        session.flush()
        session.refresh(error)
    return error


def _locked(session: Session, error_id: uuid.UUID) -> ErrorLog:
    """The letter before its job, always: two replays never wait for each other in a circle."""
    get_error(session, error_id)
    return session.get_one(ErrorLog, error_id, with_for_update=True, populate_existing=True)


def mark_notified(session: Session, error_id: uuid.UUID) -> ErrorLog | None:
    """The row if this call was the first to mark it; None where somebody has told already."""
    statement = (
        update(ErrorLog)
        .where(ErrorLog.id == error_id, ErrorLog.notified_at.is_(None))
        .values(notified_at=func.now())
        .returning(ErrorLog)
    )
    return session.scalars(statement).one_or_none()


def unnotified(session: Session, *, limit: int) -> list[uuid.UUID]:
    query = select(ErrorLog.id).where(ErrorLog.notified_at.is_(None)).order_by(ErrorLog.created_at).limit(limit)
    return list(session.scalars(query))
