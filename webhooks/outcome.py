"""What follows from a try, and when to try again: pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

DAY_S = 86_400.0
# Before the second try, the third, ...; at most. Together a little less than a day.
DELAYS_S = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 28_800)
MOST_TRIES = len(DELAYS_S) + 1
GONE, TOO_MANY, UNAVAILABLE = 410, 429, 503


@dataclass(frozen=True, slots=True)
class Reply:
    """How a try went: `status` is what the receiver answered, None where there was no answer."""

    status: int | None = None
    retry_after_s: float = 0  # as the receiver asked
    error: str = ""  # why there was no answer; for callers
    is_final: bool = False  # trying again cannot help


@dataclass(frozen=True, slots=True)
class Delivered:
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    delay_s: float
    error: str


@dataclass(frozen=True, slots=True)
class Failed:
    error: str


@dataclass(frozen=True, slots=True)
class Disabled:
    """The receiver wants nothing more."""

    error: str


Outcome = Delivered | Again | Failed | Disabled


def plan(reply: Reply, *, tries: int, chance: float) -> Outcome:
    """`tries` with this one; `chance` from 0 to 1 spreads receivers' second chances over time."""
    if reply.status is not None and 200 <= reply.status < 300:
        return Delivered()
    error = reply.error or _complaint(reply.status)
    if reply.status == GONE:
        return Disabled(error)
    if reply.is_final:
        return Failed(error)
    if tries >= MOST_TRIES:
        return Failed(f"{error} Given up after {tries} tries.")
    asked_s = reply.retry_after_s if reply.status in (TOO_MANY, UNAVAILABLE) else 0
    return Again(max(delay_s(tries, chance), min(asked_s, DAY_S)), error)


def delay_s(tries: int, chance: float) -> float:
    """Half of it is certain: a receiver that is away for hours is not given up early by chance."""
    return DELAYS_S[tries - 1] * (1 + chance) / 2


def _complaint(status: int | None) -> str:
    if status == GONE:
        return "The receiver answered 410 Gone; nothing more is sent to it until a replay succeeds."
    if status is not None and 300 <= status < 400:
        return f"The receiver answered {status}; redirects are not followed. Give its final address."
    return f"The receiver answered {status}; expected 200 to 299."


def retry_after_s(header: str, now: datetime) -> float:
    """Of a Retry-After header: seconds or a date; 0 for what is neither, or past."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)  # "-0000" and asctime name no zone; HTTP's is GMT
    return max(0.0, (at - now).total_seconds())
