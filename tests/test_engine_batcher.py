"""Which rows go together, and whose turn it is: on the batcher alone, without an engine."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Event, Thread
from time import sleep

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.batcher import QUANTUM_S, Batcher, Row, Waited
from tests.processes import until


def batcher(most: int = 4) -> Batcher:
    return Batcher(most=lambda _: most)


def put(batcher: Batcher, job: str, *lengths_s: float, key: str = "k", urgent: bool = False) -> list[Row]:
    rows = [Row(key=key, job=job, length_s=length, payload=None, urgent=urgent) for length in lengths_s]
    for row in rows:
        batcher.put(row)
    return rows


def take(batcher: Batcher) -> list[Row]:
    batch = batcher.take()
    assert batch is not None
    batcher.done()
    return batch


def test_a_long_recording_does_not_hold_up_a_short_one() -> None:
    lanes = batcher(most=1)
    put(lanes, "three hours", *[30.0] * 360)
    put(lanes, "ten seconds", 10.0)
    jobs = [take(lanes)[0].job for _ in range(3)]
    assert "ten seconds" in jobs


def test_jobs_get_the_same_seconds_of_sound_whatever_their_windows() -> None:
    lanes = batcher(most=1)
    put(lanes, "long windows", *[30.0] * 100)
    put(lanes, "short windows", *[3.0] * 1000)
    seconds = dict.fromkeys(("long windows", "short windows"), 0.0)
    for _ in range(330):
        row = take(lanes)[0]
        seconds[str(row.job)] += row.length_s
    assert abs(seconds["long windows"] - seconds["short windows"]) <= 3 * QUANTUM_S


def test_urgent_rows_go_before_all_others() -> None:
    lanes = batcher(most=1)
    put(lanes, "a", 1.0, 1.0, 1.0)
    urgent = put(lanes, "b", 30.0, 30.0, urgent=True)
    assert [take(lanes)[0] for _ in range(2)] == urgent


def test_urgent_rows_that_never_end_leave_others_one_turn_in_four() -> None:
    lanes = batcher(most=1)
    put(lanes, "others", *[1.0] * 25)
    for number in range(4):
        put(lanes, f"urgent {number}", *[1.0] * 100, urgent=True)
    assert [take(lanes)[0].urgent for _ in range(100)] == [True, True, True, False] * 25


def test_turns_that_nobody_waited_for_are_not_owed() -> None:
    lanes = batcher(most=1)
    put(lanes, "a", *[1.0] * 10, urgent=True)
    assert all(take(lanes)[0].urgent for _ in range(5))
    put(lanes, "b", 1.0)
    assert [take(lanes)[0].urgent for _ in range(4)] == [True, True, True, False]


def test_a_job_waits_while_none_of_its_rows_runs() -> None:
    now = [0.0]
    waited = Waited(lambda: now[0])

    def after(seconds: float, happens: Callable[[], None]) -> None:
        now[0] += seconds
        happens()

    after(5, waited.came)
    after(2, waited.came)
    after(1, waited.began)
    assert waited.take() == 3
    after(10, waited.ended)
    after(4, waited.began)
    after(10, waited.ended)
    after(100, waited.came)
    now[0] += 0.5
    assert waited.take() == 4.5
    assert waited.take() == 0


def test_rows_of_like_length_share_a_batch() -> None:
    """What takes as long to say ends together."""
    lanes = batcher(most=2)
    for number, length in enumerate([30.0, 1.0, 29.0, 1.5]):
        put(lanes, f"job {number}", length)
    assert [sorted(row.length_s for row in take(lanes)) for _ in range(2)] == [[29.0, 30.0], [1.0, 1.5]]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.floats(0.1, 30), st.booleans())))
@settings(deadline=None)
def test_every_row_goes_once_in_a_batch_of_its_own_key_and_class(rows: list[tuple[str, str, float, bool]]) -> None:
    lanes, sent = batcher(most=3), list[Row]()
    for key, job, length, urgent in rows:
        sent += put(lanes, job, length, key=key, urgent=urgent)
    taken: list[Row] = []
    while lanes.waiting():
        batch = take(lanes)
        assert 1 <= len(batch) <= 3
        assert len({(row.key, row.urgent) for row in batch}) == 1
        taken += batch
    assert sorted(map(id, taken)) == sorted(map(id, sent))


def test_a_suspect_runs_alone() -> None:
    lanes = batcher()
    put(lanes, "a", 1.0)
    first = lanes.take()
    suspect = Row(key="k", job="b", length_s=1.0, payload=None, alone=True)
    lanes.put(suspect)
    put(lanes, "c", 1.0)
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(lanes.take)
        assert not second.done(), "not beside what runs already"
        lanes.done()
        assert second.result(10) == [suspect]
        third = pool.submit(lanes.take)
        assert not third.done(), "and nothing beside it"
        lanes.done()
        assert [row.job for row in third.result(10) or ()] == ["c"]
    assert first


def lone(job: str) -> Row:
    return Row(key="k", job=job, length_s=1.0, payload=None, alone=True)


@contextmanager
def load_of(lanes: Batcher, *, alone: bool = False) -> Iterator[tuple[Event, Event]]:
    """On a thread of its own: whether it has begun, and what ends it."""
    begun, end = Event(), Event()

    def work() -> None:
        with lanes.load(alone=alone):
            begun.set()
            assert end.wait(20)

    thread = Thread(target=work)
    thread.start()
    yield begun, end
    end.set()
    thread.join(20)


SOON_S = 0.1  # in which what may happen would


def test_no_load_runs_beside_a_suspect() -> None:
    lanes = batcher()
    lanes.put(lone("suspect"))
    with load_of(lanes) as (begun, _):
        assert not begun.wait(SOON_S), "a suspect that waits goes first"
        assert lanes.take()
        assert not begun.wait(SOON_S)
        lanes.done()
        assert begun.wait(20)


def test_no_suspect_runs_beside_a_load_and_others_do() -> None:
    lanes = batcher()
    with ThreadPoolExecutor(1) as pool, load_of(lanes) as (begun, end):
        assert begun.wait(20)
        lanes.put(lone("suspect"))
        put(lanes, "other", 1.0)
        assert [row.job for row in take(lanes)] == ["other"], "a load may take long"
        suspect = pool.submit(take, lanes)
        sleep(SOON_S)
        assert not suspect.done()
        end.set()
        assert [row.job for row in suspect.result(20)] == ["suspect"]


def test_a_load_that_is_a_suspect_itself_runs_alone() -> None:
    lanes = batcher()
    put(lanes, "a", 1.0)
    assert lanes.take()
    with ThreadPoolExecutor(1) as pool, load_of(lanes, alone=True) as (begun, end):
        assert not begun.wait(SOON_S), "not beside what runs already"
        put(lanes, "b", 1.0)
        after = pool.submit(take, lanes)
        assert not begun.wait(SOON_S)
        assert not after.done(), "nothing more begins"
        lanes.done()
        assert begun.wait(20)
        sleep(SOON_S)
        assert not after.done(), "and nothing beside it"
        assert lanes.waiting() == 1, "a load is no window"
        end.set()
        assert [row.job for row in after.result(20)] == ["b"]


def test_suspects_of_either_kind_take_turns_and_each_is_alone() -> None:
    lanes = batcher()
    lanes.put(lone("first"))
    with load_of(lanes, alone=True) as (begun, end):
        until(lambda: len(lanes._suspects) == 2)
        lanes.put(lone("second"))
        with ThreadPoolExecutor(1) as pool:
            assert [row.job for row in take(lanes)] == ["first"]
            assert begun.wait(20)
            second = pool.submit(take, lanes)
            sleep(SOON_S)
            assert not second.done()
            end.set()
            assert [row.job for row in second.result(20)] == ["second"]


def test_a_batch_that_is_not_full_waits_a_little_and_no_longer() -> None:
    lanes = Batcher(most=lambda _: 2, linger_s=0.2)
    put(lanes, "a", 1.0)
    threading.Timer(0.02, put, (lanes, "b", 1.0)).start()
    assert len(take(lanes)) == 2
    put(lanes, "a", 1.0)
    assert len(take(lanes)) == 1


def test_who_is_gone_has_nothing_waiting() -> None:
    lanes = batcher(most=10)
    put(lanes, "gone", 1.0, 2.0)
    put(lanes, "gone", 3.0, urgent=True)
    lanes.put(Row(key="k", job="gone", length_s=1.0, payload=None, alone=True))
    put(lanes, "here", 1.0)
    assert lanes.forget("gone") == 4
    assert [row.job for row in take(lanes)] == ["here"]
    assert lanes.waiting() == 0


def test_lanes_that_wait_end_when_it_closes() -> None:
    lanes = batcher()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(lanes.take) for _ in range(3)]
        lanes.close()
        assert [one.result(10) for one in waiting] == [None] * 3


def test_thousands_of_rows_from_many_threads_all_come_out() -> None:
    lanes, taken = batcher(most=8), list[Row]()

    def work() -> None:
        while (batch := lanes.take()) is not None:
            taken.extend(batch)
            lanes.done()

    with ThreadPoolExecutor(12) as pool:
        workers = [pool.submit(work) for _ in range(4)]
        jobs = [pool.submit(put, lanes, f"job {number}", *islice([1.0, 30.0] * 50, 100)) for number in range(8)]
        for job in jobs:
            job.result(30)
        until(lambda: len(taken) == 800)
        lanes.close()
        for worker in workers:
            worker.result(10)
