"""Multipart bodies, streamed in one pass: files to storage with cap and SHA-256, fields to a small dict.

Nothing is buffered whole, nothing is decoded. What was stored is deleted again unless the caller keeps it.
"""

import hashlib
import re
import struct
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

import errors
from api.intake import Intake
from api.sniff import HEAD_BYTES, is_media
from api.threads import Threads, in_thread
from jobs.submit import Upload
from storage import Storage, new_key

WRITE_BYTES = 1024 * 1024  # the body is handed to the parser in pieces of this size, off the event loop
MAX_FIELD_BYTES = 64 * 1024  # all form fields together, with their names
FIELD_BYTES = 64  # that each field counts at least: what it takes in memory, and so no more than a thousand come in
MAX_NAME = 255  # characters of a file name that are kept
PART_HEAD_BYTES = 4096  # boundary and headers of one file
LONGEST_BOUNDARY = 256  # bytes, the parser's own limit; RFC 2046 allows 70
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.IGNORECASE)
# Sound without a header gets one of 16 kHz, mono, s16, whose sizes say: to the end of the file (as ffmpeg's on a pipe).
WAV_HEADER = struct.pack(
    "<4sI8sIHHIIHH4sI", b"RIFF", 2**32 - 1, b"WAVEfmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", 2**32 - 1
)
LENGTH_DIGITS = 18  # a longer Content-Length is no number that a body has; Python refuses to read 4300 digits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BadFile:
    filename: str
    code: str
    detail: str


@dataclass(slots=True)
class Form:
    fields: dict[str, Any] = field(default_factory=dict)
    files: list[Upload | BadFile] = field(default_factory=list)

    @property
    def uploads(self) -> list[Upload]:
        return [item for item in self.files if isinstance(item, Upload)]

    def discard(self, storage: Storage) -> None:
        """Take back everything that was stored for it; what a worker has yet to fetch was not."""
        for upload in self.uploads:
            if upload.source_url is None:
                storage.delete(upload.storage_key)


@dataclass(frozen=True, slots=True)
class Limits:
    file_field: str  # name of the parts that hold files
    max_files: int
    max_file_bytes: int
    refuse_at_once: bool  # a bad file refuses the whole request, instead of being noted
    repeated: frozenset[str] = frozenset()  # fields of these names make lists; of others the last one counts
    is_pcm: bool = False  # files are sound without a header, 16 kHz, mono, s16: they are kept with one

    @property
    def max_body_bytes(self) -> int:
        """Whatever else there may be between the parts and after them."""
        return self.max_files * (self.max_file_bytes + PART_HEAD_BYTES) + MAX_FIELD_BYTES


async def kept_unless_refused(request: Request, form: Form, storage: Storage, decide: Callable[[], T]) -> T:
    """What `decide` says, on a thread of the database. A refusal leaves nothing in storage.

    Other failures keep the files: a COMMIT may be in doubt.
    """
    try:
        return await run_in_threadpool(decide)
    except errors.Refused:
        await _take_back(request, form, storage)
        raise


async def kept_if_new(
    request: Request, form: Form, storage: Storage, accept: Callable[[], tuple[T, bool]]
) -> tuple[T, bool]:
    """What `accept` has made, and whether it is new. The files of a request that was accepted before do not stay."""
    made, is_new = await kept_unless_refused(request, form, storage, accept)
    if not is_new:
        await _take_back(request, form, storage)
    return made, is_new


async def _take_back(request: Request, form: Form, storage: Storage) -> None:
    threads: Threads = request.app.state.threads
    await in_thread(threads.storage, form.discard, storage)


async def receive(request: Request, storage: Storage, limits: Limits) -> Form:
    """Read the whole body. Raises a Refused error as soon as one is certain; then nothing stays in storage."""
    boundary = _boundary(request)
    _refuse_by_length(request, limits)
    intake: Intake = request.app.state.intake
    threads: Threads = request.app.state.threads
    with intake.place():
        body = _Body(boundary, storage, limits)
        try:
            await _read(intake.chunks(request), body, threads)
        except ClientDisconnect:
            await in_thread(threads.storage, body.discard)
            raise _broken_off() from None
        except BaseException:
            await in_thread(threads.storage, body.discard)
            raise
    return body.form


async def _read(chunks: AsyncIterator[bytes], body: "_Body", threads: Threads) -> None:
    pending = bytearray()
    async for chunk in chunks:
        pending += chunk
        if len(pending) >= WRITE_BYTES:
            await in_thread(threads.storage, body.write, bytes(pending))
            pending.clear()
    await in_thread(threads.storage, body.finish, bytes(pending))


def _boundary(request: Request) -> bytes:
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in parameters:
        raise errors.InvalidOption(("body", "expected multipart/form-data, as `curl -F file=@recording.mp3` sends it"))
    boundary = parameters[b"boundary"]
    if len(boundary) > LONGEST_BOUNDARY:
        raise errors.InvalidOption(("body", f"the multipart boundary is longer than {LONGEST_BOUNDARY} bytes"))
    return boundary


def _refuse_by_length(request: Request, limits: Limits) -> None:
    """Before the first byte is read, where the caller says how much will come."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > LENGTH_DIGITS or int(length) > limits.max_body_bytes):
        raise _too_large(limits)


def _broken_off() -> errors.InvalidOption:
    return errors.InvalidOption(("body", "the multipart body ended early; nothing was stored"))


def _too_large(limits: Limits) -> errors.TooLarge:
    return errors.TooLarge(
        f"The file is larger than {limits.max_file_bytes // 1024**2} MiB, the most that is accepted."
    )


class _Body:
    """The parser's callbacks: one part at a time, either a field or a file."""

    def __init__(self, boundary: bytes, storage: Storage, limits: Limits) -> None:
        self.form = Form()
        self._storage = storage
        self._limits = limits
        self._body_bytes = self._field_bytes = 0
        self._header_name = self._header_value = b""
        self._disposition = b""
        self._part: _FieldPart | _FilePart | None = None
        self._is_complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value_data,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finished,
            },
        )

    def write(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.max_body_bytes:  # not every client says the length, nor the true one
            raise _too_large(self._limits)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise errors.InvalidOption(("body", "the multipart body is malformed")) from error

    def finish(self, data: bytes) -> None:
        self.write(data)
        if not self._is_complete:
            raise _broken_off()

    def discard(self) -> None:
        """Take back everything that was stored."""
        if isinstance(self._part, _FilePart):
            self._part.abandon()
        self.form.discard(self._storage)

    def _begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = _filename(self._disposition, options)
        if name == self._limits.file_field:
            self._part = self._open_file(filename or "")  # some clients give the file no name
        elif filename is None:
            self._count_field(name, len(name) + FIELD_BYTES)
            self._part = _FieldPart(name)
        else:
            problem = f"unexpected file; recordings are sent in parts named '{self._limits.file_field}'"
            raise errors.InvalidOption((name or "body", problem))

    def _open_file(self, filename: str) -> "_FilePart":
        if len(self.form.files) >= self._limits.max_files:
            raise errors.InvalidOption((self._limits.file_field, f"at most {self._limits.max_files} are accepted"))
        return _FilePart(filename, self._storage, self._limits)

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        if isinstance(self._part, _FieldPart):
            self._count_field(self._part.name, end - start)
        self._part.write(data[start:end])

    def _count_field(self, name: str, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > MAX_FIELD_BYTES:
            raise errors.InvalidOption((name, f"form fields may have {MAX_FIELD_BYTES} bytes in all"))

    def _end(self) -> None:
        if isinstance(self._part, _FieldPart):
            self._keep(self._part.name, self._part.value.decode("utf-8", "replace"))
        elif self._part is not None and (file := self._part.close()) is not None:
            self.form.files.append(file)
        self._part = None

    def _keep(self, name: str, value: str) -> None:
        if not value:  # left empty is left out: a form of a page sends all its fields
            return
        if name in self._limits.repeated:
            self.form.fields.setdefault(name, []).append(value)
        else:
            self.form.fields[name] = value

    def _finished(self) -> None:
        self._is_complete = True


class _FieldPart:
    def __init__(self, name: str) -> None:
        self.name = name
        self.value = b""

    def write(self, data: bytes) -> None:
        self.value += data


class _FilePart:
    """One file on its way to storage. A refused file is read to its end, for the sake of the parts behind it."""

    def __init__(self, filename: str, storage: Storage, limits: Limits) -> None:
        self._is_nameless = not filename
        self._filename = clean_name(filename)
        self._limits = limits
        self._key = new_key()
        self._exit = ExitStack()
        self._writer = self._exit.enter_context(storage.create(self._key))
        self._hash = hashlib.sha256()
        self._head: bytes | None = b""  # None: it was looked at
        self._size = 0
        self._problem: errors.Refused | None = None

    def write(self, data: bytes) -> None:
        if self._problem is not None:
            return
        self._size += len(data)
        if self._size > self._limits.max_file_bytes:
            self._refuse(_too_large(self._limits))
        elif self._head is None:
            self._store(data)
        else:
            self._head += data
            if len(self._head) >= HEAD_BYTES:
                self._look(self._head)

    def close(self) -> Upload | BadFile | None:
        """None: a field for a file that was left empty."""
        if self._is_nameless and not self._size:
            self._exit.close()
            return None
        if self._problem is None and self._head is not None:
            self._look(self._head)
        if self._problem is not None:
            return BadFile(self._filename, self._problem.code, str(self._problem))
        self._writer.commit()
        self._exit.close()
        return Upload(self._filename, self._key, self._size, self._hash.hexdigest())

    def abandon(self) -> None:
        self._exit.close()

    def _look(self, head: bytes) -> None:
        """Before the first byte is stored."""
        self._head = None
        is_wav = head.startswith(b"RIFF") and head[8:12] == b"WAVE"  # some call any file headerless
        if not head:
            self._refuse(errors.InvalidOption((self._limits.file_field, "the file is empty")))
        elif self._limits.is_pcm and not is_wav:
            self._size += len(WAV_HEADER)
            self._store(WAV_HEADER)
            self._store(head)
        elif is_media(self._filename, head[:HEAD_BYTES]):
            self._store(head)
        else:
            forgotten = " With curl, an @ stands before the file's name." if self._is_nameless else ""
            self._refuse(
                errors.UnsupportedMedia(
                    f"{self._filename}: neither the file name nor the content is audio or video that can be decoded. "
                    f"Send wav, mp3, m4a, ogg, flac, webm, mp4 or another common format.{forgotten}"
                )
            )

    def _store(self, data: bytes) -> None:
        self._hash.update(data)
        self._writer.write(data)

    def _refuse(self, problem: errors.Refused) -> None:
        self._problem = problem
        self._exit.close()
        if self._limits.refuse_at_once:
            raise problem


def _filename(disposition: bytes, options: dict[bytes, bytes]) -> str | None:
    """RFC 6266, 4.3: `filename*` (RFC 8187) before `filename`; None where there is neither."""
    if found := _EXTENDED_NAME.search(_QUOTED.sub(b'""', disposition)):
        return unquote_to_bytes(found[2]).decode(found[1].decode(), "replace")
    filename = options.get(b"filename")
    return None if filename is None else filename.decode("utf-8", "replace")


def clean_name(filename: str) -> str:
    """The caller's file name, for people: the last part of a path, printable, NFC, of bounded length."""
    last = unicodedata.normalize("NFC", filename).replace("\\", "/").rpartition("/")[2]
    printable = "".join(character for character in last if character.isprintable()).strip()
    return printable[-MAX_NAME:] or "unnamed"
