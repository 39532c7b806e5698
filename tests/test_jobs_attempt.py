"""How an attempt ends: whatever it was becomes a row, and what is no fault of the recording is counted nowhere."""

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

import errors
from audio.split import Window
from config import Settings
from database import transaction
from engines.fake import encode_script
from jobs import attempt, read
from jobs.breaker import Breaker
from models import ErrorLog, Job
from storage import new_key
from tests.checker import WORKER, check_invariants, database_away, events_of, job_now, new_job, sign_in, wait_over
from tests.processes import until
from tests.workplaces import workplace
from transcript import DecodeOptions, Segment


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


@pytest.fixture
def work(database: Settings, tmp_path: Path) -> attempt.Workplace:
    settings = database.model_copy(update={"engine": "fake", "data_dir": tmp_path, "lease_seconds": 3})
    return workplace(settings)


def ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def transcribe(self: attempt._Attempt) -> bool:
        raise error

    monkeypatch.setattr(attempt._Attempt, "transcribe", transcribe)


@pytest.mark.parametrize(
    ("error", "status", "failures", "losses", "retrying"),
    [
        (RuntimeError("x"), "pending", 1, 0, False),
        (errors.EngineError("x"), "pending", 1, 0, False),
        (errors.NoAudioStream("x"), "failed", 1, 0, False),
        (errors.FileMissing("x"), "failed", 1, 0, False),
        (errors.StorageError("x"), "pending", 0, 0, False),
        (errors.StorageAway("x"), "pending", 0, 0, False),
        (errors.StorageFull("x"), "pending", 0, 0, False),
        (OSError(errno.ENOSPC, "x"), "pending", 0, 0, False),
        (errors.ModelUnavailable("x"), "pending", 0, 0, False),
        (errors.DownloadFailed("x"), "pending", 0, 0, False),
        (errors.EngineUnavailable("x"), "pending", 0, 0, False),
        (errors.PoolTimeout("x"), "pending", 0, 0, False),
        (errors.OutOfMemory("x"), "pending", 0, 0, True),
        (MemoryError(), "pending", 0, 1, True),
        (errors.DecoderCrashed("x"), "pending", 0, 1, True),
        (errors.Draining("x"), "pending", 0, 0, False),
        (SystemExit(1), "pending", 0, 0, False),
        (errors.LeaseLost("x"), "pending", 0, 0, False),
        (errors.Unavailable("x"), "pending", 0, 0, False),
    ],
    ids=repr,
)
def test_every_end_of_an_attempt_is_counted_as_what_it_is(
    work: attempt.Workplace,
    monkeypatch: pytest.MonkeyPatch,
    *,
    error: BaseException,
    status: str,
    failures: int,
    losses: int,
    retrying: bool,
) -> None:
    ends_with(error, monkeypatch)
    job_id = new_job()
    attempt.run(job_id, work)
    job = job_now(job_id)
    assert (job.status, job.failures, job.losses, job.retrying) == (status, failures, losses, retrying)
    assert job.infra_losses == 0


def test_a_job_that_failed_halfway_goes_on_where_it_was_and_ends_as_if_nothing_had_happened(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, disturbed = job_of_windows(work), job_of_windows(work)
    attempt.run(undisturbed, work)
    really, calls = attempt._Attempt._recognise, list[int]()

    def recognise(self: attempt._Attempt, group: list[Window]) -> list[Segment]:
        calls.append(round(group[0].start_s))
        if len(calls) == 3:
            raise RuntimeError("only this once")
        return really(self, group)

    monkeypatch.setattr(attempt._Attempt, "_recognise", recognise)
    attempt.run(disturbed, work)
    assert (job_now(disturbed).status, len(segments(disturbed))) == ("pending", 2)
    wait_over(disturbed)
    attempt.run(disturbed, work)
    assert job_now(disturbed).status == "completed"
    assert segments(disturbed) == segments(undisturbed)
    assert calls == sorted(calls)
    assert calls[2] == calls[3]
    assert len(set(calls)) == len(calls) - 1, "nothing was done twice but what had failed"


def job_of_windows(work: attempt.Workplace) -> UUID:
    """Two minutes: windows that say their place."""
    return recorded(work, encode_script({"text": "at"}, seconds=120))


def recorded(work: attempt.Workplace, recording: bytes) -> UUID:
    key = new_key()
    with work.storage.create(key) as writer:
        writer.write(recording)
        writer.commit()
    job_id = new_job(decode=DecodeOptions(vad_filter=False))
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(storage_key=key))
    return job_id


def segments(job_id: UUID) -> list[tuple[float, float, str]]:
    with transaction() as session:
        return [(row.start, row.end, row.text) for row in read.segments(session, job_id)]


def test_a_job_that_was_given_back_for_want_of_the_database_is_not_taken_again_at_once(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(errors.Unavailable("The database is away."), monkeypatch)
    job_id = new_job()
    for _ in range(3):
        attempt.run(job_id, work)
    assert [event.to_status for event in events_of(job_id)] == ["pending", "processing", "pending"]


def test_an_absence_of_the_database_longer_than_the_lease_is_no_loss_of_the_job(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its child lives, and gives the job back as soon as somebody is there to take it."""
    started, noticed = Event(), Event()

    def transcribe(self: attempt._Attempt) -> bool:
        started.set()
        until_s = monotonic() + 20
        while monotonic() < until_s:
            try:
                self._beat.check()
            except errors.LeaseLost:
                noticed.set()
                raise
        raise AssertionError("the lease was never lost")

    monkeypatch.setattr(attempt._Attempt, "transcribe", transcribe)
    sign_in(WORKER)
    job_id = new_job()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(attempt.run, job_id, work)
        assert started.wait(10)
        with database_away():
            assert noticed.wait(20)
        done.result(timeout=20)
    until(lambda: job_now(job_id).status == "pending")
    job = job_now(job_id)
    assert (job.failures, job.losses, job.infra_losses, job.retrying) == (0, 0, 0, False)
    assert events_of(job_id)[-1].detail == {"reason": "lease_lost"}


def test_a_storage_that_is_away_costs_a_job_nothing_and_it_goes_on_when_it_is_back(
    work: attempt.Workplace,
) -> None:
    def probe() -> None:
        work.storage.exists(new_key())

    breaker = Breaker(probe, lambda: False)
    work = replace(work, breaker=breaker)
    job_id = recorded(work, encode_script({"text": "hello"}, 1))
    root, away = work.settings.storage_dir, work.settings.storage_dir.with_name("away")
    root.rename(away)
    root.mkdir()  # a mount point whose volume is not mounted
    with ThreadPoolExecutor(1) as child:
        attempted = child.submit(attempt.run, job_id, work)
        illness = until(lambda: breaker.illness)
        assert illness is not None
        assert illness.code == "storage_away"
        job = job_now(job_id)
        assert (job.status, job.error_code, job.stalled_at is None) == ("pending", "storage_away", False)
        assert (job.failures, job.losses, job.infra_losses) == (0, 0, 0)
        root.rmdir()
        away.rename(root)
        attempted.result(30)
    assert breaker.illness is None, "its probe has succeeded"
    wait_over(job_id)
    attempt.run(job_id, work)
    job = job_now(job_id)
    assert (job.status, job.attempt, job.failures) == ("completed", 2, 0)


def test_what_no_worker_could_do_for_long_is_a_dead_letter_that_says_so(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(errors.ModelUnavailable("Its files are missing."), monkeypatch)
    job_id = new_job()
    attempt.run(job_id, work)
    assert job_now(job_id).status == "pending"
    with transaction() as session:
        session.execute(update(Job).values(stalled_at=func.now() - timedelta(days=1), run_at=func.now()))
    attempt.run(job_id, work)
    job = job_now(job_id)
    assert (job.status, job.failures, job.error_code) == ("failed", 0, "model_unavailable")
    with transaction() as session:
        (letter,) = session.scalars(select(ErrorLog).where(ErrorLog.job_id == job_id))
    assert letter.message == "Its files are missing. (no worker could do it for 86400 s)"


def test_a_segment_whose_number_is_taken_is_never_dropped_in_silence(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = job_of_windows(work)
    save = attempt._Attempt._save

    def count_wrongly(self: attempt._Attempt, *args: Any) -> None:
        save(self, *args)
        self._count = 0

    monkeypatch.setattr(attempt._Attempt, "_save", count_wrongly)
    attempt.run(job_id, work)
    job = job_now(job_id)
    assert (job.status, job.failures, job.error_code) == ("pending", 1, "internal_error")
