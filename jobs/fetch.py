"""A recording that was submitted by its address: fetched into storage, once, before it is decoded."""

from collections.abc import Callable
from time import monotonic
from unicodedata import normalize

from config import Settings
from jobs.progress import deadline_after_progress
from models import Job
from outbound import open_outbound
from storage import Storage

SAID_EVERY_S = 1.0


def fetch(
    job: Job,
    storage: Storage,
    settings: Settings,
    *,
    check: Callable[[], None],
    write: Callable[..., None],
) -> None:
    """Harmless where the recording is in storage already. `check` raises where the attempt must end.

    `write(**columns)` notes how far it is; it raises LeaseLost. Raises FetchRefused, FetchFailed, AddressRefused.
    """
    if job.source_url is None or storage.exists(job.storage_key):
        return
    with storage.create(job.storage_key) as writer:
        fetched = open_outbound(settings).fetch(
            job.source_url,
            writer.write,
            max_bytes=settings.max_upload_bytes,
            on_progress=_Progress(settings, write),
            check=check,
        )
        writer.commit()
    size, name = fetched.size_bytes, normalize("NFC", fetched.filename or job.filename)
    write(filename=name, size_bytes=size, sha256=fetched.sha256, download={"received_bytes": size, "total_bytes": size})


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
