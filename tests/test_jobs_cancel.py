"""A cancel stops a job that is not final, a finish that came first wins, and a final job can be deleted."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select

import errors
from config import Settings
from database import transaction
from jobs import cancel as cancels
from jobs import claim as claims
from jobs.progress import Fence
from jobs.states import Status
from models import ErrorLog, Job, JobEvent, Result
from tests.checker import (
    WORKER,
    check_invariants,
    everything_about,
    expire,
    fail,
    finish,
    job_in,
    job_now,
    new_job,
    take,
    taken,
    worker_falls_silent,
)


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


def cancel(job_id: uuid.UUID) -> bool:
    """False: it was final already."""
    try:
        with transaction() as session:
            cancels.cancel(session, job_id)
    except errors.Conflict:
        return False
    return True


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
def test_a_job_that_is_not_final_is_cancelled_at_once(database: Settings, status: Status) -> None:
    job = job_in(status, database)
    assert cancel(job.id)
    cancelled = job_now(job.id)
    assert (cancelled.status, cancelled.claimed_by) == (Status.CANCELLED, None)
    assert cancelled.completed_at is not None


def test_a_job_that_waits_for_its_next_try_is_cancelled(database: Settings) -> None:
    fence = taken(database)
    fail(fence, RuntimeError("x"), database)
    assert cancel(fence.job_id)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_final_job_stays_as_it_is(database: Settings, status: Status) -> None:
    job = job_in(status, database)
    before = everything_about(job.id)
    assert not cancel(job.id)
    assert everything_about(job.id) == before


def test_a_job_that_does_not_exist_is_not_found(database: Settings) -> None:
    for action in (cancels.cancel, cancels.purge):
        with pytest.raises(errors.NotFound), transaction() as session:
            action(session, uuid.uuid4())


def test_nothing_is_written_for_a_job_after_its_cancel(database: Settings) -> None:
    fence = taken(database)
    cancel(fence.job_id)
    before = everything_about(fence.job_id)
    assert not finish(fence)
    assert not fail(fence, RuntimeError("x"), database)
    assert not claims.release(fence, reason="drained", patience_s=1)
    assert claims.claim(fence.job_id, claimed_by=WORKER, settings=database) is None
    assert everything_about(fence.job_id) == before


def race(
    rounds: int, prepare: Callable[[], Fence], *rivals: Callable[[Fence], bool]
) -> Iterator[tuple[Fence, list[bool]]]:
    """Each round: what the rivals answered who were let go at the same moment."""
    start = Barrier(len(rivals))

    def run(rival: Callable[[Fence], bool], fence: Fence) -> bool:
        start.wait(10)
        return rival(fence)

    with ThreadPoolExecutor(len(rivals)) as threads:
        for _ in range(rounds):
            fence = prepare()
            yield fence, [answer.result(30) for answer in [threads.submit(run, rival, fence) for rival in rivals]]


def test_of_a_cancel_and_a_finish_at_once_exactly_one_wins_a_hundred_times(database: Settings) -> None:
    for fence, answers in race(100, lambda: taken(database), lambda fence: cancel(fence.job_id), finish):
        assert sorted(answers) == [False, True]
        assert job_now(fence.job_id).status == (Status.CANCELLED if answers[0] else Status.COMPLETED)


def test_a_cancel_at_the_moment_of_a_claim_always_wins(database: Settings) -> None:
    def claim(fence: Fence) -> bool:
        return claims.claim(fence.job_id, claimed_by=WORKER, settings=database) is not None

    for fence, answers in race(30, lambda: Fence(new_job(), 1), lambda fence: cancel(fence.job_id), claim):
        assert answers[0]
        assert job_now(fence.job_id).status == Status.CANCELLED


def test_a_cancel_at_the_moment_when_the_job_is_given_back_always_wins(database: Settings) -> None:
    def release(fence: Fence) -> bool:
        return claims.release(fence, reason="drained", patience_s=1)

    for fence, answers in race(30, lambda: taken(database), lambda fence: cancel(fence.job_id), release):
        assert answers[0]
        assert job_now(fence.job_id).status == Status.CANCELLED


def test_a_finish_at_the_moment_when_the_lease_is_taken_back_is_the_end_or_nothing(database: Settings) -> None:
    def prepare() -> Fence:
        fence = taken(database)
        worker_falls_silent(fence.job_id)
        return fence

    for fence, (finished, expired) in race(30, prepare, finish, lambda _: bool(expire(database))):
        assert finished != expired
        assert job_now(fence.job_id).status == (Status.COMPLETED if finished else Status.PENDING)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_final_job_is_deleted_with_its_text_its_history_and_its_letters(database: Settings, status: Status) -> None:
    job = job_in(status, database)
    with transaction() as session:
        assert cancels.purge(session, job.id) == job.storage_key
    with transaction() as session:
        for table in (Job, Result, JobEvent, ErrorLog):
            assert session.scalar(select(func.count()).select_from(table)) == 0


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
def test_a_job_that_is_not_final_is_not_deleted(database: Settings, status: Status) -> None:
    job = job_in(status, database)
    with pytest.raises(errors.Conflict, match="Cancel it first"), transaction() as session:
        cancels.purge(session, job.id)
    assert job_now(job.id).status == status


def test_a_worker_whose_job_was_deleted_cannot_write(database: Settings) -> None:
    fence = taken(database)
    cancel(fence.job_id)
    with transaction() as session:
        cancels.purge(session, fence.job_id)
    assert not finish(fence)
    assert not fail(fence, RuntimeError("x"), database)
    assert not claims.release(fence, reason="drained", patience_s=1)
    assert claims.claim(fence.job_id, claimed_by=WORKER, settings=database) is None
    assert everything_about(fence.job_id) == []


def test_a_cancelled_job_can_be_taken_by_nobody(database: Settings) -> None:
    job_id = new_job()
    cancel(job_id)
    with pytest.raises(AssertionError, match="could not be claimed"):
        take(job_id, database)
