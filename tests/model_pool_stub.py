"""A stand-in for an engine, whose sizes are named by their megabytes, and what the tests of the pool share."""

import threading
import time
from collections.abc import Callable

from model_pool import ModelPool

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
        self.during_load: Callable[[], object] = lambda: None
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
        self.during_load()
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


class Gate:
    """A load that takes until the test says so."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.go_on.wait(20)


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


def fail_with(error: Exception) -> None:
    raise error


def loaded(pool: Pool) -> list[str]:
    return sorted(model["size"] for model in pool.get_stats()["loaded"])
