"""Which secret signs an owner's messages, and how. The secrets themselves are derived elsewhere and kept nowhere."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models import WebhookSecret

PREFIX = "whsec_"
PURPOSE = "webhook"  # what keeps these secrets apart from others that hang on the same key
OVERLAP = timedelta(hours=24)  # after a rotation the secret before signs too


@dataclass(frozen=True, slots=True)
class SecretNumbers:
    current: int = 1
    previous_valid_until: datetime | None = None

    @property
    def signing(self) -> tuple[int, ...]:
        """Newest first."""
        return (self.current,) if self.previous_valid_until is None else (self.current, self.current - 1)


def secret_numbers(session: Session, owner: str) -> SecretNumbers:
    until = WebhookSecret.rotated_at + OVERLAP
    query = select(WebhookSecret.number, case((until > func.now(), until))).where(WebhookSecret.owner == owner)
    row = session.execute(query).one_or_none()
    return SecretNumbers() if row is None else SecretNumbers(*row)


def rotate(session: Session, owner: str) -> SecretNumbers:
    """The next secret signs from now on. Only the last two ever do."""
    first = insert(WebhookSecret).values(owner=owner, number=2, rotated_at=func.now())
    again = {"number": WebhookSecret.number + 1, "rotated_at": func.now()}
    session.execute(first.on_conflict_do_update(index_elements=["owner"], set_=again))
    return secret_numbers(session, owner)


def seed(owner: str, number: int) -> str:
    """What a secret is derived from."""
    return f"{owner}:{number}"


def written(secret: bytes) -> str:
    """As receivers are given it."""
    return PREFIX + base64.b64encode(secret).decode()


def signed_headers(message_id: str, at: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """`at`: of this try, so that a receiver can refuse a message that somebody has recorded and sends again."""
    signed = f"{message_id}.{at}.".encode() + body
    digests = [hmac.digest(secret, signed, hashlib.sha256) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
        "content-type": "application/json",
    }
