"""Validators of what a GET shows (RFC 9110, 8.8 and 13.1.2), found before anything is rendered. No I/O of its own."""

import hashlib
import re
from datetime import datetime
from typing import Any

from fastapi import Request

from api.schemas import JobSummary
from config import VERSION
from jobs.waiting import Reason

# Kept by whoever asked, not by a cache on the way, and asked for again each time, with the key
KEPT = {"Cache-Control": "private, no-cache"}
NOT_MODIFIED = "As the caller has it (If-None-Match)."
_TAG = re.compile(r'(?:W/)?("[^"]*")')


def job_tag(summary: JobSummary, position: int | None, reason: Reason | None, corrections: str | None) -> str:
    """Weak: `eta_seconds`, an estimate that never stands still, does not count."""
    return f"W/{_tag(summary.model_dump_json(), position, reason, corrections)}"


def result_tag(completed_at: datetime | None, corrections: str | None, request: Request) -> str:
    """Of a format with its options: whatever stands in the address."""
    return _tag(completed_at, corrections, request.url.path, request.url.query)


def _tag(*parts: Any) -> str:
    """Another version of the service may render the same in another way."""
    return f'"{hashlib.sha256(repr((VERSION, *parts)).encode()).hexdigest()[:32]}"'


def headers_of(tag: str) -> dict[str, str]:
    return KEPT | {"ETag": tag}


def is_known(request: Request, tag: str) -> bool:
    """Whether the caller has what is there."""
    asked = request.headers.get("if-none-match", "")
    return asked.strip() == "*" or tag.removeprefix("W/") in _TAG.findall(asked)
