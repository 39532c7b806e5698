"""Jobs of silent workers come back, once, counted for the right cause; one relay at a time sees to it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, text

from config import Settings
from database import transaction
from jobs import claim as claims
from jobs import sweep
from jobs.retry import Cause
from models import Job, Process
from tests.checker import (
    SIBLING,
    WORKER,
    check_invariants,
    expire,
    fail,
    finish,
    job_now,
    letters_of,
    many_jobs,
    new_job,
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


def test_a_lease_that_still_runs_is_left_alone(database: Settings) -> None:
    fence = taken(database)
    assert expire(database) == 0
    assert finish(fence)


def test_a_child_that_died_beside_living_siblings_is_a_loss_and_isolates_its_job(database: Settings) -> None:
    fence = taken(database)
    sign_in(SIBLING)
    worker_falls_silent(fence.job_id)
    assert expire(database) == 1
    job = job_now(fence.job_id)
    assert (job.status, job.losses, job.infra_losses, job.retrying, job.error_code) == ("pending", 1, 0, True, "lost")


@pytest.mark.parametrize("others", [[], [("host:9:3", -600)], [(SIBLING, 600)]], ids=["none", "a stranger", "long ago"])
def test_a_worker_that_died_as_a_whole_is_no_fault_of_its_job(
    database: Settings, others: list[tuple[str, float]]
) -> None:
    fence = taken(database)
    for name, seconds_ago in others:
        sign_in(name, seconds_ago=seconds_ago)
    worker_falls_silent(fence.job_id)
    assert expire(database) == 1
    job = job_now(fence.job_id)
    assert (job.status, job.losses, job.infra_losses, job.retrying) == ("pending", 0, 1, False)
    assert claims.claim(fence.job_id, claimed_by=WORKER, settings=database) is not None  # at once


@pytest.mark.parametrize(("siblings", "tries"), [([SIBLING], 2), ([], 10)], ids=["losses", "deaths of the worker"])
def test_a_job_whose_workers_keep_dying_is_a_dead_letter_after(
    database: Settings, siblings: list[str], tries: int
) -> None:
    job_id = new_job()
    for name in siblings:
        sign_in(name)
    for left in reversed(range(tries)):
        take(job_id, database)
        worker_falls_silent(job_id)
        assert expire(database) == 1
        assert job_now(job_id).status == ("pending" if left else "failed")
        wait_over(job_id)
    (letter,) = letters_of(job_id)
    assert (letter.error_type, letter.attempt, letter.worker) == ("lost", tries, WORKER)


def test_a_job_is_taken_back_once_for_one_silence(database: Settings) -> None:
    fence = taken(database)
    worker_falls_silent(fence.job_id)
    assert [expire(database), expire(database)] == [1, 0]


def test_nothing_is_taken_back_within_a_lease_of_the_start_of_the_database(database: Settings) -> None:
    """Nobody could renew while it was away."""
    fence = taken(database)
    worker_falls_silent(fence.job_id)
    with transaction() as session:
        up_s = session.scalar(select(func.extract("epoch", func.now() - func.pg_postmaster_start_time())))
    with transaction() as session:
        settings = database.model_copy(update={"lease_seconds": float(up_s or 0) + 60})
        assert sweep.expire_leases(session, settings) == 0
    assert finish(fence)


def test_a_lease_that_is_being_renewed_is_not_waited_for(database: Settings) -> None:
    fence = taken(database)
    worker_falls_silent(fence.job_id)
    with transaction() as worker:
        worker.execute(select(Job).where(Job.id == fence.job_id).with_for_update())
        assert expire(database) == 0
        worker.execute(text("UPDATE transcription_jobs SET lease_until = now() + interval '1 h'"))
    assert expire(database) == 0


def test_a_tick_takes_back_no_more_than_its_share(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "EXPIRE_AT_MOST", 5)
    for job_id in many_jobs(7):
        take(job_id, database)
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET lease_until = now() - interval '1 h'"))
    assert [expire(database), expire(database), expire(database)] == [5, 2, 0]


def test_one_relay_leads_and_another_takes_over_when_its_transaction_ends(database: Settings) -> None:
    with transaction() as one, transaction() as two:
        assert sweep.try_lead(one)
        assert not sweep.try_lead(two)
        one.rollback()
        assert sweep.try_lead(two)


def test_processes_that_were_not_seen_for_long_are_forgotten(database: Settings) -> None:
    sign_in("host:1:2")
    sign_in("host:1:3", seconds_ago=2 * sweep.FORGET_PROCESSES_AFTER.total_seconds())
    with transaction() as session:
        sweep.forget_processes(session)
    with transaction() as session:
        assert list(session.scalars(select(Process.id))) == ["host:1:2"]


def test_a_loss_is_recorded_for_the_cause_that_was_found(database: Settings) -> None:
    fence = taken(database)
    assert fail(fence, MemoryError(), database, Cause.LOSS)
    assert (job_now(fence.job_id).losses, job_now(fence.job_id).failures) == (1, 0)
