"""A claim counts before any work, one of many wins, and who lost the job cannot write."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import errors
from config import Settings
from database import transaction
from jobs import claim as claims
from jobs import read
from jobs.attempt import _Attempt
from jobs.progress import Fence
from jobs.retry import Cause
from jobs.states import Status
from tests.checker import (
    WORKER,
    check_invariants,
    events_of,
    everything_about,
    expire,
    fail,
    finish,
    job_in,
    job_now,
    letters_of,
    new_job,
    other_connection,
    result_of,
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


def second_attempt(settings: Settings) -> tuple[Fence, Fence]:
    """A worker that fell silent, and the one that has its job now."""
    first = taken(settings)
    worker_falls_silent(first.job_id)
    assert expire(settings) == 1
    wait_over(first.job_id)
    return first, take(first.job_id, settings).fence


def test_a_claim_is_counted_and_committed_before_any_work_is_done(database: Settings) -> None:
    job_id = new_job()
    claimed = take(job_id, database)
    with other_connection() as cursor:
        cursor.execute("SELECT status, attempt, claimed_by, deadline_at > lease_until FROM transcription_jobs")
        assert cursor.fetchall() == [("processing", 1, WORKER, True)]
    assert claimed.fence == Fence(job_id, 1)
    assert events_of(job_id)[-1].detail == {"claimed_by": WORKER}


def test_a_claim_holds_for_a_lease_and_may_last_as_long_as_the_settings_say(database: Settings) -> None:
    settings = database.model_copy(update={"lease_seconds": 7, "deadline_base_seconds": 50})
    job = take(new_job(), settings).job
    assert job.started_at is not None
    assert job.lease_until == job.started_at + timedelta(seconds=7)
    assert job.deadline_at == job.started_at + timedelta(seconds=50)


def test_of_two_claims_at_once_one_wins_fifty_times(database: Settings) -> None:
    start = Barrier(2)

    def race(job_id: uuid.UUID, worker: str) -> claims.Claim | None:
        start.wait(10)
        return claims.claim(job_id, claimed_by=worker, settings=database)

    with ThreadPoolExecutor(2) as threads:
        for _ in range(50):
            job_id = new_job()
            tries = [threads.submit(race, job_id, worker) for worker in ("host:1:2", "host:1:3")]
            winners = [claimed for attempt in tries if (claimed := attempt.result()) is not None]
            job = job_now(job_id)
            assert len(winners) == 1
            assert (job.attempt, job.claimed_by) == (1, winners[0].job.claimed_by)


def test_a_doorbell_that_rings_twice_is_a_no_op(database: Settings) -> None:
    fence = taken(database)
    before = everything_about(fence.job_id)
    assert claims.claim(fence.job_id, claimed_by=WORKER, settings=database) is None
    assert everything_about(fence.job_id) == before


def test_only_a_waiting_job_can_be_claimed(database: Settings) -> None:
    for status in set(Status) - {Status.PENDING}:
        job = job_in(status, database)
        before = everything_about(job.id)
        assert claims.claim(job.id, claimed_by=WORKER, settings=database) is None
        assert everything_about(job.id) == before


def test_a_doorbell_for_a_job_that_is_gone_is_a_no_op(database: Settings) -> None:
    assert claims.claim(uuid.uuid4(), claimed_by=WORKER, settings=database) is None


def test_a_job_that_is_not_due_is_not_claimed(database: Settings) -> None:
    job_id = new_job()
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET run_at = now() + interval '10 s'"))
    assert claims.claim(job_id, claimed_by=WORKER, settings=database) is None
    wait_over(job_id)
    assert claims.claim(job_id, claimed_by=WORKER, settings=database) is not None


def test_the_first_start_of_a_job_is_remembered_over_its_attempts(database: Settings) -> None:
    first, second = second_attempt(database)
    assert second.attempt == 2
    started = [event.at for event in events_of(first.job_id) if event.to_status == Status.PROCESSING]
    assert job_now(first.job_id).started_at == started[0]


def checkpoint(fence: Fence, settings: Settings) -> bool:
    """Of an attempt that has nothing but its fence."""
    row = {"job_id": fence.job_id, "number": 0, "start": 0, "end": 1, "text": "stale", "tokens": [], "words": None}
    measures = dict.fromkeys(("avg_logprob", "no_speech_prob", "compression_ratio", "temperature"), 0.0)
    mine: Any = SimpleNamespace(_fence=fence, _work=SimpleNamespace(settings=settings))
    try:
        _Attempt._write(mine, [{**row, **measures}], position_s=1.0)
    except errors.LeaseLost:
        return False
    return True


WRITES: dict[str, Callable[[Fence, Settings], bool]] = {
    "finish": lambda fence, _: finish(fence, "stale"),
    "fail": lambda fence, settings: fail(fence, RuntimeError("stale"), settings),
    "fail for good": lambda fence, settings: fail(fence, errors.NoAudioStream("stale"), settings),
    "release": lambda fence, _: claims.release(fence, reason="drained", patience_s=1),
    "checkpoint": checkpoint,
}


@pytest.mark.parametrize("write", WRITES)
def test_a_worker_whose_attempt_is_old_cannot(database: Settings, write: str) -> None:
    first, second = second_attempt(database)
    before = everything_about(first.job_id)
    assert WRITES[write](first, database) is False
    assert everything_about(first.job_id) == before
    assert finish(second)


def test_a_worker_whose_job_waits_again_can_write_nothing_more(database: Settings) -> None:
    fence = taken(database)
    assert claims.release(fence, reason="drained", patience_s=1)
    before = everything_about(fence.job_id)
    for write in WRITES.values():
        assert write(fence, database) is False
    assert everything_about(fence.job_id) == before


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
def test_an_attempt_that_has_ended_can_write_nothing_more(database: Settings, status: Status) -> None:
    job = job_in(status, database)
    before = everything_about(job.id)
    for write in WRITES.values():
        assert write(Fence(job.id, job.attempt), database) is False
    assert everything_about(job.id) == before


def test_a_checkpoint_of_the_running_attempt_is_kept(database: Settings) -> None:
    fence = taken(database)
    assert checkpoint(fence, database)
    with transaction() as session:
        assert [row.text for row in read.segments(session, fence.job_id)] == ["stale"]
    assert job_now(fence.job_id).position_s == 1


def test_a_finish_writes_status_and_result_together(database: Settings) -> None:
    fence = taken(database)
    assert finish(fence, "good morning")
    with transaction() as session:
        result = read.get_result(session, fence.job_id)
    job = job_now(fence.job_id)
    assert result is not None
    assert (result.text, result.word_count, result.attempt) == ("good morning", 2, 1)
    assert (job.status, job.progress, job.error_code) == ("completed", 100, None)


def test_a_result_that_cannot_be_written_leaves_the_job_running(database: Settings) -> None:
    fence = taken(database)
    result = result_of(fence)
    result.text = None  # type: ignore[assignment]
    before = everything_about(fence.job_id)
    with pytest.raises(IntegrityError):
        claims.finish(fence, result, patience_s=1)
    assert everything_about(fence.job_id) == before


def test_a_job_that_is_given_back_was_not_tried_and_can_be_taken_at_once(database: Settings) -> None:
    fence = taken(database)
    assert claims.release(fence, reason="drained", patience_s=1)
    job = job_now(fence.job_id)
    assert (job.status, job.failures, job.losses, job.infra_losses, job.retrying) == ("pending", 0, 0, 0, False)
    assert take(fence.job_id, database).fence.attempt == 2


def test_a_failure_waits_a_while_and_stays_in_its_own_queue(database: Settings) -> None:
    fence = taken(database)
    assert fail(fence, RuntimeError("x"), database)
    job = job_now(fence.job_id)
    assert (job.status, job.failures, job.retrying, job.error_code) == ("pending", 1, False, "internal_error")
    since = events_of(fence.job_id)[-1].at
    assert since <= job.run_at <= since + timedelta(seconds=database.retry_base_seconds)
    assert not letters_of(fence.job_id)


@pytest.mark.parametrize(
    ("error", "cause", "tries", "code"),
    [
        (RuntimeError("x"), Cause.FAILURE, 5, "internal_error"),
        (MemoryError(), Cause.LOSS, 2, "out_of_memory"),
        (errors.UndecodableAudio("It is no recording."), Cause.FAILURE, 1, "undecodable_audio"),
        (errors.FileMissing("It is gone."), Cause.FAILURE, 1, "file_missing"),
    ],
)
def test_a_job_is_a_dead_letter_after(
    database: Settings, error: BaseException, cause: Cause, tries: int, code: str
) -> None:
    job_id = new_job()
    for left in reversed(range(tries)):
        wait_over(job_id)
        assert fail(take(job_id, database).fence, error, database, cause)
        assert job_now(job_id).status == ("pending" if left else "failed")
    (letter,) = letters_of(job_id)
    assert (letter.error_type, letter.attempt, letter.worker, letter.resolved_at) == (code, tries, WORKER, None)
    assert letter.failures + letter.losses == tries
    assert type(error).__name__ in (letter.stack_trace or "")
    assert job_now(job_id).error_code == code


def test_a_success_after_a_failure_is_no_error(database: Settings) -> None:
    fence = taken(database)
    fail(fence, RuntimeError("x"), database)
    wait_over(fence.job_id)
    assert finish(take(fence.job_id, database).fence)
    job = job_now(fence.job_id)
    assert (job.error_code, job.error_message, job.failures) == (None, None, 1)


def test_the_text_of_a_foreign_error_is_for_the_operator_only(database: Settings) -> None:
    for error in (RuntimeError("/srv/secret.wav"), OSError(13, "secret", "/srv/secret"), KeyError("secret")):
        fence = taken(database)
        fail(fence, error, database.model_copy(update={"max_failures": 1}))
        (letter,) = letters_of(fence.job_id)
        details = [event.detail for event in events_of(fence.job_id)]
        assert "secret" not in f"{job_now(fence.job_id).error_message} {letter.message} {details}"
        assert type(error).__name__ in (letter.stack_trace or "")


def test_what_callers_are_told_has_an_end(database: Settings) -> None:
    assert len(claims.describe(errors.EngineError("x" * 10_000)).message) == claims.MAX_MESSAGE


@pytest.mark.parametrize("message", ["a\0b", "\ud800"], ids=["NUL", "half a surrogate"])
def test_a_failure_is_recorded_whatever_its_text_holds(database: Settings, message: str) -> None:
    """PostgreSQL cannot store these: the failure must still be counted, or the job is taken for lost."""
    fence = taken(database)
    assert fail(fence, errors.EngineError(message), database.model_copy(update={"max_failures": 1}))
    assert letters_of(fence.job_id)


def test_a_network_timeout_is_not_called_a_passed_deadline(database: Settings) -> None:
    assert claims.describe(TimeoutError("timed out")).code != "hung"
