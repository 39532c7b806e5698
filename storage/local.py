"""Recordings as files below one folder: 0600 in 0700, complete or absent, durable once committed.

A marker file tells the folder from an empty mount point.
"""

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from errors import FileMissing, StorageAway, StorageError, StorageFull
from storage.keys import AWAY, MARKER, checked_key, is_key

PART = ".part"  # ends the name of a file that is being written
CHUNK_BYTES = 256 * 1024  # of what is read in pieces
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class LocalStorage:
    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def is_marked(self) -> bool:
        with translated_errors():
            return (self._root / MARKER).is_file()

    def mark(self) -> None:
        with translated_errors():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._root / MARKER).touch(mode=0o600)
            _sync_folder(self._root)

    @contextmanager
    def create(self, key: str) -> Iterator["FileWriter"]:
        path = self._path(key)
        self._require_marker()
        with translated_errors():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            writer = FileWriter(path)
        try:
            yield writer
        finally:
            writer.close()

    @contextmanager
    def local_path(self, key: str) -> Iterator[Path]:
        if not self.exists(key):
            raise FileMissing("The recording is no longer in storage.")
        yield self._path(key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if start < 0:
            raise ValueError("A range begins at 0 or later. This is a bug.")
        with self.local_path(key) as path, translated_errors():
            file = path.open("rb")
            file.seek(start)
        chunks = _chunks(file, sys.maxsize if end is None else end - start)
        next(chunks)  # from here on the file is closed with them, also where nobody reads any
        return chunks

    def presigned_url(self, key: str, *, filename: str, media_type: str, expires_s: int) -> str | None:
        checked_key(key)
        return None

    def delete(self, key: str) -> None:
        if self.exists(key):
            with translated_errors():
                self._path(key).unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with translated_errors():
            is_there = path.is_file()
        if not is_there:
            self._require_marker()
        return is_there

    def size(self, key: str) -> int:
        with self.local_path(key) as path, translated_errors():
            return path.stat().st_size

    def free_bytes(self) -> int:
        self._require_marker()
        with translated_errors():
            return shutil.disk_usage(self._root).free

    def committed_between(self, first: datetime, last: datetime) -> Iterator[str]:
        for path in self._files(first.timestamp(), last.timestamp()):
            key = f"{path.parent.name}/{path.name}"
            if is_key(key):
                yield key

    def discard_unfinished(self, moment: datetime) -> int:
        abandoned = [path for path in self._files(0, moment.timestamp()) if path.suffix == PART]
        for path in abandoned:
            with translated_errors():
                path.unlink(missing_ok=True)
        return len(abandoned)

    def _require_marker(self) -> None:
        if not self.is_marked():
            raise StorageAway(AWAY)

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _files(self, first: float, last: float) -> Iterator[Path]:
        """By the time of their last change, seconds since the epoch."""
        for path in self._root.glob("??/*"):
            with suppress(FileNotFoundError):  # deleted meanwhile
                if first <= path.stat().st_mtime < last:
                    yield path


class FileWriter:
    """Writes beside the final file; the rename in `commit` makes it appear whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_committed: bool | None = False  # None: a commit was begun, what became of it is not known
        self._part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
        self._fd: int | None = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        with translated_errors(), self._closed_by_an_error():
            while left:
                left = left[os.write(self._open_fd(), left) :]

    def commit(self) -> None:
        with translated_errors():
            with self._closed_by_an_error():
                os.fsync(self._open_fd())
            self._close_fd()
            self._is_committed = None
            self._part.rename(self._path)
            _sync_folder(self._path.parent)
            _sync_folder(self._path.parents[1])  # this recording may be the first in its folder
        self._is_committed = True

    def close(self) -> None:
        with suppress(OSError):
            self._close_fd()
        if not self._is_committed:
            self._unlink(self._part)
        if self._is_committed is None:  # it may have failed after the rename: its key was never given out
            self._unlink(self._path)

    def _unlink(self, path: Path) -> None:
        with suppress(OSError):
            path.unlink(missing_ok=True)

    @contextmanager
    def _closed_by_an_error(self) -> Iterator[None]:
        """A second fsync after one that failed would succeed, with the content lost."""
        try:
            yield
        except OSError:
            self._close_fd()
            raise

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError("This recording is closed. This is a bug.")
        return self._fd

    def _close_fd(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Errors of the system become ours; none of them tells a path."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull("There is no room left to store recordings. Try again later.") from None
        raise StorageError(f"The storage failed: {error.strerror or 'unknown reason'}.") from None


def _chunks(file: BinaryIO, left: int) -> Iterator[bytes]:
    """The first one is empty."""
    with file:
        yield b""
        while left > 0:
            with translated_errors():
                chunk = file.read(min(left, CHUNK_BYTES))
            if not chunk:
                return
            yield chunk
            left -= len(chunk)


def _sync_folder(folder: Path) -> None:
    """A rename is durable only when the folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
