"""What is made ready ahead comes in order, in bounded number, with its errors, and its thread never outlives it."""

import threading
from collections.abc import Iterator
from threading import Event

import pytest

from audio.ahead import Ahead
from tests.processes import until


def nothing() -> None: ...


def test_everything_comes_once_and_in_order() -> None:
    taken: list[int] = []
    with Ahead(iter(range(1000)), room=4, interrupt=nothing) as ready:
        while group := ready.take(3):
            assert len(group) <= 3
            taken += group
        assert ready.take(3) == [], "the end stays the end"
    assert taken == list(range(1000))


def test_no_more_is_made_ready_than_there_is_room_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with Ahead(items(), room=4, interrupt=nothing) as ready:
        until(lambda: len(made) >= 5)
        assert len(made) == 5, "four wait, and one waits for room"
        assert ready.take(2) == [0, 1]


def test_what_is_ready_is_given_without_waiting_for_more() -> None:
    go_on = Event()

    def items() -> Iterator[int]:
        yield 1
        assert go_on.wait(20)
        yield 2

    with Ahead(items(), room=4, interrupt=go_on.set) as ready:
        assert ready.take(4) == [1]
        go_on.set()
        assert ready.take(4) == [2]


def test_what_came_before_an_error_is_given_first() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("damaged")

    with Ahead(items(), room=4, interrupt=nothing) as ready:
        assert ready.take(1) == [1]
        for _ in range(2):
            with pytest.raises(LookupError, match="damaged"):
                ready.take(4)


@pytest.mark.parametrize("room", [1, 100])
def test_who_leaves_early_leaves_no_thread_behind(room: int) -> None:
    stop = Event()

    def items() -> Iterator[int]:
        while not stop.is_set():
            yield 1

    before = threading.active_count()
    with Ahead(items(), room=room, interrupt=stop.set) as ready:
        ready.take(1)
    assert threading.active_count() == before
