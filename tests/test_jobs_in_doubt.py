"""A COMMIT whose reply is lost may or may not have happened: reading the row tells, and nothing is written twice."""

from collections.abc import Iterator

import pytest

import errors
from config import Settings
from database import transaction
from jobs import claim as claims
from jobs.cancel import cancel
from jobs.states import Status
from tests.checker import (
    WORKER,
    check_invariants,
    commits_cut,
    database_away,
    events_of,
    expire,
    fail,
    finish,
    job_now,
    letters_of,
    new_job,
    result_of,
    sign_in,
    take,
    taken,
    wait_over,
    worker_falls_silent,
)


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


in_doubt = pytest.mark.parametrize("after", [False, True], ids=["the COMMIT never arrived", "only its reply was lost"])


@in_doubt
def test_a_finish_in_doubt_is_written_once(database: Settings, after: bool) -> None:
    fence = taken(database)
    with commits_cut(after=after) as cuts:
        assert finish(fence)
    assert cuts
    assert job_now(fence.job_id).status == Status.COMPLETED


@in_doubt
def test_a_failure_in_doubt_is_counted_once(database: Settings, after: bool) -> None:
    fence = taken(database)
    with commits_cut(after=after) as cuts:
        assert fail(fence, RuntimeError("x"), database)
    job = job_now(fence.job_id)
    assert cuts
    assert (job.status, job.failures) == (Status.PENDING, 1)


@in_doubt
def test_a_death_in_doubt_makes_one_dead_letter(database: Settings, after: bool) -> None:
    fence = taken(database)
    with commits_cut(after=after):
        assert fail(fence, errors.NoAudioStream("no"), database)
    assert len(letters_of(fence.job_id)) == 1


@in_doubt
def test_a_release_in_doubt_gives_the_job_back(database: Settings, after: bool) -> None:
    fence = taken(database)
    with commits_cut(after=after):
        assert claims.release(fence, reason="drained", patience_s=5)
    assert [event.to_status for event in events_of(fence.job_id)] == ["pending", "processing", "pending"]


def test_a_write_in_doubt_of_which_nothing_came_does_not_count_a_success_of_somebody_else(database: Settings) -> None:
    """The connection is cut, and before the second try the job is taken back, taken, and finished by another."""
    fence = taken(database)

    def meanwhile() -> None:
        worker_falls_silent(fence.job_id)
        assert expire(database) == 1
        wait_over(fence.job_id)
        assert finish(take(fence.job_id, database).fence, "theirs")

    def write(session: object) -> bool:
        tries.append(1)
        if len(tries) == 1:
            meanwhile()
            raise errors.Unavailable("cut")
        return False

    tries: list[int] = []
    assert claims._durably(fence, {Status.COMPLETED}, write, 5) is False


def test_a_write_that_never_arrived_and_then_a_cancel_is_no_success(database: Settings) -> None:
    fence = taken(database)
    tries: list[int] = []

    def write(session: object) -> bool:
        tries.append(1)
        if len(tries) == 1:
            with transaction() as other:
                cancel(other, fence.job_id)
            raise errors.Unavailable("cut")
        return False

    assert claims._durably(fence, {Status.PENDING, Status.FAILED}, write, 5) is False


def test_a_database_that_stays_away_longer_than_the_patience_is_left_to_the_lease(database: Settings) -> None:
    fence = taken(database)
    with database_away():
        assert claims.finish(fence, result_of(fence), patience_s=0) is False
    assert job_now(fence.job_id).status == Status.PROCESSING


def test_a_claim_in_doubt_costs_the_job_nothing(database: Settings) -> None:
    """The child lives and works on; only the reply to its claim was lost. That is no crash of the recording's doing."""
    job_id = new_job()
    sign_in(WORKER)
    with commits_cut(after=True):
        try:
            claimed = claims.claim(job_id, claimed_by=WORKER, settings=database)
        except errors.Unavailable:
            claimed = None
    if claimed is None:
        worker_falls_silent(job_id)
        expire(database)
    assert job_now(job_id).losses == 0
