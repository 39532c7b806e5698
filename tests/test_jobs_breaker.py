"""A worker child that cannot work rests, says why, and draws no job before a probe succeeds."""

from datetime import UTC, datetime
from threading import Thread
from time import monotonic

import pytest

import errors
from jobs import breaker as breakers
from jobs.breaker import Breaker

AWAY = errors.StorageAway("The storage is away.")


class Child:
    """With pauses of milliseconds that are noted instead of taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *probes: Exception | None) -> None:
        self.pauses: list[float] = []
        self.probed = 0
        self.is_draining = False
        self._probes = list(probes)
        self.breaker = Breaker(self._probe, lambda: self.is_draining)
        monkeypatch.setattr(Breaker, "_pause", lambda _, seconds: self.pauses.append(seconds))

    def _probe(self) -> None:
        self.probed += 1
        if error := self._probes.pop(0):
            raise error

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.note_fault("storage_away", "The storage is away.")


def test_a_child_that_is_well_never_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(monkeypatch)
    child.breaker.note_work()
    child.breaker.rest()
    assert (child.pauses, child.probed, child.breaker.illness) == ([], 0, None)


def test_a_child_that_fails_again_and_again_rests_longer_each_time_though_its_probes_succeed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = Child(monkeypatch, *10 * [None])
    for _ in range(8):
        child.fail()
        child.breaker.rest()
        assert child.breaker.illness is None
    assert child.pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert child.probed == 8


def test_nothing_is_claimed_before_a_probe_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(monkeypatch, AWAY, RuntimeError("unforeseen"), *300 * [AWAY], None)
    child.fail()
    child.breaker.rest()
    assert child.probed == 303
    assert child.pauses[:4] == [1, 2, 4, 8]
    assert child.pauses[-1] == 60


def test_work_that_ended_otherwise_makes_the_next_rest_short(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(monkeypatch, *3 * [None])
    for _ in range(2):
        child.fail()
        child.breaker.rest()
    child.breaker.note_work()
    child.fail()
    child.breaker.rest()
    assert child.pauses == [1, 2, 1]


def test_it_says_why_and_since_when_and_the_last_probe_knows_best(monkeypatch: pytest.MonkeyPatch) -> None:
    before = datetime.now(UTC)
    child = Child(monkeypatch)
    child.fail()
    first = child.breaker.illness
    assert first is not None
    assert (first.code, first.message) == ("storage_away", "The storage is away.")
    assert before <= first.since <= datetime.now(UTC)
    child.breaker.note_fault("engine_unavailable", "The GPU cannot be used.")
    second = child.breaker.illness
    assert second is not None
    assert (second.code, second.since) == ("engine_unavailable", first.since)


def test_a_child_that_rests_stops_at_once_when_it_is_told_to() -> None:
    probed, drains = list[bool](), list[bool]()

    def probe() -> None:
        probed.append(True)
        raise AWAY

    breaker = Breaker(probe, lambda: bool(drains))
    for _ in range(7):
        breaker.note_fault("storage_away", "away")  # a minute
    resting = Thread(target=breaker.rest)
    resting.start()
    drains.append(True)
    resting.join(10)
    assert not resting.is_alive()
    assert breaker.illness is not None
    assert not probed, "which may take minutes"


def test_the_pause_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "FIRST_REST_S", 0.3)
    breaker = Breaker(lambda: None, lambda: False)
    breaker.note_fault("storage_away", "away")
    started = monotonic()
    breaker.rest()
    assert monotonic() - started >= 0.3
