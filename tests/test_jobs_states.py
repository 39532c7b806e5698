"""A status changes only along TRANSITIONS, by one writer, and the database refuses what makes no sense."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import errors
from config import Settings
from database import transaction
from jobs.states import EVENTS_CHANNEL, FINAL, NOTIFY_CHANNEL, TRANSITIONS, Status, move
from models import Job
from tests.checker import (
    check_invariants,
    dead_letter_of,
    events_of,
    everything_about,
    finish,
    job_in,
    job_now,
    new_job,
    other_connection,
    taken,
)

NOW = text("now()")
LEASE: dict[str, Any] = {"attempt": 1, "claimed_by": "host:1:2", "lease_until": NOW, "deadline_at": NOW}
ALLOWED = [(from_, to) for from_, to in product(Status, Status) if to in TRANSITIONS[from_]]
FORBIDDEN = [pair for pair in product(Status, Status) if pair not in ALLOWED]


@pytest.fixture
def books(database: Settings) -> Iterator[None]:
    """Asked for by the tests that leave a job in a state it could really be in; the others try single moves."""
    yield
    with transaction() as session:
        check_invariants(session)


def what_goes_with(to: Status) -> dict[str, Any]:
    carried: dict[Status, dict[str, Any]] = {Status.PROCESSING: LEASE, Status.FAILED: {"error_code": "x"}}
    return carried.get(to, {})


def test_the_transitions_are_those_of_the_contract() -> None:
    assert {from_: set(tos) for from_, tos in TRANSITIONS.items()} == {
        "pending": {"processing", "cancelled"},
        "processing": {"completed", "failed", "cancelled", "pending"},
        "failed": {"pending"},
        "completed": set(),
        "cancelled": set(),
    }
    assert {"completed", "failed", "cancelled"} == FINAL == {status for status in Status if status.is_final}


@pytest.mark.parametrize(("from_", "to"), FORBIDDEN)
def test_a_transition_outside_the_table_is_refused_before_the_database_is_asked(from_: Status, to: Status) -> None:
    with pytest.raises(AssertionError, match="This is a bug"):
        move(None, None, from_, to, fence=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("from_", "to"), ALLOWED)
def test_a_transition_of_the_table_is_written_with_one_event(database: Settings, from_: Status, to: Status) -> None:
    before = job_in(from_, database)
    with transaction() as session:
        moved = move(session, before.id, from_, to, fence=before.attempt, detail={"a": 1}, **what_goes_with(to))
    assert moved is not None
    assert moved.status == to == job_now(before.id).status
    event = events_of(before.id)[-1]
    assert (event.from_status, event.to_status, event.attempt, event.detail) == (from_, to, moved.attempt, {"a": 1})


@pytest.mark.parametrize("really", Status)
def test_a_job_that_is_not_where_the_mover_believes_is_not_moved(
    books: None, database: Settings, really: Status
) -> None:
    job = job_in(really, database)
    before = everything_about(job.id)
    with transaction() as session:
        for believed, to in ALLOWED:
            if believed is not really:
                assert move(session, job.id, believed, to, fence=None, **what_goes_with(to)) is None
    assert everything_about(job.id) == before


def test_a_mover_of_another_attempt_is_fenced(books: None, database: Settings) -> None:
    fence = taken(database)
    before = everything_about(fence.job_id)
    with transaction() as session:
        for attempt in (0, 2):
            assert move(session, fence.job_id, Status.PROCESSING, Status.COMPLETED, fence=attempt) is None
    assert everything_about(fence.job_id) == before


def test_a_guard_that_does_not_hold_stops_the_move(books: None, database: Settings) -> None:
    job_id = new_job()
    with transaction() as session:
        assert move(session, job_id, Status.PENDING, Status.CANCELLED, fence=None, guards=(Job.size_bytes > 1,)) is None
    assert job_now(job_id).status == Status.PENDING


def test_who_leaves_processing_gives_up_the_lease(database: Settings) -> None:
    for to in TRANSITIONS[Status.PROCESSING]:
        fence = taken(database)
        with transaction() as session:
            move(session, fence.job_id, Status.PROCESSING, to, fence=1, **what_goes_with(to))
        job = job_now(fence.job_id)
        assert (job.claimed_by, job.lease_until, job.deadline_at) == (None, None, None)
        assert (job.completed_at is not None) == (to in FINAL)


def test_a_job_that_waits_again_has_no_end_and_no_doorbell(books: None, database: Settings) -> None:
    letter = dead_letter_of(database, errors.NoAudioStream("no"))
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET published_at = now()"))
        session.execute(text("UPDATE error_logs SET resolved_at = now(), resolution = 'replayed'"))
        move(session, letter.job_id, Status.FAILED, Status.PENDING, fence=None)
    job = job_now(letter.job_id)
    assert (job.completed_at, job.published_at) == (None, None)


def test_the_relay_is_woken_by_the_commit_of_a_move_and_not_before(books: None, database: Settings) -> None:
    job_id = new_job()
    with other_connection() as cursor:
        cursor.execute(f"LISTEN {NOTIFY_CHANNEL}")
        with transaction() as session:
            move(session, job_id, Status.PENDING, Status.PROCESSING, fence=None, **LEASE)
            session.rollback()
        cursor.execute("SELECT 1")
        assert not cursor.connection.notifies
        with transaction() as session:
            move(session, job_id, Status.PENDING, Status.PROCESSING, fence=None, **LEASE)
        cursor.execute("SELECT 1")
        assert [notice.payload for notice in cursor.connection.notifies] == ["processing"]


def test_a_move_after_which_the_relay_has_nothing_to_do_does_not_wake_it(books: None, database: Settings) -> None:
    with other_connection() as cursor:
        cursor.execute(f"LISTEN {NOTIFY_CHANNEL}")
        finish(taken(database))
        with transaction() as session:
            move(session, new_job(), Status.PENDING, Status.CANCELLED, fence=None)
        cursor.execute("SELECT 1")
        assert {notice.payload for notice in cursor.connection.notifies} == {"pending", "processing"}


def test_every_move_tells_who_watches_the_job(books: None, database: Settings) -> None:
    job_id = new_job()
    with other_connection() as cursor:
        cursor.execute(f"LISTEN {EVENTS_CHANNEL}")
        with transaction() as session:
            move(session, job_id, Status.PENDING, Status.CANCELLED, fence=None)
        cursor.execute("SELECT 1")
        assert [notice.payload for notice in cursor.connection.notifies] == [str(job_id)]


def test_a_move_and_its_event_are_undone_together(books: None, database: Settings) -> None:
    job_id = new_job()
    before = everything_about(job_id)
    with transaction() as session:
        move(session, job_id, Status.PENDING, Status.CANCELLED, fence=None)
        session.rollback()
    assert everything_about(job_id) == before


NONSENSE = [
    ("status", "status = 'paused'"),
    ("lease", "status = 'processing', attempt = 1"),
    ("lease", "lease_until = now(), deadline_at = now(), claimed_by = 'x'"),
    ("final", "status = 'completed'"),
    ("final", "completed_at = now()"),
    ("attempt", "status = 'processing', lease_until = now(), deadline_at = now(), claimed_by = 'x'"),
    ("failed_says_why", "status = 'failed', completed_at = now()"),
    ("progress", "progress = 100.1"),
    ("progress", "progress = -1"),
    ("priority", "priority = 'urgent'"),
    ("task", "task = 'sing'"),
    ("size", "size_bytes = 0"),
]


def test_the_database_refuses_a_job_that_makes_no_sense(books: None, database: Settings) -> None:
    new_job()
    for constraint, change in NONSENSE:
        with pytest.raises(IntegrityError, match=f"ck_transcription_jobs_{constraint}"), transaction() as session:
            session.execute(text(f"UPDATE transcription_jobs SET {change}"))  # noqa: S608


def test_the_database_refuses_a_second_open_dead_letter(books: None, database: Settings) -> None:
    dead_letter_of(database, errors.NoAudioStream("no"))
    copy = """INSERT INTO error_logs SELECT other.* FROM error_logs letter, jsonb_populate_record(
        letter, jsonb_build_object('id', gen_random_uuid())) other"""
    with pytest.raises(IntegrityError, match="uq_error_logs_open_job"), transaction() as session:
        session.execute(text(copy))


def test_the_database_refuses_a_second_result(books: None, database: Settings) -> None:
    job = job_in(Status.COMPLETED, database)
    copy = "INSERT INTO transcription_results SELECT * FROM transcription_results WHERE job_id = :id"
    with pytest.raises(IntegrityError, match="pk_transcription_results"), transaction() as session:
        session.execute(text(copy), {"id": job.id})
