"""Out of memory degrades instead of failing: the ladder, and a job's way down it with the true foreign exceptions."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import MODEL_SIZES
from engines.catalog import canonical
from engines.foreign import foreign_errors
from engines.memory import MB, table_bytes
from errors import EngineCrashed, EngineError, LoadCrashed, ModelUnavailable, OutOfMemory
from jobs.fallback import Fallback, Rung, ladder
from model_pool import ModelPool

FULL = "CUDA failed with error out of memory"
WEIGHTS_MB = {"large-v3": 3090, "medium": 1530, "small": 480, "base": 145, "tiny": 75}


class CardModel:
    def __init__(self, card: "Card", size: str, compute_type: str) -> None:
        self.card = card
        self.size = size
        self.compute_type = compute_type
        self.memory_bytes = card.weights_mb(size, compute_type) * MB

    def transcribe(self, windows: Sequence[int]) -> list[str]:
        with foreign_errors():
            if self.card.used_mb() + self.card.window_mb * len(windows) > self.card.free_mb:
                raise RuntimeError(self.card.says)
            self.card.done.update(windows)
            return [f"{self.size} {window}" for window in windows]

    def close(self) -> None:
        self.card.models.remove(self)


class Card:
    """A GPU with so much memory, that raises what CUDA raises when it is full."""

    def __init__(self, free_mb: int, *, window_mb: int = 100, says: str = FULL) -> None:
        self.free_mb = free_mb
        self.window_mb = window_mb
        self.says = says
        self.models: list[CardModel] = []
        self.loads: list[tuple[str, str]] = []
        self.done: Counter[int] = Counter()
        self.missing: set[str] = set()
        self.killed_by: set[str] = set()

    def weights_mb(self, size: str, compute_type: str) -> int:
        return WEIGHTS_MB[size] // (2 if compute_type.startswith("int8") else 1)

    def used_mb(self) -> int:
        return sum(model.memory_bytes for model in self.models) // MB

    def resolve(self, size: str, compute_type: str) -> tuple[str, str]:
        return size, "float16" if compute_type == "default" else compute_type

    def load(self, size: str, compute_type: str) -> CardModel:
        self.loads.append((size, compute_type))
        with foreign_errors():
            if size in self.missing:
                raise FileNotFoundError(size)
            if size in self.killed_by:
                raise LoadCrashed("Loading the model has killed the engine twice.")
            if self.used_mb() + self.weights_mb(size, compute_type) > self.free_mb:
                raise RuntimeError(self.says)
        model = CardModel(self, size, compute_type)
        self.models.append(model)
        return model

    def estimate_bytes(self, size: str, compute_type: str) -> int:
        return 0  # an estimate that sees nothing coming: only the card itself refuses

    def free_bytes(self) -> int:
        return 0


def pool_of(card: Card, *, allow_smaller: bool = True) -> ModelPool[CardModel]:
    return ModelPool(card, size=2, max_size=4, allow_smaller=allow_smaller)


def transcribe(model: CardModel, windows: Sequence[int]) -> list[str]:
    return model.transcribe(windows)


# --- the ladder itself ---------------------------------------------------------------------------------------------


def test_the_ladder_goes_from_the_same_again_to_the_smallest_model() -> None:
    assert list(ladder("large-v3", "float16", 8)) == [
        Rung("large-v3", "float16", 8),
        Rung("large-v3", "float16", 4),
        Rung("large-v3", "float16", 2),
        Rung("large-v3", "float16", 1),
        Rung("large-v3", "int8_float16", 1),
        Rung("medium", "int8_float16", 1),
        Rung("small", "int8_float16", 1),
        Rung("base", "int8_float16", 1),
        Rung("tiny", "int8_float16", 1),
    ]


def test_a_model_that_is_int8_already_skips_that_rung() -> None:
    assert list(ladder("base", "int8", 1)) == [Rung("base", "int8", 1), Rung("tiny", "int8", 1)]


@pytest.mark.parametrize("size", ["demo", "/models/mine", "tiny", "tiny.en"])
def test_below_the_smallest_and_the_unknown_there_is_no_other_model(size: str) -> None:
    assert list(ladder(size, "int8", 2)) == [Rung(size, "int8", 2), Rung(size, "int8", 1)]


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_every_size_ends_at_the_smallest_of_its_family(size: str) -> None:
    rungs = list(ladder(size, "float16", 1))
    last = rungs[-1].size
    if size == "demo":
        assert last == "demo"
    else:
        assert last == ("tiny.en" if size.endswith(".en") else "tiny")
    assert all(rung.size in MODEL_SIZES for rung in rungs)
    assert all(rung.size.endswith(".en") for rung in rungs) == size.endswith(".en")


@settings(deadline=None)
@given(st.sampled_from(MODEL_SIZES), st.sampled_from(["float32", "float16", "bfloat16", "int8"]), st.integers(1, 64))
def test_no_rung_needs_more_than_the_one_before(size: str, compute_type: str, batch: int) -> None:
    rungs = list(ladder(size, compute_type, batch))
    assert len(set(rungs)) == len(rungs)
    needs = [table_bytes(canonical(rung.size), rung.compute_type) or 0 for rung in rungs]
    assert needs == sorted(needs, reverse=True)
    assert [rung.batch for rung in rungs] == sorted((rung.batch for rung in rungs), reverse=True)


# --- a job's way down ----------------------------------------------------------------------------------------------


def test_with_enough_memory_nothing_falls_back() -> None:
    fallback = Fallback(pool_of(Card(24_000)), "large-v3", batch=8)
    assert list(fallback.map(transcribe, range(20))) == [f"large-v3 {number}" for number in range(20)]
    assert fallback.rung == Rung("large-v3", "float16", 8)
    assert fallback.steps == 0


def test_an_idle_model_goes_before_anything_else_changes() -> None:
    card = Card(3400)
    pool = pool_of(card)
    with pool.lease("small"):
        pass
    fallback = Fallback(pool, "large-v3", batch=2)
    assert list(fallback.map(transcribe, [1, 2])) == ["large-v3 1", "large-v3 2"]
    assert fallback.rung == Rung("large-v3", "float16", 2)
    assert fallback.steps == 1
    assert [model.size for model in card.models] == ["large-v3"]


def test_a_full_batch_is_halved_and_what_is_done_stays_done() -> None:
    card = Card(3800)
    fallback = Fallback(pool_of(card), "large-v3", batch=4)
    results = fallback.map(transcribe, range(12))
    assert [next(results) for _ in range(4)] == [f"large-v3 {number}" for number in range(4)]
    card.free_mb = 3400  # somebody else took memory
    assert list(results) == [f"large-v3 {number}" for number in range(4, 12)]
    assert fallback.rung == Rung("large-v3", "float16", 2)
    assert set(card.done.values()) == {1}


def test_a_smaller_batch_is_not_tried_where_the_weights_alone_do_not_fit() -> None:
    card = Card(1700)
    fallback = Fallback(pool_of(card), "large-v3", batch=8)
    assert list(fallback.map(transcribe, [1])) == ["large-v3 1"]
    assert card.loads == [("large-v3", "float16"), ("large-v3", "float16"), ("large-v3", "int8_float16")]
    assert fallback.rung == Rung("large-v3", "int8_float16", 1)


def test_the_next_smaller_model_is_named_as_what_was_used() -> None:
    card = Card(400)
    fallback = Fallback(pool_of(card), "large-v3", batch=1)
    assert list(fallback.map(transcribe, [1, 2])) == ["small 1", "small 2"]
    assert fallback.rung == Rung("small", "int8_float16", 1)


def test_a_job_does_not_climb_back_when_memory_returns() -> None:
    card = Card(400)
    fallback = Fallback(pool_of(card), "large-v3")
    assert fallback.run(lambda model: model.size) == "small"
    fallen = fallback.rung
    card.free_mb = 24_000
    assert fallback.run(lambda model: model.size) == fallen.size
    assert fallback.rung == fallen


def test_the_next_job_begins_at_the_top_again() -> None:
    card = Card(400)
    pool = pool_of(card)
    Fallback(pool, "large-v3").run(lambda model: model.size)
    card.free_mb = 24_000
    assert Fallback(pool, "large-v3").run(lambda model: model.size) == "large-v3"


def test_without_leave_to_fall_back_the_model_stays_and_the_error_comes() -> None:
    card = Card(400)
    fallback = Fallback(pool_of(card, allow_smaller=False), "large-v3", batch=2)
    with pytest.raises(OutOfMemory):
        list(fallback.map(transcribe, [1]))
    assert {size for size, _ in card.loads} == {"large-v3"}
    assert ("large-v3", "int8_float16") in card.loads


def test_below_the_last_rung_the_last_error_is_raised_and_nothing_is_left_behind() -> None:
    card = Card(20)
    pool = pool_of(card)
    fallback = Fallback(pool, "small")
    with pytest.raises(OutOfMemory, match="ran out of memory"):
        fallback.run(lambda model: model.size)
    assert card.models == []
    assert pool.get_stats()["loaded"] == []
    with pytest.raises(OutOfMemory):
        fallback.run(lambda model: model.size)


def test_a_smaller_model_that_is_not_here_is_skipped() -> None:
    card = Card(400)
    card.missing = {"medium", "small"}
    fallback = Fallback(pool_of(card), "large-v3")
    assert list(fallback.map(transcribe, [1])) == ["base 1"]


def test_when_no_smaller_model_is_here_the_error_is_out_of_memory() -> None:
    card = Card(400)
    card.missing = {"base", "tiny", "medium", "small"}
    with pytest.raises(OutOfMemory):
        Fallback(pool_of(card), "large-v3").run(lambda model: model.size)


def test_a_model_asked_for_that_is_not_here_is_no_reason_to_fall_back() -> None:
    card = Card(24_000)
    card.missing = {"small"}
    with pytest.raises(ModelUnavailable):
        Fallback(pool_of(card), "small").run(lambda model: model.size)
    assert card.loads == [("small", "float16")]


def test_any_other_engine_error_goes_straight_through() -> None:
    def fail(model: CardModel) -> None:
        raise EngineError("no")

    card = Card(24_000)
    fallback = Fallback(pool_of(card), "small")
    with pytest.raises(EngineError, match="no"):
        fallback.run(fail)
    assert fallback.steps == 0
    assert len(card.models) == 1


def test_each_step_is_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr("jobs.fallback.emit", lambda name, **fields: told.append({"name": name, **fields}))
    pool = pool_of(Card(1580))
    fallback = Fallback(pool, "large-v3", batch=2)
    list(fallback.map(transcribe, [1, 2]))
    steps = [event for event in told if event["name"] == "pool.oom"]
    assert len(steps) == pool.get_stats()["oom_fallbacks"] == fallback.steps
    assert steps[0] == {
        "name": "pool.oom",
        "during": "load",
        "size": "large-v3",
        "compute_type": "float16",
        "batch": 2,
        "next": "large-v3 float16 x2",
    }
    assert steps[-1]["during"] == "call"
    assert steps[-1]["next"] == "medium int8_float16 x1"


def test_windows_are_read_only_as_they_are_needed() -> None:
    read: list[int] = []

    def windows() -> Iterator[int]:
        for number in range(6):
            read.append(number)
            yield number

    results = Fallback(pool_of(Card(24_000)), "base", batch=2).map(transcribe, windows())
    assert next(results) == "base 0"
    assert read == [0, 1]


def test_an_engine_that_loses_a_window_is_a_bug_that_is_told() -> None:
    fallback = Fallback(pool_of(Card(24_000)), "base", batch=2)
    with pytest.raises(RuntimeError, match="This is a bug"):
        list(fallback.map(lambda model, windows: model.transcribe(windows)[:-1], [1, 2]))


@pytest.mark.parametrize(
    "says",
    [
        "CUDA failed with error out of memory",
        "cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED",
        "cuBLAS failed with status CUBLAS_STATUS_NOT_INITIALIZED",
        "parallel_for failed: cudaErrorInvalidDevice: invalid device ordinal",
        "std::bad_alloc",
    ],
)
def test_every_way_of_saying_out_of_memory_walks_the_ladder(says: str) -> None:
    fallback = Fallback(pool_of(Card(400, says=says)), "large-v3", batch=4)
    assert list(fallback.map(transcribe, [1])) == ["small 1"]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(WEIGHTS_MB)),
    st.integers(1, 9),
    st.lists(st.integers(20, 5000), min_size=1, max_size=8),
    st.integers(1, 30),
)
def test_whatever_the_memory_each_window_is_done_once_in_order_or_the_job_runs_out(
    size: str, batch: int, free_mb: list[int], count: int
) -> None:
    """Other processes take and give memory while the job runs: before each window another amount is free."""
    card = Card(free_mb[0])
    fallback = Fallback(pool_of(card), size, batch=batch)

    def windows() -> Iterator[int]:
        for number in range(count):
            card.free_mb = free_mb[number % len(free_mb)]
            yield number

    results: list[str] = []
    try:
        results.extend(fallback.map(transcribe, windows()))
    except OutOfMemory:
        assert fallback.rung.batch == 1
        assert fallback.rung.size == "tiny"
    else:
        assert len(results) == count
    assert [int(result.split()[1]) for result in results] == list(range(len(results)))
    assert set(card.done.values()) <= {1}
    assert card.used_mb() == sum(model.memory_bytes for model in card.models) // MB


def test_a_shared_instance_that_ran_out_of_memory_stays_for_the_others_until_they_are_done() -> None:
    card = Card(500)
    pool = pool_of(card)
    with pool.lease("base", compute_type="float16") as other:
        fallback = Fallback(pool, "base", batch=4)
        assert list(fallback.map(transcribe, range(4))) == [f"base {number}" for number in range(4)]
        assert other.model in card.models
        assert other.model.transcribe([9]) == ["base 9"]
    assert other.model not in card.models


# --- loads that kill the engine server -----------------------------------------------------------------------------


def test_a_model_whose_load_kills_the_server_is_not_asked_for_again_but_a_smaller_one_is() -> None:
    card = Card(24_000)
    card.killed_by = {"medium", "small"}
    fallback = Fallback(pool_of(card), "medium", compute_type="int8", batch=4)
    assert list(fallback.map(transcribe, [1, 2])) == ["base 1", "base 2"]
    assert card.loads == [("medium", "int8"), ("small", "int8"), ("base", "int8")]


def test_a_load_that_kills_the_server_fails_the_job_once_no_step_is_left() -> None:
    card = Card(24_000)
    card.killed_by = {"medium"}
    with pytest.raises(LoadCrashed):
        Fallback(pool_of(card, allow_smaller=False), "medium").run(lambda model: model.size)
    assert card.loads == [("medium", "float16"), ("medium", "int8_float16")]


def test_a_server_that_died_and_cannot_load_the_model_again_is_answered_by_a_smaller_one() -> None:
    """The model was there; then the server was started anew, and its lanes load for the rows that wait."""
    fallback = Fallback(pool_of(Card(24_000)), "medium", compute_type="int8", batch=4)

    def call(model: CardModel) -> str:
        if model.size == "medium":
            raise LoadCrashed("Loading the model has killed the engine twice.")
        return model.size

    assert fallback.run(call) == "small"
    assert fallback.rung.batch == 1


def test_a_recording_that_kills_the_server_is_not_tried_on_a_smaller_model() -> None:
    card = Card(24_000)

    def call(model: CardModel) -> None:
        raise EngineCrashed("This recording has killed the engine twice.")

    with pytest.raises(EngineCrashed):
        Fallback(pool_of(card), "medium").run(call)
    assert card.loads == [("medium", "float16")]
