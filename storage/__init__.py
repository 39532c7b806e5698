"""The Storage protocol: recordings as bytes under keys that were made here. Knows nothing of jobs or media."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from config import Settings
from storage.keys import derived_key, is_key, new_key
from storage.local import LocalStorage

__all__ = ["Storage", "Writer", "derived_key", "is_key", "new_key", "open_storage"]

_BUCKET_URL = re.compile(r"s3://(?P<bucket>[A-Za-z0-9._-]{3,63})(?P<prefix>(?:/[A-Za-z0-9._=-]+)*)/?", re.ASCII)
_ENDPOINT_URL = re.compile(r"(?:https?://[^\s@?#]+)?")


class Writer(Protocol):
    """Raises StorageFull, StorageError; then nothing more can be written, nor committed."""

    def write(self, data: bytes) -> None: ...

    def commit(self) -> None:
        """On return the recording survives a power cut. Nothing can be written afterwards."""
        ...


class Storage(Protocol):
    """Every method raises ValueError for a key that was not made here, StorageError when the store fails.

    A store without its marker is away (StorageAway): an empty mount point must not look like one that lost its files.
    """

    def is_marked(self) -> bool:
        """Whether this is the store that was marked once."""
        ...

    def mark(self) -> None:
        """Make it where it is missing, and mark it as the service's own."""
        ...

    def create(self, key: str) -> AbstractContextManager[Writer]:
        """A block that is left without `commit()` leaves nothing behind. Raises StorageFull, StorageAway."""
        ...

    def local_path(self, key: str) -> AbstractContextManager[Path]:
        """A file to read while the block lasts. Raises FileMissing; StorageFull where it has to be fetched."""
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes `[start:end]`, in pieces; none past the end. Raises FileMissing at once, not at the first piece."""
        ...

    def presigned_url(self, key: str, *, filename: str, media_type: str, expires_s: int) -> str | None:
        """Where anyone may download it, for seven days at most, whether or not it exists. None: through us alone."""
        ...

    def delete(self, key: str) -> None:
        """Harmless where it is gone already."""
        ...

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int:
        """Bytes. Raises FileMissing."""
        ...

    def free_bytes(self) -> int: ...

    def committed_between(self, first: datetime, last: datetime) -> Iterator[str]:
        """Keys (the moments are aware), for a sweep that looks for recordings without a job."""
        ...

    def discard_unfinished(self, moment: datetime) -> int:
        """Remove what writers that were killed before `moment` (aware) left; how many."""
        ...


def open_storage(settings: Settings) -> Storage:
    """Asks no server anything. Raises ValueError where the settings name none."""
    if not settings.storage_url:
        return LocalStorage(settings.storage_dir)
    place = _BUCKET_URL.fullmatch(settings.storage_url)
    if place is None:
        raise ValueError("STORAGE_URL must be s3://BUCKET or s3://BUCKET/PREFIX, or empty for files below DATA_DIR.")
    if not _ENDPOINT_URL.fullmatch(settings.s3_endpoint_url):
        raise ValueError("S3_ENDPOINT_URL must be http(s)://HOST or http(s)://HOST:PORT, without user or password.")
    from storage.s3 import S3Storage  # boto3 takes half a second and 30 MB, for those who keep files as for others

    return S3Storage(place["bucket"], place["prefix"], endpoint_url=settings.s3_endpoint_url, region=settings.s3_region)
