"""What a job has in storage: its recording, and transcripts that somebody wanted to download from there."""

import uuid

from formats import FORMATS
from storage import Storage, derived_key

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
