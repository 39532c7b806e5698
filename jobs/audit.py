"""The audit log: what operators changed, and who. Written in the transaction of the change."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import AuditEntry


def note(session: Session, actor: str, action: str, target: str, **detail: Any) -> None:
    """`action` is `noun.verb` (queue.paused); `target` is what it was done to. No secret goes in."""
    session.add(AuditEntry(actor=actor, action=action, target=target, detail=detail))


def entries(session: Session, *, limit: int, before: UUID | None = None) -> Sequence[AuditEntry]:
    """Newest first, those before `before`: an id tells when it was made (ADR 13)."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    return session.scalars(query if before is None else query.where(AuditEntry.id < before)).all()
