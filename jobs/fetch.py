"""A recording that was submitted by its address: fetched into storage, once, before it is decoded.

Each attempt fetches under a key of its own; the fenced write that makes it the job's tells size, hash and name too.
"""

from collections.abc import Callable
from time import monotonic
from unicodedata import normalize

import errors
from config import Settings
from jobs.progress import deadline_after_progress
from models import Job
from outbound import open_outbound
from storage import Storage, new_key

SAID_EVERY_S = 1.0


def fetch(
    job: Job,
    storage: Storage,
    settings: Settings,
    *,
    check: Callable[[], None],
    write: Callable[..., None],
) -> str:
    """The key of the job's recording, fetched where no attempt has done so. `check` raises where the attempt must end.

    `write(**columns)` notes how far it is; it raises LeaseLost. Raises FetchRefused, FetchFailed, AddressRefused.
    """
    if job.source_url is None or job.size_bytes:
        return job.storage_key
    key = new_key()
    with storage.create(key) as writer:
        fetched = open_outbound(settings).fetch(
            job.source_url,
            writer.write,
            max_bytes=settings.max_upload_bytes,
            on_progress=_Progress(settings, write),
            check=check,
        )
        writer.commit()
    size, name = fetched.size_bytes, normalize("NFC", fetched.filename or job.filename)
    found = {"storage_key": key, "filename": name, "size_bytes": size, "sha256": fetched.sha256}
    try:
        write(**found, download={"received_bytes": size, "total_bytes": size})
    except errors.LeaseLost:  # it is nobody's; where the database is away it may be the job's
        storage.delete(key)
        raise
    return key


class _Progress:
    """Written now and then: what comes over a fast line comes in many pieces."""

    def __init__(self, settings: Settings, write: Callable[..., None]) -> None:
        self._settings = settings
        self._write = write
        self._said_at = monotonic()

    def __call__(self, received: int, total: int | None) -> None:
        if monotonic() - self._said_at < SAID_EVERY_S:
            return
        self._said_at = monotonic()
        download = {"received_bytes": received, "total_bytes": total}
        self._write(download=download, deadline_at=deadline_after_progress(self._settings))
