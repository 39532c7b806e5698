"""What is cleared away, when, and above all what is not."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import time
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text, update

import errors
from app import create_app
from config import Settings
from database import transaction
from jobs import dead, housekeeping
from jobs.housekeeping import HOUSEKEEPER_LOCK, Housekeeper
from jobs.states import Status
from models import Batch, Job
from storage import Storage, new_key, open_storage
from storage.keys import MARKER
from tests.api_client import WAV
from tests.checker import check_invariants, events_of, everything_about, job_in, job_now, new_job, other_connection

DAY_S = 86_400


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return open_storage(settings)


def record(storage: Storage, settings: Settings, *, days_ago: float = 0) -> str:
    """A recording in storage, of no job."""
    key = new_key()
    with storage.create(key) as writer:
        writer.write(b"sound")
        writer.commit()
    at = time() - days_ago * DAY_S
    os.utime(settings.storage_dir / key, (at, at))
    return key


def job_with_audio(
    settings: Settings, storage: Storage, status: Status, *, days_ago: float = 0, **columns: object
) -> Job:
    job = job_in(status, settings)
    final = {"completed_at": datetime.fromtimestamp(time() - days_ago * DAY_S, UTC)} if status.is_final else {}
    with transaction() as session:
        changes = {"storage_key": record(storage, settings), **final, **columns}
        session.execute(update(Job).where(Job.id == job.id).values(**changes))
    return job_now(job.id)


def is_there(job_id: UUID) -> bool:
    return bool(everything_about(job_id))


def go_round(settings: Settings, storage: Storage, **changes: object) -> Housekeeper:
    housekeeper = Housekeeper(settings.model_copy(update=changes), storage)
    for _ in range(2):  # the first looks which files there are
        housekeeper.go_round()
    return housekeeper


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_job_is_deleted_with_everything_when_its_caller_asked_for_it(
    settings: Settings, storage: Storage, status: Status
) -> None:
    past = datetime.fromtimestamp(time() - 1, UTC)
    due = job_with_audio(settings, storage, status, delete_at=past)
    later = job_with_audio(settings, storage, status, delete_at=datetime.fromtimestamp(time() + 60, UTC))
    housekeeper = go_round(settings, storage)
    assert not is_there(due.id)
    assert not storage.exists(due.storage_key)
    assert is_there(later.id)
    assert storage.exists(later.storage_key)
    assert housekeeper.stats()["deleted_jobs"] == 1


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_the_time_to_deletion_counts_from_the_end_of_the_job(settings: Settings, status: Status) -> None:
    assert job_in(Status.PENDING, settings, delete_after_s=60).delete_at is None
    job = job_in(status, settings, delete_after_s=60)
    assert job.delete_at is not None
    assert job.completed_at is not None
    assert (job.delete_at - job.completed_at).total_seconds() == 60


def test_a_job_that_is_replayed_is_not_deleted(settings: Settings) -> None:
    job = job_in(Status.FAILED, settings, delete_after_s=60)
    with transaction() as session:
        letter = dead.list_errors(session, resolved=False, error_type=None, limit=1, after=None).rows[0]
        dead.replay(session, letter.id)
    assert job_now(job.id).delete_at is None


def test_final_jobs_are_deleted_by_age_where_the_operator_says_so(settings: Settings, storage: Storage) -> None:
    old = job_with_audio(settings, storage, Status.COMPLETED, days_ago=8)
    young = job_with_audio(settings, storage, Status.COMPLETED, days_ago=6)
    go_round(settings, storage)
    assert is_there(old.id), "by default nothing is"
    go_round(settings, storage, retention_days=7)
    assert [is_there(old.id), is_there(young.id)] == [False, True]


def test_an_open_dead_letter_waits_for_its_operator_however_old_it_is(settings: Settings, storage: Storage) -> None:
    job = job_with_audio(settings, storage, Status.FAILED, days_ago=100)
    go_round(settings, storage, retention_days=7)
    assert is_there(job.id)
    with transaction() as session:
        letter = dead.list_errors(session, resolved=False, error_type=None, limit=1, after=None).rows[0]
        dead.resolve(session, letter.id)
    go_round(settings, storage, retention_days=7)
    assert not is_there(job.id)


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
def test_a_job_that_is_not_final_is_never_deleted(settings: Settings, storage: Storage, status: Status) -> None:
    job = job_with_audio(settings, storage, status, delete_at=datetime.fromtimestamp(0, UTC))
    go_round(settings, storage, retention_days=0.00001, event_retention_days=0.00001)
    assert is_there(job.id)
    assert storage.exists(job.storage_key)
    assert events_of(job.id)


def test_a_recording_of_no_job_is_deleted_after_a_day_and_no_other(settings: Settings, storage: Storage) -> None:
    job = job_with_audio(settings, storage, Status.PENDING, created_at=datetime.fromtimestamp(time() - 9 * DAY_S, UTC))
    os.utime(settings.storage_dir / job.storage_key, (time() - 8 * DAY_S,) * 2)
    orphan, young = record(storage, settings, days_ago=2), record(storage, settings, days_ago=0.9)
    housekeeper = go_round(settings, storage)
    assert [storage.exists(key) for key in (orphan, young, job.storage_key)] == [False, True, True]
    assert housekeeper.stats()["deleted_files"] == 1


def test_recordings_of_a_database_used_before_this_one_are_left_alone(settings: Settings, storage: Storage) -> None:
    theirs = record(storage, settings, days_ago=30)
    go_round(settings, storage)
    job_with_audio(settings, storage, Status.PENDING)
    go_round(settings, storage)
    assert storage.exists(theirs)


def test_what_a_killed_upload_left_is_deleted(settings: Settings, storage: Storage) -> None:
    left = settings.storage_dir / f"{new_key()}.0a1b2c3d.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    os.utime(left, (time() - 2 * DAY_S,) * 2)
    go_round(settings, storage)
    assert not left.exists()


def test_the_history_of_jobs_that_have_long_been_final_is_deleted(settings: Settings, storage: Storage) -> None:
    job = job_with_audio(settings, storage, Status.COMPLETED)
    running = job_with_audio(settings, storage, Status.PROCESSING)
    with transaction() as session:
        session.execute(text("UPDATE job_events SET at = at - interval '91 days'"))
    go_round(settings, storage)
    assert events_of(job.id) == []
    assert events_of(running.id)
    with transaction() as session:  # a history that was deleted cannot be checked
        session.execute(text("DELETE FROM transcription_jobs WHERE id = :id"), {"id": job.id})


def test_a_batch_is_deleted_with_its_last_job(settings: Settings, storage: Storage) -> None:
    with transaction() as session:
        batches = [Batch(), Batch()]
        session.add_all(batches)
        session.flush()
        ids = [batch.id for batch in batches]
        session.execute(text("UPDATE batches SET created_at = now() - interval '2 days'"))
    new_job(batch_id=ids[1])
    go_round(settings, storage)
    with transaction() as session:
        assert session.scalars(select(Batch.id)).all() == [ids[1]]


def test_a_round_does_a_bounded_part_and_the_next_one_goes_on(
    settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "JOBS_AT_MOST", 2)
    monkeypatch.setattr(housekeeping, "FILES_AT_MOST", 2)
    job_with_audio(settings, storage, Status.PENDING, created_at=datetime.fromtimestamp(0, UTC))
    orphans = [record(storage, settings, days_ago=2) for _ in range(5)]
    past = datetime.fromtimestamp(1, UTC)
    jobs = [job_with_audio(settings, storage, Status.CANCELLED, delete_at=past) for _ in range(3)]
    housekeeper = Housekeeper(settings, storage)
    left = []
    for _ in range(4):
        housekeeper.go_round()
        left.append((sum(is_there(job.id) for job in jobs), sum(map(storage.exists, orphans))))
    assert [jobs_left for jobs_left, _ in left] == [1, 0, 0, 0]
    assert [files_left for _, files_left in left] == [5, 3, 1, 0]


def test_a_file_that_cannot_be_deleted_keeps_its_job_and_holds_up_no_other(
    settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = datetime.fromtimestamp(1, UTC)
    stuck, other = (job_with_audio(settings, storage, Status.CANCELLED, delete_at=past) for _ in range(2))
    really = storage.delete

    def delete(key: str) -> None:
        if key == stuck.storage_key:
            raise errors.StorageError("The storage failed: read-only file system.")
        really(key)

    monkeypatch.setattr(storage, "delete", delete)
    go_round(settings, storage)
    assert [is_there(stuck.id), is_there(other.id)] == [True, False]
    monkeypatch.undo()
    go_round(settings, storage)
    assert not is_there(stuck.id)


def test_one_housekeeper_works_at_a_time(settings: Settings, storage: Storage) -> None:
    job = job_with_audio(settings, storage, Status.CANCELLED, delete_at=datetime.fromtimestamp(1, UTC))
    with other_connection() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (HOUSEKEEPER_LOCK,))
        assert go_round(settings, storage).stats()["last_run"] is None
        assert is_there(job.id)
        cursor.execute("SELECT pg_advisory_unlock(%s)", (HOUSEKEEPER_LOCK,))
    assert go_round(settings, storage).stats()["last_run"] is not None
    assert not is_there(job.id)


def test_the_folder_of_recordings_may_be_away(settings: Settings, storage: Storage) -> None:
    """Not mounted: nothing is taken for deleted, nothing crashes."""
    job = job_with_audio(settings, storage, Status.COMPLETED)
    settings.storage_dir.rename(Path(f"{settings.storage_dir}-away"))
    go_round(settings, storage)
    assert is_there(job.id)


# Whose store it is


def unmarked(settings: Settings) -> Storage:
    (settings.storage_dir / MARKER).unlink()
    storage = open_storage(settings)
    assert not storage.is_marked()
    return storage


def test_a_new_store_is_adopted_where_no_job_has_a_recording(settings: Settings) -> None:
    storage = unmarked(settings)
    go_round(settings, storage)
    assert storage.is_marked()


def test_a_store_of_an_older_version_is_adopted_for_its_recordings(settings: Settings, storage: Storage) -> None:
    job = job_with_audio(settings, storage, Status.COMPLETED)
    storage = unmarked(settings)
    go_round(settings, storage)
    assert storage.exists(job.storage_key)
    assert storage.is_marked()


def test_a_store_that_lacks_its_recordings_is_not_adopted(settings: Settings, storage: Storage) -> None:
    """An empty mount point, or the store of another service: it is away until the right one is there."""
    job = job_with_audio(settings, storage, Status.COMPLETED)
    settings.storage_dir.rename(away := settings.storage_dir.with_name("away"))
    settings.storage_dir.mkdir()
    keeper = go_round(settings, open_storage(settings))
    assert not open_storage(settings).is_marked()
    settings.storage_dir.rmdir()
    away.rename(settings.storage_dir)
    keeper.go_round()
    assert open_storage(settings).exists(job.storage_key)


@pytest.mark.parametrize("has_jobs", [False, True])
def test_the_api_adopts_a_store_when_it_starts_by_the_same_rule(
    settings: Settings, storage: Storage, has_jobs: bool
) -> None:
    if has_jobs:
        job_with_audio(settings, storage, Status.COMPLETED)
    shutil.rmtree(settings.storage_dir)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        answer = client.post("/transcribe/", files={"file": ("a.wav", WAV)})
    assert (answer.status_code, answer.json().get("code")) == ((503, "storage_away") if has_jobs else (202, None))
