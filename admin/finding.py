"""What a check of `doctor` says: a state, what was found, and what to do about it. No secret is ever in it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    state: State
    found: str
    advice: str = ""
    name: str = ""  # of its check; who runs the checks sets it


def ok(found: str) -> Finding:
    return Finding("OK", found)


def warn(found: str, advice: str) -> Finding:
    return Finding("WARN", found, advice)


def fail(found: str, advice: str) -> Finding:
    return Finding("FAIL", found, advice)
