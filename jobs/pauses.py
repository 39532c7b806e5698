"""Pause and resume of a queue or a caller: waiting jobs are not begun. What runs goes on, what comes is accepted."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, case, delete, exists, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

import errors
from jobs import audit
from jobs.routing import HIGH, NORMAL, OF_JOBS, RETRY
from jobs.states import wake_relay
from jobs.turns import unmark
from models import Job, Pause

QUEUE, CALLER = "queue", "caller"
LONGEST_REASON = 200  # characters


def queue_of_job() -> ColumnElement[str]:
    """In SQL, as `routing.queue_for`."""
    return case((Job.retrying, RETRY), (Job.priority == "high", HIGH), else_=NORMAL)


def is_paused() -> ColumnElement[bool]:
    """Of a row of jobs: whether it must not begin now."""
    by_caller = and_(Pause.kind == CALLER, Pause.name == Job.owner)
    by_queue = and_(Pause.kind == QUEUE, Pause.name == queue_of_job())
    return exists().where(or_(by_caller, by_queue))


def pauses(session: Session) -> Sequence[Pause]:
    return session.scalars(select(Pause).order_by(Pause.kind, Pause.name)).all()


def paused_queues(session: Session) -> set[str]:
    return set(session.scalars(select(Pause.name).where(Pause.kind == QUEUE)))


def pause(session: Session, kind: str, name: str, *, actor: str, reason: str | None = None) -> Pause:
    """Pausing what is paused changes nothing. Raises InvalidOption, for a queue that has no jobs too."""
    _check(kind, name)
    if reason and not (reason.isprintable() and len(reason) <= LONGEST_REASON):
        raise errors.InvalidOption(("reason", f"expected one line of at most {LONGEST_REASON} characters"))
    new = insert(Pause).values(kind=kind, name=name, paused_by=actor, reason=reason)
    if session.scalar(new.on_conflict_do_nothing().returning(Pause.name)) is not None:
        audit.note(session, actor, f"{kind}.paused", name, reason=reason)
    return session.get_one(Pause, (kind, name))


def resume(session: Session, kind: str, name: str, *, actor: str) -> None:
    """Raises NotFound where it is not paused. What was rung in vain meanwhile is rung again at once."""
    _check(kind, name)
    if session.scalar(delete(Pause).where(Pause.kind == kind, Pause.name == name).returning(Pause.name)) is None:
        raise errors.NotFound(f"This {kind} is not paused.")
    audit.note(session, actor, f"{kind}.resumed", name)
    unmark(session, Job.owner == name if kind == CALLER else queue_of_job() == name)
    wake_relay(session, f"{kind} resumed")


def _check(kind: str, name: str) -> None:
    if kind == QUEUE and name not in OF_JOBS:
        raise errors.InvalidOption(("queue", f"expected one of {', '.join(OF_JOBS)}"))
    if kind == CALLER and not name.isprintable():
        raise errors.InvalidOption(("caller", "expected the `owner` of its jobs, such as key:<id> or oidc:<sub>"))
