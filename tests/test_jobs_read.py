"""What surfaces show: complete pages that do not shift, true filters, places in the queue that come true."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal
from unicodedata import normalize

import pytest
from sqlalchemy import select, text

import errors
from config import Settings
from database import transaction
from jobs import read, sweep, waiting
from jobs.cancel import cancel, purge
from jobs.read import JobFilter
from jobs.routing import QUEUES
from jobs.states import Status
from models import Job, Process, SegmentRow, made_at
from tests.checker import (
    check_invariants,
    dead_letter_of,
    fail,
    finish,
    job_in,
    job_now,
    many_jobs,
    move_back,
    new_job,
    sign_in,
    take,
    taken,
)
from transcript import DecodeOptions

LONG_AGO_S = 3600


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


def page(after: uuid.UUID | None = None, *, limit: int = 3, **wanted: Any) -> read.Page[Job]:
    with transaction() as session:
        return read.list_jobs(session, JobFilter(**wanted), limit=limit, after=after)


def listed(**wanted: Any) -> list[uuid.UUID]:
    return [job.id for job in page(limit=100, **wanted).rows]


def position(job_id: uuid.UUID) -> int | None:
    with transaction() as session:
        return read.queue_position(session, read.get_job(session, job_id))


# Pages


def test_pages_are_complete_newest_first_and_say_when_there_is_more(database: Settings) -> None:
    job_ids = many_jobs(8)
    seen: list[uuid.UUID] = []
    more: list[bool] = []
    while not more or more[-1]:
        found = page(seen[-1] if seen else None)
        seen += [job.id for job in found.rows]
        more.append(found.has_more)
    assert seen == job_ids[::-1]
    assert more == [True, True, False]


def test_pages_do_not_shift_while_jobs_are_submitted_and_finished(database: Settings) -> None:
    job_ids = many_jobs(8)
    seen: list[uuid.UUID] = []
    while len(seen) < 8:
        found = page(seen[-1] if seen else None, limit=2)
        seen += [job.id for job in found.rows]
        new_job()
        cancel_one(job_ids[0])
    assert seen == job_ids[::-1]


def cancel_one(job_id: uuid.UUID) -> None:
    if job_now(job_id).status == Status.PENDING:
        with transaction() as session:
            cancel(session, job_id)


def test_jobs_of_the_same_moment_are_each_on_one_page(database: Settings) -> None:
    job_ids = many_jobs(7)
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET created_at = now()"))
    first, second, third = page(), None, None
    second = page(first.rows[-1].id)
    third = page(second.rows[-1].id)
    assert sorted(job.id for part in (first, second, third) for job in part.rows) == sorted(job_ids)


def test_a_list_that_is_purged_while_it_is_read_loses_nothing(database: Settings) -> None:
    """Each page is purged before the next is asked for, its last job too."""
    job_ids = [job_in(Status.CANCELLED, database).id for _ in range(8)]
    found: list[uuid.UUID] = []
    while part := page(found[-1] if found else None).rows:
        found += [job.id for job in part]
        for job in part:
            with transaction() as session:
                purge(session, job.id)
    assert found == job_ids[::-1]


def test_an_id_tells_when_its_job_came(database: Settings) -> None:
    """To the microsecond, as the database has it: the two come from one statement."""
    for job_id in [new_job() for _ in range(50)]:
        with transaction() as session:
            assert made_at(job_id) == read.get_job(session, job_id).created_at
            assert job_id.version == 7
            assert job_id.variant == uuid.RFC_4122


@pytest.mark.parametrize(
    "stranger", [uuid.uuid4(), uuid.UUID(int=2**128 - 1), uuid.UUID("ffffffff-ffff-7000-8000-000000000000")]
)
def test_the_page_after_an_id_that_tells_nothing_is_not_found(database: Settings, stranger: uuid.UUID) -> None:
    with pytest.raises(errors.NotFound):
        page(stranger)


def test_the_page_after_a_job_of_somebody_else_is_not_found(database: Settings) -> None:
    with pytest.raises(errors.NotFound):
        page(new_job(), owner="somebody else")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_however_its_accents_are_written(database: Settings, form: Literal["NFC", "NFD"]) -> None:
    job_id = new_job(filename="Gespräch.wav")
    assert listed(q=normalize(form, "gespräch")) == [job_id]


def test_an_empty_list_is_one_empty_page(database: Settings) -> None:
    assert page() == read.Page([], has_more=False)


# Filters


def test_jobs_are_found_by_status_and_priority(database: Settings) -> None:
    jobs = {status: job_in(status, database).id for status in Status}
    urgent = new_job(priority="high")
    for status in set(Status) - {Status.PENDING}:
        assert listed(status=status) == [jobs[status]]
    assert listed(priority="high") == [urgent] == listed(priority="high", status="pending")
    assert listed(priority="high", status="failed") == []


def test_jobs_are_found_by_the_language_that_was_asked_for_or_else_heard(database: Settings) -> None:
    asked = new_job(decode=DecodeOptions(language="de"))
    heard = new_job()
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET detected_language = 'fr'"))
    assert listed(language="de") == [asked]
    assert listed(language="fr") == [heard]


def test_jobs_are_found_by_a_part_of_the_file_name_taken_literally(database: Settings) -> None:
    job_id = new_job(filename="Meeting 50%.wav")
    for part in ("meet", "MEET", "50%", "%", ".wav"):
        assert listed(q=part) == [job_id]
    for part in ("_", "x", "\\", "50%%"):
        assert listed(q=part) == []


def test_a_search_for_what_no_file_name_can_hold_finds_nothing(database: Settings) -> None:
    new_job()
    assert listed(q="\0") == []


def test_jobs_are_found_by_when_they_were_created(database: Settings) -> None:
    job_ids = many_jobs(3)
    middle = job_now(job_ids[1]).created_at
    assert listed(created_after=middle) == [job_ids[2]]
    assert listed(created_before=middle) == [job_ids[0]]


def test_a_filter_holds_on_every_page(database: Settings) -> None:
    many_jobs(3)
    urgent = many_jobs(4, priority="high")
    first = page(priority="high")
    assert [job.id for job in first.rows] + [job.id for job in page(first.rows[-1].id, priority="high").rows] == urgent[
        ::-1
    ]


def test_what_does_not_exist_is_not_found(database: Settings) -> None:
    for look in (read.get_job, read.batch_jobs):
        with pytest.raises(errors.NotFound), transaction() as session:
            look(session, uuid.uuid4())
    with transaction() as session:
        assert read.get_result(session, uuid.uuid4()) is None


# Segments


def test_segments_come_in_order_and_after_any_of_them(database: Settings) -> None:
    job_id = new_job()
    with transaction() as session:
        session.add_all(segment(job_id, number) for number in (2, 0, 1))
    with transaction() as session:
        assert [row.number for row in read.segments(session, job_id)] == [0, 1, 2]
        assert [row.number for row in read.segments(session, job_id, after=0)] == [1, 2]
        assert [row.number for row in read.segments(session, job_id, limit=1)] == [0]
        assert read.segments(session, uuid.uuid4()) == []


def segment(job_id: uuid.UUID, number: int) -> SegmentRow:
    measures = {"avg_logprob": 0, "no_speech_prob": 0, "compression_ratio": 1, "temperature": 0, "tokens": []}
    return SegmentRow(job_id=job_id, number=number, start=number, end=number + 1, text="x", **measures)


# Places in the queue


def test_only_a_job_that_waits_has_a_place(database: Settings) -> None:
    for status in Status:
        assert (position(job_in(status, database).id) is None) == (status is not Status.PENDING)
        cancel_all()


def cancel_all() -> None:
    with transaction() as session:
        for job_id in session.scalars(select(Job.id).where(Job.status == Status.PENDING)):
            cancel(session, job_id)


def test_places_are_counted_from_one_and_urgent_jobs_come_first(database: Settings) -> None:
    normal = many_jobs(3)
    urgent = many_jobs(2, priority="high")
    assert [position(job_id) for job_id in normal] == [3, 4, 5]
    assert [position(job_id) for job_id in urgent] == [1, 2]


def test_places_come_true(database: Settings) -> None:
    """The doorbells ring in the order of the places; also for recordings that were sent in one request."""
    job_ids = many_jobs(4)
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET run_at = now(), created_at = now()"))
    with transaction() as session:
        rung = sweep.choose_waiting(session, database, dict.fromkeys(QUEUES, 0))
    assert [doorbell.job_id for doorbell in rung] == sorted(job_ids, key=lambda job_id: position(job_id) or 0)


def test_a_retried_job_waits_behind_all_that_workers_take_before_it(database: Settings) -> None:
    """-Q high,normal,retry: see RELIABILITY, settings."""
    many_jobs(2)
    (retried,) = many_jobs(1, retrying=True)
    assert position(retried) == 3


# Estimates


def eta(job: Job) -> float | None:
    with transaction() as session:
        now = session.scalar(text("SELECT now()"))
        known = waiting.look(session, within_s=30)
        position = read.queue_position(session, job)
        return read.eta_seconds(session, job, position, now, mean_s=known.mean_s, at_once=known.at_once)


def test_the_estimate_of_a_waiting_job_is_its_share_of_what_recent_jobs_took(database: Settings) -> None:
    finish(taken(database))  # took 2 s
    sign_in("host:1:2")
    sign_in("host:1:3")
    job_ids = many_jobs(3)
    assert [eta(job_now(job_id)) for job_id in job_ids] == [1.0, 2.0, 3.0]


def test_nothing_is_estimated_where_nothing_is_known(database: Settings) -> None:
    job_id = new_job()
    assert eta(job_now(job_id)) is None
    finish(taken(database))
    assert eta(job_now(job_id)) is None  # no worker lives
    assert eta(job_in(Status.COMPLETED, database)) is None
    assert eta(job_in(Status.PROCESSING, database)) is None  # no progress yet


def test_the_estimate_of_a_running_job_goes_by_the_pace_of_its_attempt(database: Settings) -> None:
    """A job that failed an hour ago and is half done after 100 s needs 100 s more, not an hour."""
    fence = taken(database)
    fail(fence, RuntimeError("x"), database)
    with transaction() as session:
        move_back(session, fence.job_id, LONG_AGO_S, "started_at", "run_at")
    take(fence.job_id, database)
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET progress = 50"))
        session.execute(text("UPDATE job_events SET at = at - interval '100 s'"))
    estimated = eta(job_now(fence.job_id))
    assert estimated is None or estimated < LONG_AGO_S / 2


# Who is there


def test_processes_that_were_seen_lately_are_alive_and_only_workers_are_slots(database: Settings) -> None:
    sign_in("host:1:2")
    sign_in("host:1:3", seconds_ago=LONG_AGO_S)
    with transaction() as session:
        session.add(Process(id="host:9:9", kind="relay", worker="host:9", queues=[]))
    with transaction() as session:
        assert [process.id for process in read.alive(session, "worker", within_s=30)] == ["host:1:2"]
        assert [process.id for process in read.alive(session, "relay", within_s=30)] == ["host:9:9"]
        assert len(read.drawn_queues(session, within_s=30)) == 1


def test_what_waits_and_runs_is_counted_with_the_oldest_age(database: Settings) -> None:
    with transaction() as session:
        assert read.waiting(session) == {
            "pending": 0,
            "processing": 0,
            "oldest_pending_seconds": None,
            "dead_letters": 0,
        }
    many_jobs(2, waiting_s=100)
    taken(database)
    dead_letter_of(database, errors.NoAudioStream("no"))
    with transaction() as session:
        counted = read.waiting(session)
    age_s = counted.pop("oldest_pending_seconds")
    assert counted == {"pending": 2, "processing": 1, "dead_letters": 1}
    assert timedelta(seconds=100) <= timedelta(seconds=age_s) < timedelta(seconds=130)
