"""The pool's promises: a model is loaded once and shared, a failed load harms nobody, the counters tell the truth."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

import model_pool
from errors import Draining, EngineError, ModelUnavailable
from model_pool import ModelInstance, ModelPool
from tests.model_pool_stub import (
    MB,
    Clock,
    Gate,
    Pool,
    StubEngine,
    StubModel,
    eventually,
    loaded,
    make_pool,
    use,
)


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


# --- loaded once, shared -------------------------------------------------------------------------------------------


def test_a_second_use_gets_the_same_instance_and_loads_nothing(engine: StubEngine) -> None:
    pool = make_pool(engine)
    first = pool.acquire("base")
    pool.release(first)
    second = pool.acquire("base")
    assert second is first
    assert engine.loads == ["base"]


def test_a_model_may_be_leased_to_two_users_at_once(engine: StubEngine) -> None:
    pool = make_pool(engine)
    with pool.lease("base") as one, pool.lease("base") as other:
        assert one.model is other.model
        assert pool.get_stats()["loaded"][0]["in_use"] == 2


def test_two_names_of_one_model_share_it(engine: StubEngine) -> None:
    pool = make_pool(engine)
    use(pool, "alias", "base")
    assert engine.loads == ["base"]


def test_the_same_size_in_another_type_is_another_model(engine: StubEngine) -> None:
    pool = make_pool(engine)
    with pool.lease("base") as one, pool.lease("base", compute_type="float32") as other:
        assert one.model is not other.model


def test_two_threads_that_ask_for_one_size_at_once_load_it_once(
    engine: StubEngine, threads: ThreadPoolExecutor
) -> None:
    """The engine invites the other thread in where the pool has looked and not yet said that it loads."""
    meeting = threading.Barrier(2)

    def invite() -> None:
        try:
            meeting.wait(0.5)  # with the lock held nobody else can come, and this breaks
        except threading.BrokenBarrierError:
            return

    engine.during_estimate = invite
    pool = make_pool(engine)
    start = threading.Barrier(2)

    def ask() -> ModelInstance[StubModel]:
        start.wait(10)
        return pool.acquire("base", 10)

    futures = [threads.submit(ask) for _ in range(2)]
    one, other = (future.result(20) for future in futures)
    assert engine.loads == ["base"]
    assert one is other
    assert one.in_use == 2


def test_a_load_does_not_keep_other_sizes_waiting(engine: StubEngine, threads: ThreadPoolExecutor) -> None:
    pool = make_pool(engine)
    use(pool, "tiny")
    gate = engine.during_load = Gate()
    slow = threads.submit(use, pool, "large")
    assert gate.begun.wait(20)
    with pool.lease("tiny", 0):
        assert not slow.done()
    gate.go_on.set()
    slow.result(20)


# --- a failed load -------------------------------------------------------------------------------------------------


def waiting_for_a_load(
    engine: StubEngine, threads: ThreadPoolExecutor, fails: Callable[[], None]
) -> tuple[Pool, Future[None], Future[None]]:
    """One thread loads and will do `fails`, another waits for it."""
    clock = Clock()
    pool = ModelPool(engine, size=2, max_size=2, clock=clock)
    begun = threading.Event()

    def hook() -> None:
        begun.set()
        eventually(lambda: clock.asked >= 4)  # two callers, the loader's start, the other one's wait
        engine.during_load = lambda: None
        fails()

    engine.during_load = hook
    first = threads.submit(use, pool, "base")
    assert begun.wait(20)
    return pool, first, threads.submit(use, pool, "base")


def test_who_waits_for_a_load_that_fails_gets_its_error(engine: StubEngine, threads: ThreadPoolExecutor) -> None:
    def fails() -> None:
        raise ModelUnavailable("not there")

    _, first, second = waiting_for_a_load(engine, threads, fails)
    with pytest.raises(ModelUnavailable, match="not there") as one:
        first.result(20)
    with pytest.raises(ModelUnavailable, match="not there") as other:
        second.result(20)
    assert one.value is not other.value
    assert engine.loads == ["base"]


def test_who_waits_for_a_load_that_was_interrupted_loads_itself(
    engine: StubEngine, threads: ThreadPoolExecutor
) -> None:
    def fails() -> None:
        raise KeyboardInterrupt

    _, first, second = waiting_for_a_load(engine, threads, fails)
    with pytest.raises(KeyboardInterrupt):
        first.result(20)
    second.result(20)
    assert engine.loads == ["base", "base"]


def test_a_failed_load_leaves_the_place_free(engine: StubEngine) -> None:
    def fail() -> None:
        raise EngineError("once")

    pool = make_pool(engine, size=1, max_size=1)
    engine.during_load = fail
    with pytest.raises(EngineError, match="once"):
        pool.acquire("base", 0)
    engine.during_load = lambda: None
    use(pool, "base")
    assert loaded(pool) == ["base"]


# --- unloading -----------------------------------------------------------------------------------------------------


def test_a_model_is_unloaded_by_any_of_its_names_and_in_every_type(engine: StubEngine) -> None:
    pool = make_pool(engine)
    use(pool, "base", "tiny")
    with pool.lease("base", compute_type="float32"):
        pass
    pool.unload("alias")
    assert engine.closes == ["base", "base"]
    assert loaded(pool) == ["tiny"]


def test_a_model_in_use_is_unloaded_when_its_leases_end_and_handed_out_no_more(engine: StubEngine) -> None:
    pool = make_pool(engine)
    with pool.lease("base") as one, pool.lease("base"):
        pool.unload("base")
        pool.unload("base")
        assert engine.closes == []
        with pool.lease("base") as newer:
            assert newer.model is not one.model
        assert loaded(pool) == ["base", "base"]
    assert engine.closes == ["base"]
    assert not newer.model.closed
    assert loaded(pool) == ["base"]


def test_a_load_under_way_is_not_unloaded(engine: StubEngine, threads: ThreadPoolExecutor) -> None:
    pool = make_pool(engine)
    gate = engine.during_load = Gate()
    loading = threads.submit(use, pool, "base")
    assert gate.begun.wait(20)
    pool.unload("base")
    gate.go_on.set()
    loading.result(20)
    assert loaded(pool) == ["base"]


def test_unloading_makes_room_for_whoever_waits(engine: StubEngine, threads: ThreadPoolExecutor) -> None:
    clock = Clock()
    pool = ModelPool(engine, size=1, max_size=1, clock=clock)
    with pool.lease("a"):
        asked = clock.asked
        waiter = threads.submit(use, pool, "b")
        eventually(lambda: clock.asked >= asked + 2)
        pool.unload("a")
    waiter.result(20)
    assert engine.closes == ["a"]


def test_unloading_is_no_eviction_and_no_use(engine: StubEngine) -> None:
    pool = make_pool(engine)
    use(pool, "base")
    before = pool.get_stats()
    pool.unload("base")
    pool.unload("never loaded")
    assert pool.get_stats() == {**before, "loaded": []}


def test_a_model_given_as_a_path_is_told_whole_to_operators(engine: StubEngine) -> None:
    pool = make_pool(engine)
    use(pool, "/models/mine/base")
    assert loaded(pool) == ["/models/mine/base"]


# --- closing, counting, the process's own pool ---------------------------------------------------------------------


def test_evict_idle_unloads_what_nobody_uses_and_says_how_many(engine: StubEngine) -> None:
    pool = make_pool(engine)
    use(pool, "a", "b")
    with pool.lease("c"):
        assert pool.evict_idle() == 2
    assert loaded(pool) == ["c"]


def test_a_closed_pool_unloads_at_the_last_release_and_takes_no_new_work(engine: StubEngine) -> None:
    pool = make_pool(engine)
    use(pool, "idle")
    with pool.lease("busy") as busy:
        pool.close()
        assert engine.closes == ["idle"]
        with pytest.raises(Draining):
            pool.acquire("busy")
    assert busy.model.closed


def test_closing_wakes_whoever_waits(engine: StubEngine, threads: ThreadPoolExecutor) -> None:
    clock = Clock()
    pool = ModelPool(engine, size=1, max_size=1, clock=clock)
    with pool.lease("a"):
        asked = clock.asked
        waiter = threads.submit(use, pool, "b")
        eventually(lambda: clock.asked >= asked + 2)
        pool.close()
        with pytest.raises(Draining):
            waiter.result(20)


def test_the_counters_say_what_happened(engine: StubEngine) -> None:
    before = datetime.now(UTC)
    pool = make_pool(engine, size=1)
    use(pool, "m10", "m10", "m20")
    stats = pool.get_stats()
    (model,) = stats.pop("loaded")
    assert stats == {"hits": 1, "misses": 2, "evictions": 1, "oom_fallbacks": 0, "hit_rate": pytest.approx(1 / 3)}
    assert (model["size"], model["compute_type"], model["memory_bytes"]) == ("m20", "int8", 20 * MB)
    assert (model["use_count"], model["in_use"]) == (1, 0)
    assert before <= model["loaded_at"] <= model["last_used"] <= datetime.now(UTC)


def test_nothing_is_counted_before_the_first_use(engine: StubEngine) -> None:
    assert make_pool(engine).get_stats()["hit_rate"] == 0


def test_the_process_has_one_pool_once_it_is_installed(engine: StubEngine) -> None:
    with pytest.raises(RuntimeError, match="install"), model_pool.acquire_model("base"):
        pass
    model_pool.install(make_pool(engine))
    try:
        with model_pool.acquire_model("base", timeout=1) as model:
            assert model.size == "base"
    finally:
        model_pool.install(None)
