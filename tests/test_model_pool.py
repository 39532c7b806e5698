"""The pool's promises: loaded once, shared, bounded, oldest use evicted first, and nobody waits for ever."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import model_pool
from errors import Draining, EngineError, ModelUnavailable, OutOfMemory, PoolTimeout
from model_pool import ModelInstance, ModelPool

MB = 1_000_000


class StubModel:
    def __init__(self, engine: "StubEngine", size: str) -> None:
        self.engine = engine
        self.size = size
        self.memory_bytes = engine.bytes_of(size)
        self.closed = False

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self.engine.change(-1)
        self.engine.closes.append(self.size)


class StubEngine:
    """Sizes are named by their megabytes: "m100" takes 100 MB. Each hook runs where a real engine would be busy."""

    def __init__(self, *, free_bytes: int = 10**12) -> None:
        self.loads: list[str] = []
        self.closes: list[str] = []
        self.most_loaded = 0
        self.during_load: Callable[[str], None] = lambda size: None
        self.during_estimate: Callable[[], None] = lambda: None
        self._free_bytes = free_bytes
        self._loaded = 0
        self._taken_bytes = 0
        self._lock = threading.Lock()

    def change(self, by: int) -> None:
        with self._lock:
            self._loaded += by
            self.most_loaded = max(self.most_loaded, self._loaded)

    def bytes_of(self, size: str) -> int:
        return int(size[1:]) * MB if size[1:].isdigit() else MB

    def resolve(self, size: str, compute_type: str) -> tuple[str, str]:
        return {"alias": "base"}.get(size, size), "int8" if compute_type == "default" else compute_type

    def load(self, size: str, compute_type: str) -> StubModel:
        self.loads.append(size)
        self.during_load(size)
        self.change(1)
        return StubModel(self, size)

    def estimate_bytes(self, size: str, compute_type: str) -> int:
        self.during_estimate()
        return self.bytes_of(size)

    def free_bytes(self) -> int:
        taken = sum(map(self.bytes_of, self.loads)) - sum(map(self.bytes_of, self.closes))
        return self._free_bytes - taken


class Clock:
    """Counts how often the pool asked: once when a caller came, and once each time before it waits."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return time.monotonic()


Pool = ModelPool[StubModel]


def make_pool(engine: StubEngine, *, size: int = 4, max_size: int = 4, memory_mb: int = 0) -> Pool:
    return ModelPool(engine, size=size, max_size=max_size, memory_bytes=memory_mb * MB)


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.001)


def use(pool: Pool, *sizes: str) -> None:
    for size in sizes:
        with pool.lease(size):
            pass


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as executor:
        yield executor


def loaded(pool: Pool) -> list[str]:
    return sorted(model["size"] for model in pool.get_stats()["loaded"])


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
    go_on, begun = threading.Event(), threading.Event()
    engine.during_load = lambda size: (begun.set(), go_on.wait(20)) and None
    slow = threads.submit(use, pool, "large")
    assert begun.wait(20)
    with pool.lease("tiny", 0):
        assert not slow.done()
    go_on.set()
    slow.result(20)


# --- a failed load -------------------------------------------------------------------------------------------------


def waiting_for_a_load(
    engine: StubEngine, threads: ThreadPoolExecutor, fails: Callable[[], None]
) -> tuple[Pool, Future[None], Future[None]]:
    """One thread loads and will do `fails`, another waits for it."""
    clock = Clock()
    pool = ModelPool(engine, size=2, max_size=2, clock=clock)
    begun = threading.Event()

    def hook(size: str) -> None:
        begun.set()
        eventually(lambda: clock.asked >= 4)  # two callers, the loader's start, the other one's wait
        engine.during_load = lambda size: None
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
    def fail(size: str) -> None:
        raise EngineError("once")

    pool = make_pool(engine, size=1, max_size=1)
    engine.during_load = fail
    with pytest.raises(EngineError, match="once"):
        pool.acquire("base", 0)
    engine.during_load = lambda size: None
    use(pool, "base")
    assert loaded(pool) == ["base"]


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
        random = Random(seed)  # noqa: S311 (a sequence to repeat, no secret)
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
        with pytest.raises(PoolTimeout, match="in use: a int8") as caught:
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
    go_on, begun = threading.Event(), threading.Event()
    engine.during_load = lambda size: (begun.set(), go_on.wait(20)) and None
    slow = threads.submit(use, pool, "m100")
    assert begun.wait(20)
    with pytest.raises(PoolTimeout, match="loading: m100"):
        pool.acquire("m90", 0.01)
    go_on.set()
    slow.result(20)


def test_a_model_larger_than_the_budget_is_out_of_memory_at_once(engine: StubEngine) -> None:
    pool = make_pool(engine, memory_mb=50)
    with pytest.raises(OutOfMemory, match="MODEL_POOL_MEMORY_MB"):
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
    with pytest.raises(OutOfMemory), pool.lease("base") as spoiled:
        raise OutOfMemory
    assert spoiled.model.closed
    with pool.lease("base") as fresh:
        assert fresh.model is not spoiled.model


def test_a_discarded_instance_gives_its_memory_back_when_its_last_lease_ends(engine: StubEngine) -> None:
    pool = make_pool(engine)
    with pool.lease("base") as one:
        with pool.lease("base") as other:
            other.discard()
            other.discard()
        assert not one.model.closed
        with pool.lease("base") as fresh:
            assert fresh.model is not one.model
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


def test_an_instance_may_be_discarded_after_its_release(engine: StubEngine) -> None:
    pool = make_pool(engine)
    instance = pool.acquire("base")
    pool.release(instance)
    pool.discard(instance)
    assert instance.model.closed


def test_any_other_error_leaves_the_instance_in_the_pool(engine: StubEngine) -> None:
    pool = make_pool(engine)
    with pytest.raises(ValueError, match="mine"), pool.lease("base"):
        raise ValueError("mine")
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
        assert model_pool.process_pool().get_stats()["misses"] == 1
    finally:
        model_pool.install(None)


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
