"""Dead letters: each can be listed, replayed with every original parameter, or dismissed, and nothing happens twice."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

import errors
from config import Settings
from database import transaction
from jobs import cancel, dead
from jobs.states import Status
from jobs.submit import decode_options
from models import ErrorLog, Job
from tests.checker import (
    check_invariants,
    dead_letter_of,
    events_of,
    fail,
    finish,
    job_now,
    letters_of,
    new_job,
    take,
)
from transcript import DecodeOptions

NO_SOUND = errors.NoAudioStream("There is no sound in it.")


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


def replay(letter: ErrorLog) -> Job:
    with transaction() as session:
        return dead.replay(session, letter.id)


def dismiss(letter: ErrorLog) -> ErrorLog:
    with transaction() as session:
        return dead.resolve(session, letter.id)


def test_a_replay_puts_the_job_back_with_fresh_counters_and_the_attempt_goes_on(database: Settings) -> None:
    letter = dead_letter_of(database, NO_SOUND)
    job = replay(letter)
    assert (job.status, job.failures, job.losses, job.infra_losses, job.retrying) == ("pending", 0, 0, 0, False)
    assert (job.attempt, job.error_code, job.error_message) == (1, None, None)
    assert [(old.resolution, old.resolved_at is not None) for old in letters_of(job.id)] == [("replayed", True)]
    assert events_of(job.id)[-1].detail == {"reason": "replayed", "error_id": str(letter.id)}
    again = take(job.id, database)
    assert again.fence.attempt == 2
    assert finish(again.fence)


def test_a_replay_asks_for_exactly_what_was_asked_the_first_time(database: Settings) -> None:
    asked = DecodeOptions("de", "translate", word_timestamps=True, initial_prompt="p", hotwords="h", temperature=0.4)
    job_id = new_job(model_size="small", priority="high", decode=asked, metadata={"a": [1]})
    before = job_now(job_id)
    fail(take(job_id, database).fence, NO_SOUND, database)
    after = replay(letters_of(job_id)[0])
    for name in ("filename", "storage_key", "sha256", "model_size", "priority", "meta", "created_at"):
        assert getattr(after, name) == getattr(before, name)
    assert decode_options(after) == asked


def test_a_second_replay_of_a_letter_is_refused(database: Settings) -> None:
    letter = dead_letter_of(database, NO_SOUND)
    replay(letter)
    with pytest.raises(errors.Conflict, match="not failed any more"):
        replay(letter)


def test_an_old_letter_cannot_replay_a_later_failure(database: Settings) -> None:
    letter = dead_letter_of(database, NO_SOUND)
    replay(letter)
    fail(take(letter.job_id, database).fence, NO_SOUND, database)
    with pytest.raises(errors.Conflict):
        replay(letter)
    first, second = letters_of(letter.job_id)
    assert (first.resolution, second.resolution) == ("replayed", None)
    assert replay(second).status == Status.PENDING


def test_two_replays_at_once_of_a_letter_are_one(database: Settings) -> None:
    start = Barrier(2)

    def race(letter: ErrorLog) -> str:
        start.wait(10)
        try:
            return replay(letter).status
        except errors.Conflict:
            return "conflict"

    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            letter = dead_letter_of(database, NO_SOUND)
            tries = [threads.submit(race, letter) for _ in range(2)]
            assert sorted(attempt.result() for attempt in tries) == ["conflict", "pending"]


def test_a_replay_of_one_and_a_replay_of_all_at_once_do_not_lock_each_other_out(database: Settings) -> None:
    start = Barrier(2)

    def one(letter: ErrorLog) -> None:
        start.wait(10)
        replay(letter)

    def every() -> list[uuid.UUID]:
        start.wait(10)
        with transaction() as session:
            return dead.replay_matching(session, error_type=None, limit=10)

    with ThreadPoolExecutor(2) as threads:
        for _ in range(30):
            letters = [dead_letter_of(database, NO_SOUND) for _ in range(3)]
            single, all_at_once = threads.submit(one, letters[2]), threads.submit(every)
            assert single.exception(30) is None or isinstance(single.exception(), errors.Conflict)
            assert set(all_at_once.result(30)) >= {letter.job_id for letter in letters[:2]}


def test_a_letter_that_does_not_exist_is_not_found(database: Settings) -> None:
    for action in (dead.replay, dead.resolve, dead.get_error):
        with pytest.raises(errors.NotFound), transaction() as session:
            action(session, uuid.uuid4())


def test_a_dismissed_letter_is_closed_and_its_job_stays_failed(database: Settings) -> None:
    letter = dead_letter_of(database, NO_SOUND)
    closed = dismiss(letter)
    assert (closed.resolution, job_now(letter.job_id).status) == ("dismissed", Status.FAILED)
    assert dismiss(letter).resolved_at == closed.resolved_at  # a second time is a no-op


def test_a_dismissed_letter_can_still_be_replayed_and_then_says_so(database: Settings) -> None:
    letter = dead_letter_of(database, NO_SOUND)
    dismiss(letter)
    assert replay(letter).status == Status.PENDING
    assert [old.resolution for old in letters_of(letter.job_id)] == ["replayed"]


def test_many_letters_are_replayed_oldest_first_by_kind_and_within_a_limit(database: Settings) -> None:
    silent = [dead_letter_of(database, NO_SOUND) for _ in range(3)]
    gone = dead_letter_of(database, errors.FileMissing("It is gone."))
    with transaction() as session:
        replayed = dead.replay_matching(session, error_type="no_audio_stream", limit=2)
    assert replayed == [letter.job_id for letter in silent[:2]]
    with transaction() as session:
        assert set(dead.replay_matching(session, error_type=None, limit=10)) == {silent[2].job_id, gone.job_id}


def test_letters_are_listed_newest_first_page_by_page_and_by_what_they_are(database: Settings) -> None:
    letters = [dead_letter_of(database, NO_SOUND) for _ in range(4)]
    gone = dead_letter_of(database, errors.FileMissing("It is gone."))
    dismiss(letters[0])
    assert listed() == [letter.id for letter in (gone, *reversed(letters))]
    assert listed(resolved=True) == [letters[0].id]
    assert listed(resolved=False) == [letter.id for letter in (gone, *reversed(letters[1:]))]
    assert listed(error_type="file_missing") == [gone.id]


def listed(*, resolved: bool | None = None, error_type: str | None = None) -> list[uuid.UUID]:
    """All pages, two at a time."""
    found: list[uuid.UUID] = []
    while True:
        with transaction() as session:
            after = found[-1] if found else None
            page = dead.list_errors(session, resolved=resolved, error_type=error_type, limit=2, after=after)
        found += [letter.id for letter in page.rows]
        if not page.has_more:
            return found


def test_letters_that_are_purged_while_they_are_read_leave_no_gap(database: Settings) -> None:
    letters = [dead_letter_of(database, NO_SOUND) for _ in range(4)]
    with transaction() as session:
        cancel.purge(session, letters[2].job_id)
    with transaction() as session:
        page = dead.list_errors(session, resolved=None, error_type=None, limit=2, after=letters[2].id)
    assert [letter.id for letter in page.rows] == [letters[1].id, letters[0].id]


def test_the_operator_is_told_of_a_letter_once(database: Settings) -> None:
    letter = dead_letter_of(database, NO_SOUND)
    with transaction() as session:
        assert dead.unnotified(session, limit=5) == [letter.id]
        assert dead.mark_notified(session, letter.id) is not None
    with transaction() as session:
        assert dead.unnotified(session, limit=5) == []
        assert dead.mark_notified(session, letter.id) is None
