"""The pool keeps to its limits: the oldest use goes first, what is busy is waited for, what ran out of memory goes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model_pool
from errors import EngineError, OutOfMemory, PoolTimeout
from model_pool import ModelInstance, ModelPool
from tests.model_pool_stub import MB, Clock, Gate, StubEngine, StubModel, eventually, fail_with, loaded, make_pool, use


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as executor:
        yield executor


@pytest.fixture(autouse=True)
def _nobody_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits must be woken: looking again after a second would hide that nobody did."""
    monkeypatch.setattr(model_pool, "_LOOK_AGAIN_S", 60.0)


# --- eviction and limits -------------------------------------------------------------------------------------------


def test_idle_models_beyond_the_size_are_unloaded_oldest_use_first(engine: StubEngine) -> None:
    pool = make_pool(engine, size=2)
    use(pool, "a", "b", "a", "c")
    assert engine.closes == ["b"]
    assert loaded(pool) == ["a", "c"]


def test_a_busy_model_is_never_evicted(engine: StubEngine) -> None:
    pool = make_pool(engine, size=1, max_size=2)
    with pool.lease("a") as oldest:
        use(pool, "b", "c", "d")
        assert not oldest.model.closed
    assert engine.closes == ["b", "c", "d"]


def test_more_than_the_largest_number_are_never_loaded_under_load(
    engine: StubEngine, threads: ThreadPoolExecutor
) -> None:
    pool = make_pool(engine, size=2, max_size=3)

    def work(seed: int) -> None:
        random = Random(seed)
        for _ in range(60):
            with pool.lease(random.choice("abcde"), 20) as lease:
                assert not lease.model.closed
                if random.random() < 0.1:
                    lease.discard()

    for future in [threads.submit(work, seed) for seed in range(8)]:
        future.result(60)
    assert engine.most_loaded <= 3
    assert len(loaded(pool)) <= 2
    pool.close()
    assert len(engine.closes) == len(engine.loads)


def test_who_finds_every_model_busy_waits_and_is_served(engine: StubEngine, threads: ThreadPoolExecutor) -> None:
    clock = Clock()
    pool = ModelPool(engine, size=1, max_size=1, clock=clock)
    busy = pool.acquire("a")
    asked = clock.asked
    waiter = threads.submit(use, pool, "b")
    eventually(lambda: clock.asked >= asked + 2)
    assert not waiter.done()
    pool.release(busy)
    waiter.result(20)
    assert engine.most_loaded == 1
    assert engine.closes == ["a"]


def test_who_waits_too_long_is_told_what_is_busy_and_what_to_do(engine: StubEngine) -> None:
    pool = make_pool(engine, size=1, max_size=1)
    with pool.lease("/secret/place/a"):
        with pytest.raises(PoolTimeout, match="in use or loading: a int8") as caught:
            pool.acquire("b", 0.01)
        assert "MODEL_POOL_MAX_SIZE" in str(caught.value)
        assert "secret" not in str(caught.value)
    use(pool, "b")


# --- memory --------------------------------------------------------------------------------------------------------


def test_past_the_budget_idle_models_go_first_oldest_use_first(engine: StubEngine) -> None:
    pool = make_pool(engine, memory_mb=250)
    use(pool, "m100", "m90", "m100", "m80")
    assert engine.closes == ["m90"]
    assert loaded(pool) == ["m100", "m80"]


def test_past_the_budget_a_busy_model_is_waited_for(engine: StubEngine, threads: ThreadPoolExecutor) -> None:
    clock = Clock()
    pool = ModelPool(engine, size=4, max_size=4, memory_bytes=150 * MB, clock=clock)
    busy = pool.acquire("m100")
    asked = clock.asked
    waiter = threads.submit(use, pool, "m90")
    eventually(lambda: clock.asked >= asked + 2)
    assert engine.loads == ["m100"]
    pool.release(busy)
    waiter.result(20)
    assert engine.closes == ["m100"]


def test_a_load_under_way_counts_against_the_budget(engine: StubEngine, threads: ThreadPoolExecutor) -> None:
    pool = make_pool(engine, memory_mb=150)
    gate = engine.during_load = Gate()
    slow = threads.submit(use, pool, "m100")
    assert gate.begun.wait(20)
    with pytest.raises(PoolTimeout, match="loading: m100"):
        pool.acquire("m90", 0.01)
    gate.go_on.set()
    slow.result(20)


def test_a_model_larger_than_the_budget_is_out_of_memory_at_once(engine: StubEngine) -> None:
    pool = make_pool(engine, memory_mb=50)
    with pytest.raises(OutOfMemory, match="100 MB; the pool's budget is 50 MB"):
        pool.acquire("m100", 60)
    assert engine.loads == []


def test_without_a_budget_idle_models_go_until_the_device_has_room() -> None:
    engine = StubEngine(free_bytes=250 * MB)
    pool = make_pool(engine)
    use(pool, "m100", "m90", "m200")
    assert engine.closes == ["m100", "m90"]
    assert loaded(pool) == ["m200"]


def test_without_a_budget_a_model_alone_is_tried_whatever_the_estimate_says() -> None:
    engine = StubEngine(free_bytes=50 * MB)
    pool = make_pool(engine)
    use(pool, "m100")
    assert loaded(pool) == ["m100"]


# --- discarded instances -------------------------------------------------------------------------------------------


def test_an_instance_that_ran_out_of_memory_is_never_handed_out_again(engine: StubEngine) -> None:
    pool = make_pool(engine)
    spoiled = pool.acquire("base")
    pool.release(spoiled)
    with pytest.raises(OutOfMemory), pool.lease("base"):
        fail_with(OutOfMemory())
    assert spoiled.model.closed
    with pool.lease("base") as fresh:
        assert fresh.model is not spoiled.model


def test_a_discarded_instance_gives_its_memory_back_when_its_last_lease_ends(engine: StubEngine) -> None:
    pool = make_pool(engine)
    with pool.lease("base") as one:
        with pool.lease("base") as other:
            other.discard()
            other.discard()
        assert engine.closes == []
        with pool.lease("base") as fresh:
            assert fresh.model is not one.model
    assert engine.closes == ["base"]
    assert one.model.closed
    assert not fresh.model.closed


def test_a_discarded_instance_counts_until_its_memory_is_back(engine: StubEngine) -> None:
    pool = make_pool(engine, size=1, max_size=1)
    with pool.lease("base") as one:
        one.discard()
        with pytest.raises(PoolTimeout):
            pool.acquire("base", 0.01)
    use(pool, "base")
    assert engine.most_loaded == 1


def test_who_waits_for_a_discarded_instance_is_served_once_its_memory_is_back(
    engine: StubEngine, threads: ThreadPoolExecutor
) -> None:
    clock = Clock()
    pool = ModelPool(engine, size=1, max_size=1, clock=clock)
    with pool.lease("base") as spoiled:
        spoiled.discard()
        asked = clock.asked
        waiter = threads.submit(use, pool, "base")
        eventually(lambda: clock.asked >= asked + 2)
    waiter.result(20)
    assert engine.loads == ["base", "base"]
    assert engine.most_loaded == 1


def test_an_instance_may_be_discarded_after_its_release(engine: StubEngine) -> None:
    pool = make_pool(engine)
    instance = pool.acquire("base")
    pool.release(instance)
    pool.discard(instance)
    assert instance.model.closed


def test_any_other_error_leaves_the_instance_in_the_pool(engine: StubEngine) -> None:
    pool = make_pool(engine)
    with pytest.raises(ValueError, match="mine"), pool.lease("base"):
        fail_with(ValueError("mine"))
    use(pool, "base")
    assert engine.loads == ["base"]


def test_a_model_that_cannot_be_closed_costs_nobody_their_job(
    engine: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: StubModel) -> None:
        raise EngineError("stuck")

    pool = make_pool(engine, size=1, max_size=1)
    use(pool, "a")
    monkeypatch.setattr(StubModel, "close", fail)
    use(pool, "b")
    assert loaded(pool) == ["b"]


def test_a_release_too_many_is_a_bug_that_is_told(engine: StubEngine) -> None:
    pool = make_pool(engine)
    instance = pool.acquire("base")
    pool.release(instance)
    with pytest.raises(RuntimeError, match="This is a bug"):
        pool.release(instance)


# --- everything at once ---


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["m10", "m20", "m30", "m40"]), st.sampled_from(["take", "give", "discard"]))),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_whatever_is_taken_given_back_and_discarded_the_limits_hold(
    steps: list[tuple[str, str]], size: int, more: int
) -> None:
    engine = StubEngine()
    pool = make_pool(engine, size=size, max_size=size + more, memory_mb=70)
    held: list[ModelInstance[StubModel]] = []
    with ExitStack() as ends:
        for name, step in steps:
            if step == "take":
                try:
                    held.append(pool.acquire(name, 0))
                except PoolTimeout:
                    assert held, "with nothing in use there is always room"
            elif held and step == "give":
                pool.release(held.pop())
            elif held:
                pool.discard(held[0])
            models = pool.get_stats()["loaded"]
            assert len(models) <= size + more
            assert sum(model["memory_bytes"] for model in models) <= 70 * MB
            assert sum(not model["in_use"] for model in models) <= size
            assert not any(instance.model.closed for instance in held)
        ends.callback(lambda: [pool.release(instance) for instance in held])
    pool.close()
    assert len(engine.closes) == len(engine.loads)
