"""ModelPool: load once, lease, keep to the budget, evict the oldest use. jobs/fallback.py: when memory runs out.

Engine-neutral. Models are thread-safe, so one may be leased to many at once: a count says when its memory goes back.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Condition
from typing import Any, Generic, Protocol, TypeVar

from errors import (
    Draining,
    EngineBroken,
    EngineError,
    EngineUnavailable,
    OutOfMemory,
    PoolTimeout,
)
from telemetry.events import count, emit

Key = tuple[str, str]  # size, compute type
_now = partial(datetime.now, UTC)
_LOOK_AGAIN_S = 1.0  # memory that another process frees comes without a notice


class Loaded(Protocol):
    @property
    def memory_bytes(self) -> int: ...
    def close(self) -> None: ...


M = TypeVar("M", bound=Loaded)
M_co = TypeVar("M_co", bound=Loaded, covariant=True)
W = TypeVar("W")
R = TypeVar("R")


class Loader(Protocol[M_co]):
    """The part of an Engine that the pool needs."""

    def resolve(self, size: str, compute_type: str) -> Key: ...
    def load(self, size: str, compute_type: str) -> M_co: ...
    def estimate_bytes(self, size: str, compute_type: str) -> int: ...
    def free_bytes(self) -> int: ...


@dataclass(slots=True, eq=False)
class ModelInstance(Generic[M]):
    """A loaded model and how it is used. Only its pool writes it, under the pool's lock."""

    pool: "ModelPool[M]" = field(repr=False)
    model: M
    size: str
    compute_type: str
    loaded_at: datetime = field(default_factory=_now)
    last_used: datetime = field(default_factory=_now)
    use_count: int = 0
    in_use: int = 0  # leases; the model is idle at 0
    discarded: bool = False

    @property
    def key(self) -> Key:
        return self.size, self.compute_type

    def described(self) -> dict[str, Any]:
        told = ("size", "compute_type", "loaded_at", "last_used", "use_count", "in_use")
        return {"memory_bytes": self.model.memory_bytes, **{name: getattr(self, name) for name in told}}

    def discard(self) -> None:
        """Nobody gets this instance again; its memory is given back when the last lease on it ends."""
        self.pool.discard(self)


@dataclass(slots=True, eq=False)
class _Load:
    """A load under way; whoever else wants that model waits for it and shares its error."""

    memory_bytes: int
    error: EngineError | None = None
    ended: bool = False


class ModelPool(Generic[M]):
    """At most `max_size` models loaded, at most `size` of them idle, `memory_bytes` in all (0: what is free)."""

    def __init__(
        self,
        engine: Loader[M],
        *,
        size: int,
        max_size: int,
        memory_bytes: int = 0,
        allow_smaller: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.allow_smaller = allow_smaller  # what a Fallback may do
        self._engine = engine
        self._size = size
        self._max_size = max_size
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._changed = Condition()  # guards lookup, reference counts and budget; nothing loads or unloads under it
        self._ready: OrderedDict[Key, ModelInstance[M]] = OrderedDict()  # least recently released first
        self._loads: dict[Key, _Load] = {}
        self._retired: list[ModelInstance[M]] = []  # never handed out again, but their memory is not back yet
        self._closed = False
        self._counts = dict.fromkeys(("hits", "misses", "evictions", "oom_fallbacks"), 0)

    def acquire(self, model_size: str, timeout: float = 300.0, *, compute_type: str = "default") -> ModelInstance[M]:
        """In use by the caller until `release`. `timeout` (seconds) is for waiting. Raises PoolTimeout, Draining."""
        key = self._engine.resolve(model_size, compute_type)
        deadline = self._clock() + timeout
        with self._changed:
            while not self._closed:
                if (instance := self._ready.get(key)) is not None:
                    self._counts["hits"] += 1
                    count("pool.hit")
                    return self._hand_out(instance)
                if key in self._loads:
                    self._join(self._loads[key], deadline)
                elif self._fits(key):
                    return self._hand_out(self._load(key))
                elif not self._evict_oldest("room"):
                    self._wait(deadline)
            raise Draining("This worker is stopping: it takes no new work.")

    def release(self, instance: ModelInstance[M]) -> None:
        with self._changed:
            if not instance.in_use:
                raise RuntimeError("This is a bug: a model was released more often than it was acquired.")
            instance.in_use -= 1
            instance.last_used = _now()
            if not instance.in_use and instance.discarded:
                self._unload(instance, "discarded")
            elif not instance.in_use:
                self._ready.move_to_end(instance.key)
                self._changed.notify_all()
                while len(self._idle()) > (0 if self._closed else self._size) and self._evict_oldest("idle"):
                    pass

    def discard(self, instance: ModelInstance[M]) -> None:
        with self._changed:
            if not instance.discarded:
                self._retire(instance)
                if not instance.in_use:
                    self._unload(instance, "discarded")

    def unload(self, size: str) -> None:
        """Discard `size` in every compute type: leases go on to their end, and who needs it after that loads it."""
        name, _ = self._engine.resolve(size, "default")
        with self._changed:
            found = [instance for instance in self._ready.values() if instance.size == name]
        for instance in found:
            instance.discard()

    @contextmanager
    def lease(self, size: str, timeout: float = 300.0, *, compute_type: str = "default") -> Iterator[ModelInstance[M]]:
        """As `acquire`, for the length of the block. An instance that raised OutOfMemory in it is discarded."""
        lease = self.acquire(size, timeout, compute_type=compute_type)
        try:
            yield lease
        except OutOfMemory:
            lease.discard()
            raise
        finally:
            self.release(lease)

    @contextmanager
    def acquire_model(self, model_size: str, timeout: float = 300.0) -> Iterator[M]:
        with self.lease(model_size, timeout) as lease:
            yield lease.model

    def evict_idle(self) -> int:
        """Unload every model that nobody uses; how many there were."""
        with self._changed:
            return sum(iter(lambda: self._evict_oldest("idle"), False))  # noqa: FBT003 (where the iterator ends)

    def close(self) -> None:
        """Give out no more models; unload the idle ones now and the others when their leases end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.evict_idle()

    def resolve(self, size: str, compute_type: str) -> Key:
        return self._engine.resolve(size, compute_type)

    def count_fallback(self) -> None:
        with self._changed:
            self._counts["oom_fallbacks"] += 1

    def get_stats(self) -> dict[str, Any]:
        """`hits` needed no load of their own, `misses` began one. Times are aware datetimes."""
        with self._changed:
            hit_rate = self._counts["hits"] / max(1, self._counts["hits"] + self._counts["misses"])
            return {**self._counts, "hit_rate": hit_rate, "loaded": [one.described() for one in self._held()]}

    # Below here the lock is held on entry and on return.
    def _hand_out(self, instance: ModelInstance[M]) -> ModelInstance[M]:
        instance.in_use += 1
        instance.use_count += 1
        instance.last_used = _now()
        return instance

    def _held(self) -> list[ModelInstance[M]]:
        return [*self._ready.values(), *self._retired]

    def _idle(self) -> list[ModelInstance[M]]:
        return [instance for instance in self._ready.values() if not instance.in_use]

    def _fits(self, key: Key) -> bool:
        """Whether `key` may be loaded now. Raises OutOfMemory where the budget could never hold it."""
        held = self._held()
        if len(held) + len(self._loads) >= self._max_size:
            return False
        needed = self._engine.estimate_bytes(*key)
        if self._memory_bytes and needed > self._memory_bytes:
            budget = f"the pool's budget is {self._memory_bytes / 1e6:.0f} MB"
            raise OutOfMemory(f"The model needs {needed / 1e6:.0f} MB; {budget}.")
        taken = sum(one.model.memory_bytes for one in held)
        free = self._memory_bytes - taken if self._memory_bytes else self._engine.free_bytes()
        # With nothing to unload or to wait for, the engine tries: the estimate may be too high.
        return needed + sum(load.memory_bytes for load in self._loads.values()) <= free or not (held or self._loads)

    def _load(self, key: Key) -> ModelInstance[M]:
        self._counts["misses"] += 1
        load = self._loads[key] = _Load(self._engine.estimate_bytes(*key))
        try:
            with self._unlocked():
                started = self._clock()
                with _no_fault_of_a_recording():
                    model = self._engine.load(*key)
                emit("pool.loaded", **labels(*key), seconds=round(self._clock() - started, 3))
        except EngineError as error:
            load.error = error
            raise
        finally:
            load.ended = True
            del self._loads[key]
            self._changed.notify_all()
        return self._ready.setdefault(key, ModelInstance(self, model, *key))

    def _join(self, load: _Load, deadline: float) -> None:
        while not load.ended:
            self._wait(deadline)
        if load.error is not None:
            # A new one: one object raised in two threads mixes up its tracebacks
            raise type(load.error)(*load.error.args) from load.error

    def _wait(self, deadline: float) -> None:
        left = deadline - self._clock()
        if left <= 0:
            keys = [*(one.key for one in self._held()), *self._loads]
            busy = ", ".join(" ".join(labels(*key).values()) for key in keys)
            raise PoolTimeout(
                f"No model came free in time (in use or loading: {busy or 'none'}; at most {self._max_size}). "
                "Raise MODEL_POOL_MAX_SIZE or MODEL_POOL_MEMORY_MB, or run fewer jobs at once."
            )
        self._changed.wait(min(left, _LOOK_AGAIN_S))

    def _evict_oldest(self, reason: str) -> bool:
        if idle := self._idle():
            self._counts["evictions"] += 1
            self._retire(idle[0])
            self._unload(idle[0], reason)
        return bool(idle)

    def _retire(self, instance: ModelInstance[M]) -> None:
        instance.discarded = True
        del self._ready[instance.key]
        self._retired.append(instance)

    def _unload(self, instance: ModelInstance[M], reason: str) -> None:
        try:
            with self._unlocked():
                instance.model.close()
                emit("pool.evicted", **labels(*instance.key), reason=reason)
        except EngineError as error:  # whoever runs into this did not ask for it: it must not cost them their job
            emit("pool.close_failed", **labels(*instance.key), error=str(error))
        finally:
            self._retired.remove(instance)
            self._changed.notify_all()

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        self._changed.release()
        try:
            yield
        finally:
            self._changed.acquire()


def labels(size: str, compute_type: str) -> dict[str, str]:
    """For events and messages: of a model given as a path they tell the last part only."""
    return {"size": size.rpartition("/")[2], "compute_type": compute_type}


@contextmanager
def _no_fault_of_a_recording() -> Iterator[None]:
    """What a load raises for no reason of its own kind is the engine's or the device's trouble."""
    try:
        yield
    except EngineError as error:
        if type(error) in (EngineError, EngineBroken):
            raise EngineUnavailable(f"The model could not be loaded: {error}") from error
        raise


_installed: list[ModelPool[Any]] = []


def install(pool: ModelPool[Any] | None) -> None:
    """Make `pool` this process's own; called once, in the process that transcribes and never in its parent."""
    _installed[:] = [pool] if pool else []


def acquire_model(model_size: str, timeout: float = 300.0) -> AbstractContextManager[Any]:
    """A model of this process's pool for the length of a `with` block."""
    if not _installed:
        raise RuntimeError("This is a bug: model_pool.install() was not called in this process.")
    return _installed[0].acquire_model(model_size, timeout)
