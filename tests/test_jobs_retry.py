"""Whether, when and where a failed attempt is tried again: every promise for every input."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import Settings
from jobs.retry import Again, Cause, Counters, Dead, Limits, plan
from tests.checker import calm

chances = st.floats(0, 1)
counted = st.sampled_from([Cause.FAILURE, Cause.LOSS, Cause.INFRA])
counts = st.integers(0, 12)
counters = st.builds(Counters, counts, counts, counts)
limits = st.builds(
    Limits,
    failures=st.integers(1, 2000),
    losses=st.integers(1, 2000),
    infra_losses=st.integers(1, 2000),
    stalled_s=st.floats(1, 1e6),
    base_s=st.floats(0, 60),
    max_s=st.floats(0, 3600),
)
PROMISED = Limits(failures=5, losses=2, infra_losses=10, stalled_s=86_400, base_s=2.0, max_s=600.0)


def counter_of(cause: Cause) -> str:
    return {Cause.FAILURE: "failures", Cause.LOSS: "losses", Cause.INFRA: "infra_losses"}[cause]


def test_the_limits_out_of_the_box_are_the_promised_ones() -> None:
    assert Limits.of(Settings()) == PROMISED


@calm
@given(counted, counters, limits, st.booleans(), chances)
def test_every_end_is_counted_once_and_under_its_own_cause(
    cause: Cause, before: Counters, within: Limits, retryable: bool, chance: float
) -> None:
    after = asdict(plan(cause, before, within, retryable=retryable, chance=chance).counters)
    assert after == asdict(before) | {counter_of(cause): asdict(before)[counter_of(cause)] + 1}


@calm
@given(counted, counters, limits, chances)
def test_what_cannot_help_is_not_tried(cause: Cause, before: Counters, within: Limits, chance: float) -> None:
    assert isinstance(plan(cause, before, within, retryable=False, chance=chance), Dead)


@calm
@given(counted, counters, limits, chances)
def test_a_job_is_dead_exactly_when_a_counter_has_reached_its_limit(
    cause: Cause, before: Counters, within: Limits, chance: float
) -> None:
    planned = plan(cause, before, within, retryable=True, chance=chance)
    now = planned.counters
    spent = now.failures >= within.failures or now.losses >= within.losses or now.infra_losses >= within.infra_losses
    assert isinstance(planned, Dead) == spent


@calm
@given(st.lists(counted, min_size=15, max_size=15), chances)
def test_no_job_is_tried_for_ever(ends: list[Cause], chance: float) -> None:
    """4 failures, 1 loss and 9 deaths of workers are survived; whatever comes as the 15th is the end."""
    now = Counters()
    for cause in ends:
        planned = plan(cause, now, PROMISED, retryable=True, chance=chance)
        if isinstance(planned, Dead):
            return
        now = planned.counters
    pytest.fail("still trying")


@calm
@given(st.sampled_from([Cause.FAILURE, Cause.LOSS]), counters, limits, chances)
def test_the_delay_is_drawn_from_nothing_to_a_ceiling_that_doubles(
    cause: Cause, before: Counters, within: Limits, chance: float
) -> None:
    planned = plan(cause, before, within, retryable=True, chance=chance)
    if isinstance(planned, Again):
        tries = planned.counters.failures + planned.counters.losses
        assert 0 <= planned.delay_s <= min(within.max_s, within.base_s * 2 ** (tries - 1))
        assert planned.delay_s == pytest.approx(chance * min(within.max_s, within.base_s * 2 ** (tries - 1)))


def test_the_delay_grows_to_its_limit_and_no_further_however_many_tries_there_were() -> None:
    within = Limits(failures=10_000, losses=2, infra_losses=10, stalled_s=86_400, base_s=2.0, max_s=600.0)
    ceilings = []
    for failures in (0, 1, 2, 8, 9, 5000):
        planned = plan(Cause.FAILURE, Counters(failures), within, retryable=True, chance=1)
        assert isinstance(planned, Again)
        ceilings.append(planned.delay_s)
    assert ceilings == [2, 4, 8, 512, 600, 600]


@calm
@given(counters, limits, chances)
def test_the_death_of_a_whole_worker_neither_delays_nor_isolates_the_job(
    before: Counters, within: Limits, chance: float
) -> None:
    planned = plan(Cause.INFRA, before, within, retryable=True, chance=chance)
    if isinstance(planned, Again):
        assert planned.delay_s == 0
        assert planned.retrying == (before.losses > 0)


@calm
@given(st.sampled_from(Cause), counters, limits, chances)
def test_only_a_job_that_took_its_child_down_is_tried_again_alone(
    cause: Cause, before: Counters, within: Limits, chance: float
) -> None:
    planned = plan(cause, before, within, retryable=True, chance=chance)
    if isinstance(planned, Again):
        assert planned.retrying == (before.losses > 0 or cause is Cause.LOSS)


@calm
@given(counters, limits, st.booleans(), chances, st.floats(0, 1e6))
def test_what_is_the_workers_fault_counts_nothing_and_is_limited_by_time_alone(
    before: Counters, within: Limits, retryable: bool, chance: float, stalled_s: float
) -> None:
    planned = plan(Cause.WORKER, before, within, retryable=retryable, chance=chance, stalled_s=stalled_s)
    assert planned.counters == before
    assert isinstance(planned, Dead) == (stalled_s >= within.stalled_s)


def test_the_pause_grows_with_the_time_in_which_no_worker_could_do_it() -> None:
    pauses, stalled_s = list[float](), 0.0
    while isinstance(
        again := plan(Cause.WORKER, Counters(), PROMISED, retryable=True, chance=0.5, stalled_s=stalled_s), Again
    ):
        pauses.append(again.delay_s)
        stalled_s += again.delay_s
    assert pauses == sorted(pauses)
    assert pauses[0] == 1.5
    assert pauses[-1] == 450
    assert len(pauses) < 250, "a day of it"


def test_what_ran_out_of_memory_goes_to_a_worker_that_has_its_device_to_itself() -> None:
    for alone in (False, True):
        planned = plan(Cause.WORKER, Counters(), PROMISED, retryable=True, chance=0, alone=alone)
        assert isinstance(planned, Again)
        assert planned.retrying == alone
