"""API keys: made, listed, revoked, found. The key itself is shown once and kept nowhere."""

import secrets
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

import errors
from access.caller import LONGEST_NAME, Caller, is_name
from access.secret import derive
from config import Settings
from models import ApiKey

PREFIX = "tk_"
HINT = 8  # characters that are shown in lists
USED_EVERY = timedelta(minutes=1)  # last_used_at is no more exact than this
ROLES = ("user", "admin")
MOST_REQUESTS = 100_000  # a minute: each is an entry in Redis
MOST_JOBS, MOST_HOURS = 1_000_000, 1_000_000.0
LONGEST_KEPT_S = 10 * 365 * 86_400
LATEST_EXPIRY = timedelta(days=36_500)
SHOWN = (
    "id name role hint rate_limit_per_minute quota_waiting_jobs quota_audio_hours_per_day "
    "created_at expires_at revoked_at last_used_at"
).split()
State = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """None: as the settings say."""

    name: str
    role: str = "user"
    expires_at: datetime | None = None
    rate_limit_per_minute: int | None = None
    quota_waiting_jobs: int | None = None
    quota_audio_hours_per_day: float | None = None
    delete_after_s: int | None = None


class Limits(TypedDict):
    """Those of a Caller."""

    rate_limit_per_minute: int
    quota_waiting_jobs: int
    quota_audio_s_per_day: float


def create(session: Session, wanted: KeyRequest, settings: Settings) -> tuple[ApiKey, str]:
    """The row, and the key: the only time that it can be seen. Raises InvalidOption."""
    if problems := tuple(_problems(wanted)):
        raise errors.InvalidOption(*problems)
    token = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        name=wanted.name,
        role=wanted.role,
        hint=token[:HINT],
        hmac=digest(token, settings),
        rate_limit_per_minute=wanted.rate_limit_per_minute,
        quota_waiting_jobs=wanted.quota_waiting_jobs,
        quota_audio_hours_per_day=wanted.quota_audio_hours_per_day,
        delete_after_s=wanted.delete_after_s,
        expires_at=wanted.expires_at and wanted.expires_at.astimezone(UTC),  # PostgreSQL knows no offset of 16 hours
    )
    session.add(key)
    session.flush()
    return key, token


def _problems(wanted: KeyRequest) -> Iterator[tuple[str, str]]:
    if not is_name(wanted.name):
        yield "name", f"expected 1 to {LONGEST_NAME} characters that can be printed"
    if wanted.role not in ROLES:
        yield "role", f"expected one of {', '.join(ROLES)}"
    now = datetime.now(UTC)
    if wanted.expires_at is not None and not now < wanted.expires_at < now + LATEST_EXPIRY:
        yield "expires_at", "expected a moment in the future, within the next 100 years"
    limits: tuple[tuple[str, float | None, float, float], ...] = (
        ("rate_limit_per_minute", wanted.rate_limit_per_minute, 0, MOST_REQUESTS),
        ("quota_waiting_jobs", wanted.quota_waiting_jobs, 0, MOST_JOBS),
        ("quota_audio_hours_per_day", wanted.quota_audio_hours_per_day, 0, MOST_HOURS),
        ("delete_after_seconds", wanted.delete_after_s, 1, LONGEST_KEPT_S),
    )
    for field, value, least, most in limits:
        if value is not None and not least <= value <= most:
            yield field, f"expected {least:g} to {most:.0f}"


def list_keys(session: Session) -> Sequence[ApiKey]:
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id)).all()


def revoke(session: Session, key_id: uuid.UUID) -> ApiKey:
    """Harmless where it is revoked already. Raises NotFound."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise errors.NotFound("There is no key with this id. GET /admin/keys, or `keys list`, shows them all.")
    key.revoked_at = key.revoked_at or session.scalar(select(func.now()))
    session.flush()
    return key


def find(session: Session, token: str, settings: Settings) -> ApiKey | None:
    """The key, if it may be used now. Looked up by its HMAC: a timing tells nothing about the key itself."""
    is_live = (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))
    return session.scalars(select(ApiKey).where(ApiKey.hmac == digest(token, settings), *is_live)).one_or_none()


def state_of(key: ApiKey) -> State:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else "active"


def shown(key: ApiKey) -> dict[str, Any]:
    """A key as people may see it, by the names of /admin/keys."""
    columns = {name: getattr(key, name) for name in SHOWN}
    return columns | {"state": state_of(key), "delete_after_seconds": key.delete_after_s}


def note_use(session: Session, key: ApiKey) -> None:
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - USED_EVERY)
    session.execute(update(ApiKey).where(ApiKey.id == key.id, stale).values(last_used_at=func.now()))


def any_exist(session: Session) -> bool:
    """Also revoked and expired ones: taking the last key away must not open the door."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def digest(token: str, settings: Settings) -> str:
    return derive(settings, "api-key", token).hex()


def caller_of(key: ApiKey, settings: Settings) -> Caller:
    return Caller(
        owner=f"key:{key.id}",
        name=key.name,
        role=key.role,
        delete_after_s=key.delete_after_s,
        **limits_of(settings, key.rate_limit_per_minute, key.quota_waiting_jobs, key.quota_audio_hours_per_day),
    )


def limits_of(
    settings: Settings, rate: int | None = None, jobs: int | None = None, hours: float | None = None
) -> Limits:
    """What the key says, else what the settings say."""
    return Limits(
        rate_limit_per_minute=settings.rate_limit_per_minute if rate is None else rate,
        quota_waiting_jobs=settings.quota_waiting_jobs if jobs is None else jobs,
        quota_audio_s_per_day=3600 * (settings.quota_audio_hours_per_day if hours is None else hours),
    )
