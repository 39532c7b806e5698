"""Doorbells: the right ones, in order, again when nobody answers, and never more of them than the windows hold."""

import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from config import Settings
from database import transaction
from jobs import claim as claims
from jobs import presence, read, routing, sweep
from jobs.dead import mark_notified
from jobs.retry import Cause
from jobs.states import Status
from jobs.submit import JobRequest, Upload, submit
from jobs.sweep import Doorbell
from tests.api_client import rows
from tests.checker import (
    check_invariants,
    fail,
    finish,
    job_now,
    letters_of,
    many_jobs,
    move_back,
    new_job,
    sign_in,
    take,
    taken,
    wait_over,
)


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


class Queues:
    """Redis as the relay sees it: lists of doorbells."""

    def __init__(self) -> None:
        self.rung: list[Doorbell] = []

    def lengths(self) -> dict[str, int]:
        return dict.fromkeys(routing.QUEUES, 0) | Counter(doorbell.queue for doorbell in self.rung)

    def tick(self, settings: Settings) -> list[Doorbell]:
        """The doorbells of one tick, in order."""
        with transaction() as session:
            return self.tick_in(session, settings)

    def tick_in(self, session: Session, settings: Settings) -> list[Doorbell]:
        chosen = sweep.choose_waiting(session, settings, self.lengths())
        self.rung += chosen
        return chosen

    def are_emptied(self) -> None:
        """Workers took every doorbell, or Redis lost them."""
        self.rung.clear()


def doorbells_ring_long_ago(seconds: float = 3600) -> None:
    with transaction() as session:
        session.execute(
            text("UPDATE transcription_jobs SET published_at = published_at - :s * interval '1 s'"), {"s": seconds}
        )


def ids(doorbells: list[Doorbell], queue: str) -> list[uuid.UUID]:
    return [doorbell.job_id for doorbell in doorbells if doorbell.queue == queue]


def test_a_doorbell_names_the_job_and_the_attempt_that_its_claim_will_make(database: Settings) -> None:
    job_id = new_job()
    assert Queues().tick(database) == [Doorbell(routing.NORMAL, job_id, 1)]
    fence = take(job_id, database).fence
    fail(fence, RuntimeError("x"), database)
    wait_over(job_id)
    assert Queues().tick(database) == [Doorbell(routing.NORMAL, job_id, 2)]
    fail(take(job_id, database).fence, MemoryError(), database, Cause.LOSS)
    wait_over(job_id)
    assert Queues().tick(database) == [Doorbell(routing.RETRY, job_id, 3)]


@pytest.mark.parametrize(("priority", "retrying"), list(product(("high", "normal"), (False, True))))
def test_the_queue_in_sql_is_the_queue_of_the_routing_table(database: Settings, priority: str, retrying: bool) -> None:
    many_jobs(1, priority=priority, retrying=retrying)
    (doorbell,) = Queues().tick(database)
    assert doorbell.queue == routing.queue_for(priority=priority, retrying=retrying)


def test_queues_stay_within_their_windows_however_many_jobs_wait(database: Settings) -> None:
    for priority in ("high", "normal"):
        many_jobs(1000, priority=priority)
    many_jobs(1000, retrying=True)
    queues = Queues()
    queues.tick(database)
    counts = Counter(doorbell.queue for doorbell in queues.rung)
    assert counts == dict.fromkeys((routing.HIGH, routing.NORMAL, routing.RETRY), sweep.SMALLEST_WINDOW)
    assert len({doorbell.job_id for doorbell in queues.rung}) == 3 * sweep.SMALLEST_WINDOW
    assert queues.tick(database) == []
    doorbells_ring_long_ago()
    assert queues.tick(database) == []


def test_a_window_holds_whatever_plan_the_database_chooses(database: Settings) -> None:
    """With stale statistics PostgreSQL may run the subquery of an IN again for each row, LIMIT and all."""
    many_jobs(50)
    queues = Queues()
    with transaction() as session:
        for method in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
            session.execute(text(f"SET LOCAL enable_{method} = off"))
        queues.tick_in(session, database)
    assert len(queues.rung) == sweep.SMALLEST_WINDOW


def test_a_window_is_two_doorbells_for_every_child_that_lives(database: Settings) -> None:
    many_jobs(100)
    for number in range(5):
        sign_in(f"host:1:{number}")
    sign_in("host:1:99", seconds_ago=3600)
    assert len(Queues().tick(database)) == 10


def test_a_relay_is_no_child_that_could_work(database: Settings) -> None:
    many_jobs(100)
    for number in range(5):
        presence.sign_in(presence.Identity("relay", "host", 1, number))
    assert len(Queues().tick(database)) == sweep.SMALLEST_WINDOW


def test_a_place_that_becomes_free_goes_to_the_next_job(database: Settings) -> None:
    job_ids = many_jobs(10)
    queues = Queues()
    queues.tick(database)
    first = queues.rung.pop(0)
    take(first.job_id, database)
    assert [doorbell.job_id for doorbell in queues.tick(database)] == [job_ids[sweep.SMALLEST_WINDOW]]


@pytest.mark.parametrize("priority", ["high", "normal"])
def test_who_came_first_is_rung_first(database: Settings, priority: str) -> None:
    job_ids = many_jobs(4, priority=priority)
    assert [doorbell.job_id for doorbell in Queues().tick(database)] == job_ids


def test_recordings_of_one_request_are_rung_in_the_order_in_which_they_were_sent(database: Settings) -> None:
    """They are inserted in one transaction."""
    with transaction() as session:
        job_ids = [submit(session, Upload(f"{n}", "k", 1, ""), JobRequest("tiny")).id for n in range(4)]
    assert [doorbell.job_id for doorbell in Queues().tick(database)] == job_ids


def test_a_job_that_is_not_due_gets_no_doorbell(database: Settings) -> None:
    job_id = new_job()
    with transaction() as session:
        move_back(session, job_id, -10, "run_at")
    assert Queues().tick(database) == []


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.COMPLETED])
def test_a_job_that_does_not_wait_gets_no_doorbell(database: Settings, status: Status) -> None:
    fence = taken(database)
    if status is Status.COMPLETED:
        finish(fence)
    assert Queues().tick(database) == []


def test_a_doorbell_that_nobody_answered_is_rung_again_after_a_while_and_not_before(database: Settings) -> None:
    job_id = new_job()
    queues = Queues()
    assert ids(queues.tick(database), routing.NORMAL) == [job_id]
    queues.are_emptied()
    doorbells_ring_long_ago(database.republish_seconds - 20)
    assert queues.tick(database) == []
    doorbells_ring_long_ago(20)
    assert ids(queues.tick(database), routing.NORMAL) == [job_id]


def test_a_job_that_was_given_back_is_rung_again_at_once(database: Settings) -> None:
    job_id = new_job()
    queues = Queues()
    queues.tick(database)
    claims.release(take(job_id, database).fence, reason="drained", patience_s=1)
    assert [doorbell.attempt for doorbell in queues.tick(database)] == [2]


def test_doorbells_that_redis_did_not_take_are_chosen_again_at_once(database: Settings) -> None:
    job_ids = many_jobs(3)
    chosen = Queues().tick(database)
    running = take(job_ids[0], database)  # one has arrived all the same
    with transaction() as session:
        sweep.unring(session, chosen)
    assert ids(Queues().tick(database), routing.NORMAL) == job_ids[1:]
    assert job_now(job_ids[0]).attempt == running.fence.attempt


def test_while_long_jobs_keep_everybody_busy_no_doorbell_that_is_still_there_is_rung_again(database: Settings) -> None:
    many_jobs(20)
    queues = Queues()
    queues.tick(database)
    doorbells_ring_long_ago()
    for _ in range(2):
        take(queues.rung.pop(0).job_id, database)
        (found,) = queues.tick(database)
        assert found.job_id not in {doorbell.job_id for doorbell in queues.rung[:-1]}
    queues.rung.pop(0)  # this one is lost
    lost = queues.lengths()[routing.NORMAL]
    assert (lost, len(queues.tick(database))) == (sweep.SMALLEST_WINDOW - 1, 1)


# A queue that nobody draws from


def test_jobs_whose_queue_nobody_draws_from_are_let_out_to_others_after_a_while(database: Settings) -> None:
    sign_in("host:1:2", queues=(routing.NORMAL, routing.RETRY))
    (old,) = many_jobs(1, priority="high", waiting_s=database.promote_after_seconds)
    many_jobs(1, priority="high")
    assert Queues().tick(database) == [Doorbell(routing.NORMAL, old, 1)]


def test_a_suspect_whose_isolated_worker_is_gone_is_let_out_after_a_while(database: Settings) -> None:
    sign_in("host:1:2", queues=(routing.HIGH, routing.NORMAL))
    (old,) = many_jobs(1, retrying=True, waiting_s=database.promote_after_seconds)
    many_jobs(1, retrying=True)
    assert Queues().tick(database) == [Doorbell(routing.HIGH, old, 1)]


def test_a_worker_that_is_ill_draws_from_nothing(database: Settings) -> None:
    sign_in("host:1:2", queues=(routing.HIGH,), illness={"code": "storage_away", "message": "away"})
    sign_in("host:2:2", queues=(routing.NORMAL,))
    (old,) = many_jobs(1, priority="high", waiting_s=database.promote_after_seconds)
    assert Queues().tick(database) == [Doorbell(routing.NORMAL, old, 1)]


@pytest.mark.parametrize(
    ("changes", "queue"),
    [({"priority": "high"}, routing.HIGH), ({}, routing.NORMAL), ({"retrying": True}, routing.RETRY)],
)
def test_where_nobody_lives_a_job_waits_in_its_own_queue(
    database: Settings, changes: dict[str, Any], queue: str
) -> None:
    many_jobs(1, waiting_s=database.promote_after_seconds, **changes)
    assert [doorbell.queue for doorbell in Queues().tick(database)] == [queue]


def test_what_two_relays_ring_at_once_is_shared_between_them_and_never_waited_for(database: Settings) -> None:
    job_ids = many_jobs(6)
    one, two = Queues(), Queues()
    with transaction() as session:
        one.tick_in(session, database)
        two.tick(database)
    assert [doorbell.job_id for doorbell in one.rung + two.rung] == job_ids


# Ageing


def test_normal_jobs_that_waited_long_get_their_share_of_the_high_queue_and_never_more(database: Settings) -> None:
    aged = many_jobs(100, waiting_s=database.promote_after_seconds)
    urgent = many_jobs(100, priority="high")
    queues = Queues()
    share = sweep.SMALLEST_WINDOW // routing.AGED_SHARE
    for tick in range(1, 4):
        high = ids(queues.tick(database), routing.HIGH)
        assert len([job_id for job_id in high if job_id in aged]) == (share if tick == 1 else 0)
        assert len([job_id for job_id in high if job_id in urgent]) == (sweep.SMALLEST_WINDOW if tick == 1 else 0)


def test_the_share_of_the_aged_is_free_again_when_one_of_them_is_taken(database: Settings) -> None:
    aged = many_jobs(20, waiting_s=database.promote_after_seconds)
    many_jobs(1, priority="high")
    queues = Queues()
    (first,) = set(ids(queues.tick(database), routing.HIGH)) & set(aged)
    queues.rung = [doorbell for doorbell in queues.rung if doorbell.queue != routing.HIGH]
    take(first, database)
    (second,) = set(ids(queues.tick(database), routing.HIGH)) & set(aged)
    assert first != second


def test_normal_jobs_that_have_not_waited_long_stay_in_their_queue(database: Settings) -> None:
    many_jobs(3, waiting_s=database.promote_after_seconds - 20)
    assert {doorbell.queue for doorbell in Queues().tick(database)} == {routing.NORMAL}


def test_a_full_high_queue_takes_no_aged_job_either(database: Settings) -> None:
    many_jobs(20, waiting_s=database.promote_after_seconds)
    queues = Queues()
    queues.rung = [Doorbell(routing.HIGH, uuid.uuid4(), 1)] * sweep.SMALLEST_WINDOW
    assert ids(queues.tick(database), routing.HIGH) == []


def test_retried_jobs_that_waited_long_do_not_starve_behind_the_others(database: Settings) -> None:
    """A worker without an isolated one takes the retry queue last: while normal jobs keep coming it never got there."""
    aged = many_jobs(5, retrying=True, waiting_s=10 * database.promote_after_seconds)
    many_jobs(1)
    assert set(ids(Queues().tick(database), routing.HIGH)) < set(aged)


def test_where_nothing_urgent_waits_nobody_is_promoted_and_so_nobodys_backlog_overtakes_another(
    database: Settings,
) -> None:
    many_jobs(20, waiting_s=10 * database.promote_after_seconds)
    many_jobs(5, retrying=True, waiting_s=10 * database.promote_after_seconds)
    with transaction() as session:
        session.execute(text("DELETE FROM transcription_jobs WHERE retrying"))
    assert {doorbell.queue for doorbell in Queues().tick(database)} == {routing.NORMAL}


# Callers in turn


def owners_of(doorbells: list[Doorbell]) -> list[str]:
    owners = dict(rows("SELECT id, owner FROM transcription_jobs"))
    return [owners[doorbell.job_id] for doorbell in doorbells]


def test_callers_take_turns_however_many_jobs_each_has(database: Settings) -> None:
    sign_in("host:1:2")
    many_jobs(500, owner="key:many", waiting_s=100)
    many_jobs(2, owner="key:few")
    many_jobs(1, owner="")
    rung = owners_of(Queues().tick(database))
    assert Counter(rung) == {"key:many": 2, "key:few": 1, "": 1}, "of equal turns the older goes first"


def test_what_a_caller_has_running_or_rung_counts_as_turns_that_it_has_had(database: Settings) -> None:
    first = many_jobs(20, owner="key:many", waiting_s=100)
    queues = Queues()
    assert len(queues.tick(database)) == sweep.SMALLEST_WINDOW
    for job_id in first[:2]:
        take(job_id, database)
    queues.rung = queues.rung[2:]
    few = many_jobs(3, owner="key:few")
    assert ids(queues.tick(database), routing.NORMAL) == few[:2], "a caller who has four at work waits for the other"


def test_five_jobs_of_one_caller_wait_for_no_more_of_anothers_five_hundred_than_are_rung_already(
    database: Settings,
) -> None:
    """The bound: what is in the queue when they come, and then turn by turn."""
    many = set(many_jobs(500, owner="key:many", waiting_s=1000))
    queues, begun = Queues(), 0
    queues.tick(database)
    few = set(many_jobs(5, owner="key:few"))
    while few:
        bell = queues.rung.pop(0)
        few.discard(bell.job_id)
        begun += bell.job_id in many
        finish(take(bell.job_id, database).fence)
        queues.tick(database)
    assert begun <= sweep.SMALLEST_WINDOW + 5


def test_the_place_in_the_queue_is_told_as_turns_will_come(database: Settings) -> None:
    many_jobs(50, owner="key:many", waiting_s=100)
    few = many_jobs(2, owner="key:few")
    with transaction() as session:
        places = [read.queue_position(session, read.get_job(session, job_id)) for job_id in few]
    assert places == [2, 4]


# Dead letters


def dead_letters(count: int, settings: Settings) -> set[uuid.UUID]:
    found = set()
    for job_id in many_jobs(count):
        fail(take(job_id, settings).fence, RuntimeError("x"), settings.model_copy(update={"max_failures": 1}))
        found.add(letters_of(job_id)[0].id)
    return found


def ring_letters(waiting: int) -> list[uuid.UUID]:
    with transaction() as session:
        return list(sweep.choose_dead_letters(session, {routing.DLQ: waiting}))


def test_dead_letters_are_told_a_window_at_a_time_and_each_until_somebody_has_noted_it(database: Settings) -> None:
    letters = dead_letters(2 * sweep.SMALLEST_WINDOW + 1, database)
    first = ring_letters(0)
    assert len(first) == 2 * sweep.SMALLEST_WINDOW
    assert ring_letters(len(first)) == []
    assert ring_letters(0) == first
    with transaction() as session:
        assert all(mark_notified(session, letter) for letter in first)
    assert set(ring_letters(0)) == letters - set(first)
    with transaction() as session:
        assert not any(mark_notified(session, letter) for letter in first)
