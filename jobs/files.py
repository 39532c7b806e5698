"""What a job has in storage: its recording, and transcripts that somebody wanted to download from there."""

import uuid
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from formats import FORMATS
from models import Job
from storage import Storage, derived_key
from telemetry.events import emit

PLAIN = ("json", *FORMATS)
TRANSCRIPTS = (*PLAIN, *(f"corrected.{name}" for name in PLAIN))


def transcript_key(job_id: uuid.UUID, name: str) -> str:
    return derived_key(job_id, f"transcript.{name}")


def delete_files(storage: Storage, job_id: uuid.UUID, recording_key: str) -> None:
    """Before the commit that deletes the row: a crash in between leaves a row without audio, never the reverse.

    Raises StorageError; what was deleted before stays deleted.
    """
    for name in TRANSCRIPTS:
        storage.delete(transcript_key(job_id, name))
    storage.delete(recording_key)


def adopt(session: Session, storage: Storage) -> bool:
    """Whether the store is ours: it is marked already, or may be marked now.

    A new store is marked where no job has a recording yet, an older one where it holds recordings. Otherwise it is an
    empty mount point, or the wrong store, and stays away. Raises StorageError.
    """
    if storage.is_marked():
        return True
    has_jobs = session.scalar(select(Job.id).where(Job.size_bytes > 0).limit(1)) is not None
    if has_jobs and not _holds_recordings(storage):
        emit("storage.away")
        return False
    storage.mark()
    emit("storage.marked")
    return True


def _holds_recordings(storage: Storage) -> bool:
    first, last = datetime.fromtimestamp(0, UTC), datetime.max.replace(tzinfo=UTC)
    return next(iter(storage.committed_between(first, last)), None) is not None
