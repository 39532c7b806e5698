"""With a long history in every table no question that is asked all the time reads a table from end to end."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from config import Settings
from database import get_engine, transaction
from jobs import dead, housekeeping, idempotency, read, waiting
from jobs.housekeeping import Housekeeper
from jobs.states import Status
from models import Batch, Job
from storage import open_storage
from tests.checker import new_job

JOBS = 20_000  # so many that PostgreSQL reads an index wherever there is a fitting one
FILL = """
    INSERT INTO batches (id, created_at)
      SELECT gen_random_uuid(), now() - interval '3 days' FROM generate_series(1, :jobs);
    INSERT INTO transcription_jobs (id, batch_id, filename, storage_key, size_bytes, sha256, model_size, status,
        completed_at)
      SELECT gen_random_uuid(), id, 'a', id::text, 1, '', 'tiny', 'completed', now() FROM batches;
    INSERT INTO transcription_results (job_id, attempt, text, duration, word_count, processing_s, created_at)
      SELECT id, 1, 'said', 10, 1, 2, now() - random() * interval '3 days' FROM transcription_jobs;
    INSERT INTO transcript_segments (job_id, number, start, "end", text, avg_logprob, no_speech_prob, compression_ratio,
        temperature, tokens)
      SELECT id, 0, 0, 1, 'said', 0, 0, 1, 0, '{}' FROM transcription_jobs;
    INSERT INTO job_events (job_id, attempt, to_status) SELECT id, 0, 'pending' FROM transcription_jobs;
    INSERT INTO error_logs (id, job_id, attempt, error_type, message, failures, losses, infra_losses, notified_at,
        resolved_at, resolution)
      SELECT gen_random_uuid(), id, 1, 'lost', '', 0, 0, 0, now(), now(), 'dismissed' FROM transcription_jobs;
    INSERT INTO idempotency_keys (owner, key, fingerprint) SELECT '', id::text, '' FROM transcription_jobs;"""
LONG = {
    "batches", "transcription_jobs", "transcription_results", "transcript_segments", "job_events", "error_logs",
    "idempotency_keys",
}  # fmt: skip


@pytest.fixture
def history(database: Settings) -> Settings:
    with transaction() as session:
        session.execute(text(FILL), {"jobs": JOBS})
    with get_engine().execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"VACUUM ANALYZE {', '.join(sorted(LONG))}")
    return database


def read_whole(ask: Callable[[Session], object]) -> set[str]:
    """The tables that a question reads from end to end, by PostgreSQL's plans."""
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        asked.append((statement, parameters))

    with transaction() as session:
        event.listen(get_engine(), "before_cursor_execute", note)
        try:
            ask(session)
        finally:
            event.remove(get_engine(), "before_cursor_execute", note)
        plans = [session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}", given) for sql, given in asked]
        return {table for plan in plans for table in _scanned(plan.scalar_one()[0]["Plan"])} & LONG


def _scanned(plan: dict[str, Any]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from _scanned(part)


def poll(session: Session) -> object:
    job = session.scalars(select(Job).where(Job.status == Status.PENDING)).one()
    position = read.queue_position(session, job)
    known = waiting.look(session, within_s=30)
    return read.eta_seconds(session, job, position, datetime.now(UTC), mean_s=known.mean_s, at_once=known.at_once)


QUESTIONS: dict[str, Callable[[Session], object]] = {
    "a poll of a waiting job": poll,
    "whether another upload is taken": read.backlog,
    "the state of the queue": read.waiting,
    "dead letters to tell of": lambda session: dead.unnotified(session, limit=100),
    "batches without jobs": housekeeping.delete_batches,
    "keys to forget": idempotency.forget_old,
    "events to delete": lambda session: housekeeping.delete_events(session, Settings()),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_that_is_asked_all_the_time_reads_no_table_from_end_to_end(history: Settings, question: str) -> None:
    new_job()
    assert read_whole(QUESTIONS[question]) == set()


def test_a_question_that_reads_a_whole_table_is_noticed(history: Settings) -> None:
    assert read_whole(lambda session: session.execute(text("SELECT max(word_count) FROM transcription_results"))) == {
        "transcription_results"
    }


def test_keys_are_forgotten_a_part_at_a_time_and_the_rest_at_once_after(
    history: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "FORGOTTEN_AT_ONCE", 8000)
    monkeypatch.setattr(housekeeping, "FORGOTTEN_AT_ONCE", 8000)
    with transaction() as session:
        session.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'"))
    keeper = Housekeeper(history, open_storage(history))
    assert [keeper.go_round() for _ in range(3)] == [True, True, False]
    with transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM idempotency_keys")) == 0


def test_every_empty_batch_is_found_however_many_have_their_jobs(
    history: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:
        session.add_all([Batch(id=uuid.UUID(int=value)) for value in (1, 2**128 - 1)])
        session.flush()
        session.execute(text("UPDATE batches SET created_at = now() - interval '3 days'"))
    keeper = Housekeeper(history, open_storage(history))
    for _ in range(JOBS // housekeeping.BATCHES_AT_ONCE + 1):
        keeper.go_round()
    assert keeper.stats()["deleted_batches"] == 2
