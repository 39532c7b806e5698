"""One recording on its way in, over as many connections as it takes: caps, resuming, what the server calls it.

Bytes of two different recordings are never joined, and compressed ones never taken.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from errors import FetchFailed, FetchRefused
from outbound.wire import Broken

LONGEST_NAME = 255  # characters of a file name that are kept

_PASSING = (408, 425, 429)  # 4xx that may be gone at the next try
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_EXTENDED_NAME = re.compile(r"(?:^|;)\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.IGNORECASE)
_PLAIN_NAME = re.compile(r'(?:^|;)\s*filename\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^;"\s]+))', re.IGNORECASE)
_CHANGED = "The recording changed while it was fetched. Nothing of it was kept."


@dataclass(frozen=True, slots=True)
class Fetched:
    filename: str | None  # where the server gives it a name (RFC 6266); for people, not for paths
    size_bytes: int
    sha256: str


@dataclass(slots=True)
class Download:
    """One recording, over as many connections as it takes."""

    write: Callable[[bytes], None]
    max_bytes: int
    on_progress: Callable[[int, int | None], None]
    check: Callable[[], None]
    received: int = 0
    total: int | None = None
    first: Mapping[str, str] = field(default_factory=dict)  # headers of the answer that began it
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def can_resume(self) -> bool:
        return self.received > 0 and _validator(self.first) is not None

    def range_headers(self) -> dict[str, str]:
        validator = _validator(self.first)
        if not self.received or validator is None:
            return {}
        return {"range": f"bytes={self.received}-", "if-range": validator}

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.check()
        if self.received and status in (200, 416):
            raise FetchFailed(_CHANGED)
        _refuse_status(status, expected=206 if self.received else 200)
        if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise FetchRefused("The server compresses the recording, although that was not asked for.")
        if self.received:
            self._refuse_other_entity(headers)
        else:
            length = headers.get("content-length")
            self.total = None if length is None or "transfer-encoding" in headers else int(length)
            self.first = headers
        self._refuse_size(self.total or 0)

    def _refuse_other_entity(self, headers: Mapping[str, str]) -> None:
        """Whatever the server's idea of If-Range: bytes of two recordings are never joined."""
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if found is None or int(found[1]) != self.received:
            raise FetchFailed("The server sent another part of the recording than the one that was asked for.")
        total = None if found[2] == "*" else int(found[2])
        if total is not None and self.total not in (None, total):
            raise FetchFailed(_CHANGED)
        if any(headers[name] != self.first.get(name) for name in ("etag", "last-modified") if name in headers):
            raise FetchFailed(_CHANGED)
        self.total = self.total if total is None else total

    def take(self, piece: bytes) -> None:
        self.check()
        self._refuse_size(self.received + len(piece))
        self.write(piece)
        self.digest.update(piece)
        self.received += len(piece)
        self.on_progress(self.received, self.total)

    def _refuse_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise FetchRefused(f"The recording is larger than the {self.max_bytes} bytes that are allowed.")

    def finish(self) -> Fetched:
        if self.total is not None and self.received < self.total:
            raise Broken("The server sent less of the recording than it had announced.")
        if self.total is not None and self.received > self.total:
            raise FetchFailed(_CHANGED)
        name = _filename(self.first.get("content-disposition", ""))
        return Fetched(name, self.received, self.digest.hexdigest())


def _refuse_status(status: int, *, expected: int) -> None:
    if status == expected:
        return
    message = f"The server answered {status}, not {expected} with the recording."
    if status >= 500 or status in _PASSING:
        raise FetchFailed(message)
    raise FetchRefused(f"{message} Check the address, and that it needs no sign-in.")


def _validator(headers: Mapping[str, str]) -> str | None:
    """What If-Range may hold (RFC 9110, 13.1.5): a strong ETag, or a date that was no longer now when it was given."""
    if headers.get("accept-ranges", "").strip().lower() == "none":
        return None
    etag, changed = headers.get("etag", ""), headers.get("last-modified", "")
    if etag.startswith('"') and etag.isascii():
        return etag
    try:
        age = parsedate_to_datetime(headers.get("date", "")) - parsedate_to_datetime(changed)
    except (TypeError, ValueError, OverflowError):  # absent, one of them without a zone, or no dates
        return None
    return changed if age.total_seconds() >= 1 and changed.isascii() else None


def _filename(disposition: str) -> str | None:
    """RFC 6266: the extended form before the plain one."""
    if extended := _EXTENDED_NAME.search(disposition):
        name = unquote_to_bytes(extended[2]).decode(extended[1], "replace")
    elif plain := _PLAIN_NAME.search(disposition):
        name = re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
    else:
        return None
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(character for character in last if character.isprintable()).strip()
    return printable[-LONGEST_NAME:] if printable.strip(".") else None
