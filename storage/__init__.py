"""The Storage protocol: recordings as bytes under keys that `new_key` made. Knows nothing of jobs or media."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from config import Settings
from storage.keys import is_key, new_key
from storage.local import LocalStorage

__all__ = ["Storage", "Writer", "is_key", "new_key", "open_storage"]


class Writer(Protocol):
    """Raises StorageFull, StorageError."""

    def write(self, data: bytes) -> None: ...

    def commit(self) -> None:
        """On return the recording survives a power cut. Nothing can be written afterwards."""
        ...


class Storage(Protocol):
    """Every method raises ValueError for a key that `new_key` cannot have made, StorageError when the store fails."""

    def create(self, key: str) -> AbstractContextManager[Writer]:
        """A block that is left without `commit()` leaves nothing behind. Raises StorageFull."""
        ...

    def local_path(self, key: str) -> AbstractContextManager[Path]:
        """A file to read while the block lasts. Raises FileMissing."""
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
    return LocalStorage(settings.storage_dir)
