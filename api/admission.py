"""Backpressure: whether a recording may come in, decided before the first byte of its body is read."""

from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any

from fastapi import Request

import errors
from config import Settings
from database import transaction
from jobs import read
from storage import Storage

LOOK_EVERY_S = 1.0  # a burst between two looks gets in


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, as last seen."""

    jobs: int
    audio_s: float
    free_bytes: int  # of the store
    trouble: errors.StorageError | None  # of the store, where it cannot say
    at: float


class Admission:
    """One an API process. Counts what waits at most once a second, however many ask."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._lock = Lock()
        self._seen: Backlog | None = None

    def check(self) -> None:
        """Raises Overloaded; Unavailable where the database is away, StorageError where the store is."""
        if trouble := self._backlog().trouble:
            raise type(trouble)(*trouble.args)  # a new one: one object raised in two threads mixes up its tracebacks
        if reason := self._reason():
            raise errors.Overloaded(f"{reason} Try again later.")

    def as_json(self) -> dict[str, Any]:
        seen, reason = self._backlog(), self._reason()
        return {
            "jobs": seen.jobs,
            "audio_seconds": round(seen.audio_s, 1),
            "accepting": reason is None,
            "reason": reason,
        }

    def _reason(self) -> str | None:
        settings, seen = self._settings, self._backlog()
        if settings.max_waiting_jobs and seen.jobs >= settings.max_waiting_jobs:
            return f"{seen.jobs} jobs are waiting, as many as are accepted."
        hours = seen.audio_s / 3600
        if settings.max_waiting_audio_hours and hours >= settings.max_waiting_audio_hours:
            return f"About {hours:.1f} hours of audio are waiting, as much as is accepted."
        if seen.trouble:
            return str(seen.trouble)
        if seen.free_bytes < settings.min_free_disk_mb * 1024**2:
            return "There is hardly any room left to store recordings."
        return None

    def _backlog(self) -> Backlog:
        """One looks at a time. The others go by what was seen before; only the very first look is waited for."""
        seen = self._seen
        if seen is not None and (self._is_fresh(seen) or not self._lock.acquire(blocking=False)):
            return seen
        if seen is None:
            self._lock.acquire()
        try:
            if self._seen is None or not self._is_fresh(self._seen):
                self._seen = self._look()
            return self._seen
        finally:
            self._lock.release()

    def _is_fresh(self, seen: Backlog) -> bool:
        return monotonic() - seen.at <= LOOK_EVERY_S

    def _look(self) -> Backlog:
        with transaction() as session:
            jobs, audio_s = read.backlog(session)
        free_bytes, trouble = 0, None
        try:
            free_bytes = self._storage.free_bytes()
        except errors.StorageError as error:
            trouble = error
        return Backlog(jobs, audio_s, free_bytes, trouble, monotonic())


def admit(request: Request) -> None:
    admission: Admission = request.app.state.admission
    admission.check()
