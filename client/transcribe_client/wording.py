"""Figures as people read them: sizes, durations, times in the reader's zone. Reads them, too (7d, 2h, 2026-01-31)."""

import re
from datetime import UTC, datetime

from rich.filesize import decimal

from transcribe_client.failures import Misuse

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.IGNORECASE)
DAY_S, HOUR_S, MINUTE_S = 86_400, 3600, 60


def plain(text: object) -> str:
    """On one line and without control characters: a file may be called anything, also a terminal's command."""
    shown = str(text).encode(errors="replace").decode()
    return "".join(char if char.isprintable() else "�" for char in shown)


def size(count: float) -> str:
    return decimal(int(count))


def duration(seconds: float) -> str:
    """The two largest units: 3 h 05 min, 2 min 04 s, 12.5 s."""
    whole = round(seconds)
    if whole >= DAY_S:
        return f"{whole // DAY_S} d {whole % DAY_S // HOUR_S} h"
    if whole >= HOUR_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02} min"
    if whole >= MINUTE_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"


def moment(text: str) -> datetime:
    """A time of the service."""
    return datetime.fromisoformat(text)


def ago(at: datetime, now: datetime | None = None) -> str:
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    for unit_s, name in ((DAY_S, "day"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if (count := int(abs(seconds) // unit_s)) > 0:
            many = f"{count} {name}s" if name == "day" and count > 1 else f"{count} {name}"
            return f"{many} ago" if seconds > 0 else f"in {many}"
    return "just now" if seconds >= 0 else "in a moment"


def full(at: datetime) -> str:
    """With the name of the zone: 2026-01-31 09:30:00 CET (3 min ago)."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z} ({ago(at)})"


def ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seconds_of(text: str) -> float:
    """7d, 2h, 90m, 30s, 1h30m. Raises Misuse."""
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise Misuse(f"{text!r} is not a duration.", hint="Write a number with s, m, h, d or w: 90s, 2h, 7d.")
    return sum(float(number) * UNITS_S[unit.lower()] for number, unit in parts)


def moment_of(text: str, now: datetime | None = None) -> datetime:
    """A duration back from now, or a date and time, of the reader's zone unless it names one. Raises Misuse."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        pass
    try:
        before_s = seconds_of(text)
    except Misuse:
        hint = "Write how long ago (2h, 7d), or a date (2026-01-31, 2026-01-31T09:30)."
        raise Misuse(f"{text!r} is neither a duration nor a date.", hint=hint) from None
    return datetime.fromtimestamp((now or datetime.now(UTC)).timestamp() - before_s, UTC)
