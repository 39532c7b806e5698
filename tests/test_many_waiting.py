"""Where very many jobs wait, nothing is counted or read one by one, and the turns are the same as if it were."""

from collections import Counter, defaultdict
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from config import Settings
from database import transaction
from jobs import housekeeping, read, turns
from jobs.housekeeping import Housekeeper
from jobs.states import Status
from models import Job, Process
from storage import open_storage
from tests.checker import job_in, many_jobs, take

SECONDS, BYTES_A_SECOND = 10, 16_000


def wait(count: int) -> None:
    many_jobs(count, size_bytes=SECONDS * BYTES_A_SECOND)


def analyse() -> None:
    with transaction() as session:
        session.execute(text("ANALYZE transcription_jobs"))


def backlog(counted: int) -> tuple[int, float]:
    with transaction() as session:
        return read.backlog(session, counted=counted)


def test_up_to_a_bound_waiting_jobs_are_counted_and_beyond_it_estimated(database: Settings) -> None:
    wait(300)
    analyse()
    assert backlog(301) == (300, 300 * SECONDS)
    jobs, audio_s = backlog(100)
    assert 250 <= jobs <= 350
    assert audio_s == pytest.approx(jobs * SECONDS)
    with transaction() as session:
        assert read.waiting_jobs(session, counted=100) == jobs


def test_an_estimate_is_never_less_than_what_was_counted(database: Settings) -> None:
    wait(300)
    assert backlog(100) == (100, 100 * SECONDS), "nothing has been analysed"


def test_an_estimate_follows_what_has_come_since_the_last_look(database: Settings) -> None:
    wait(300)
    analyse()
    wait(3000)
    assert 2000 <= backlog(100)[0] <= 5000


def test_a_place_far_back_is_counted_no_further_than_its_cap(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner in ("a", "b", "c"):
        last = many_jobs(20, owner=owner)[-1]
    with transaction() as session:
        job = session.get(Job, last)
        assert job is not None
        assert turns.jobs_ahead(session, job) == 59
        monkeypatch.setattr(turns, "POSITION_CAP", 30)
        assert turns.jobs_ahead(session, job) == 30


@pytest.mark.parametrize("depth", [1, 2, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_turns_are_those_that_reading_all_would_give(
    database: Settings, seed: int, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "DEPTH", depth)
    random = Random(seed)
    for owner in "abcdefg":
        for job_id in many_jobs(random.choice((1, 3, 40)), owner=owner, waiting_s=random.randrange(100)):
            if random.random() < 0.1:
                take(job_id, database)
    for room in (1, 5, 20):
        expected = reading_all(room)
        with transaction() as session:
            found = turns.take_turns(session, "normal", queue="q", room=room, window=20, stale_s=60)
        assert [turn.job_id for turn in found] == expected


def test_who_only_sends_webhooks_is_no_slot(database: Settings) -> None:
    with transaction() as session:
        for name, queues in (("a:1:2", ["transcription.high"]), ("b:1:2", ["webhooks"])):
            session.add(Process(id=name, kind="worker", worker=name, queues=queues))
    with transaction() as session:
        assert len(read.drawn_queues(session, within_s=30)) == 1


def to_delete(settings: Settings, jobs: int) -> Housekeeper:
    for _ in range(jobs):
        job_in(Status.CANCELLED, settings)
    with transaction() as session:
        session.execute(
            text("UPDATE transcription_jobs SET delete_at = now(), storage_key = 'ab/ab' || substr(id::text, 3)")
        )
    return Housekeeper(settings, open_storage(settings))


def left() -> int:
    with transaction() as session:
        return session.scalar(text("SELECT count(*) FROM transcription_jobs")) or 0


def test_the_housekeeper_goes_on_as_long_as_a_round_leaves_something(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "JOBS_AT_MOST", 2)
    housekeeper = to_delete(settings, 3)
    assert [housekeeper.go_round(), left()] == [True, 1]
    assert [housekeeper.go_round(), left()] == [False, 0]


def test_a_slow_storage_ends_a_round_before_the_database_does(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    housekeeper, clock = to_delete(settings, 10), count()
    monkeypatch.setattr(housekeeping, "monotonic", lambda: next(clock))  # a second each time that somebody looks
    assert housekeeper.go_round()
    assert 0 < left() < 10


def reading_all(room: int) -> list[UUID]:
    with transaction() as session:
        rows = session.execute(text("SELECT * FROM transcription_jobs ORDER BY run_at, created_at")).mappings().all()
    busy = Counter(row["owner"] for row in rows if row["status"] == "processing")
    heads: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        if row["status"] == "pending":
            heads[row["owner"]].append(row)
    turn = {row["id"]: busy[owner] + number for owner in heads for number, row in enumerate(heads[owner], start=1)}
    unheard = [row for row in rows if row["id"] in turn and row["published_at"] is None]
    unheard.sort(key=lambda row: (turn[row["id"]], row["run_at"], row["created_at"]))
    return [row["id"] for row in unheard[:room]]
