"""Idempotency keys: the same key and payload from the same caller make one job, however often they come.

The key is written in the transaction that makes the job, so a crash leaves both or neither (ADR 0006).
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import errors
from models import IdempotencyKey

KEPT = timedelta(hours=24)
FORGOTTEN_AT_ONCE = 5000  # keys
LONGEST_KEY = 255  # characters
LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class Once:
    """A request that may come more than once."""

    owner: str
    key: str
    fingerprint: str


def fingerprint(*parts: Any) -> str:
    """Equal for equal requests, whatever the order of their fields."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def check_key(key: str) -> None:
    """Raises InvalidOption."""
    if not 0 < len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
        problem = f"must have 1 to {LONGEST_KEY} printable ASCII characters, such as a UUID"
        raise errors.InvalidOption(("Idempotency-Key", problem))


def begin(session: Session, once: Once) -> IdempotencyKey:
    """The row of this key: new, and locked until the commit, or with what an earlier request has made.

    Waits for one that is just being committed. Raises KeyReused for another payload, InFlight after a lock timeout.
    """
    values = {"owner": once.owner, "key": once.key, "fingerprint": once.fingerprint}
    renewed = {"fingerprint": once.fingerprint, "job_id": None, "batch_id": None, "created_at": func.now()}
    statement = (
        insert(IdempotencyKey)
        .values(values)
        .on_conflict_do_update(
            index_elements=["owner", "key"], set_=renewed, where=IdempotencyKey.created_at < func.now() - KEPT
        )
    )
    try:
        session.execute(statement)
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != LOCK_NOT_AVAILABLE:
            raise
        raise errors.InFlight("A request with this Idempotency-Key is being accepted. Send it again soon.") from error
    row = session.get_one(IdempotencyKey, (once.owner, once.key))
    if row.fingerprint != once.fingerprint:
        raise errors.KeyReused(
            "This Idempotency-Key came with another recording or other options before. Use a new key for a new request."
        )
    return row


def forget_old(session: Session) -> int:
    """At most FORGOTTEN_AT_ONCE: after an outage of the housekeeper a statement for all would take too long."""
    place = (IdempotencyKey.owner, IdempotencyKey.key)
    old = select(*place).where(IdempotencyKey.created_at < func.now() - KEPT).order_by(IdempotencyKey.created_at)
    chosen = delete(IdempotencyKey).where(tuple_(*place).in_(old.limit(FORGOTTEN_AT_ONCE)))
    return len(session.scalars(chosen.returning(IdempotencyKey.key)).all())
