"""How an attempt ends: whatever it was becomes a row, and what is no fault of the recording is counted nowhere."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

import errors
from config import Settings
from database import transaction
from engines import open_engine
from jobs import attempt
from model_pool import ModelPool
from storage import open_storage
from tests.checker import WORKER, check_invariants, database_away, events_of, job_now, new_job, sign_in
from tests.processes import until


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


@pytest.fixture
def work(database: Settings, tmp_path: Path) -> attempt.Workplace:
    settings = database.model_copy(update={"engine": "fake", "data_dir": tmp_path, "lease_seconds": 3})
    pool = ModelPool(open_engine(settings), size=1, max_size=1)
    return attempt.Workplace(settings, open_storage(settings), pool, 1, WORKER, lambda: False)


def ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def transcribe(self: attempt._Attempt) -> bool:
        raise error

    monkeypatch.setattr(attempt._Attempt, "transcribe", transcribe)


@pytest.mark.parametrize(
    ("error", "status", "failures", "losses", "retrying"),
    [
        (RuntimeError("x"), "pending", 1, 0, True),
        (errors.EngineError("x"), "pending", 1, 0, True),
        (errors.NoAudioStream("x"), "failed", 1, 0, False),
        (errors.ModelUnavailable("x"), "failed", 1, 0, False),
        (errors.DownloadFailed("x"), "pending", 1, 0, True),
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
