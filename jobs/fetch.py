"""A recording that was submitted by its address: fetched into storage, once, before it is decoded."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

from sqlalchemy import func

from config import Settings
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
    size = fetched.size_bytes
    write(size_bytes=size, sha256=fetched.sha256, download={"received_bytes": size, "total_bytes": size})


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
        patience: Any = func.now() + timedelta(seconds=self._settings.deadline_base_seconds)
        self._write(
            download={"received_bytes": received, "total_bytes": total},
            deadline_at=func.greatest(Job.deadline_at, patience),
        )
