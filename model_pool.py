"""ModelPool: load once, lease, keep to the budget, evict the oldest use. Fallback: the ladder when memory runs out.

Engine-neutral, and blind to what callers do with a model. Models are thread-safe, so one may be leased to many at once:
a reference count says when its memory may be given back.
"""

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, takewhile
from threading import Condition
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from errors import Draining, EngineError, ModelUnavailable, OutOfMemory, PoolTimeout
from telemetry.events import emit

Key = tuple[str, str]  # size, compute type
_MB = 1_000_000
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
    """A loaded model and its users. Only the pool writes it, under its lock."""

    model: M
    size: str
    compute_type: str
    loaded_at: datetime
    last_used: datetime
    use_count: int = 0
    in_use: int = 0  # leases; the model is idle at 0
    discarded: bool = False

    @property
    def key(self) -> Key:
        return self.size, self.compute_type


@dataclass(slots=True, eq=False)
class _Load:
    """A load under way; whoever else wants that model waits for it and shares its error."""

    memory_bytes: int
    error: EngineError | None = None
    ended: bool = False


class Lease(Generic[M]):
    """The right to use a model until the `with` block ends."""

    def __init__(self, pool: "ModelPool[M]", instance: ModelInstance[M]) -> None:
        self._pool = pool
        self.instance = instance

    @property
    def model(self) -> M:
        return self.instance.model

    def discard(self) -> None:
        """Nobody gets this instance again; its memory is given back when the last lease on it ends."""
        self._pool.discard(self.instance)


class ModelPool(Generic[M]):
    """At most `max_size` models loaded, at most `size` of them idle, at most `memory_bytes` in all (0: what is free).

    One lock guards lookup, reference counts and budget; loading and unloading happen outside it.
    """

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
        self._changed = Condition()
        self._ready: OrderedDict[Key, ModelInstance[M]] = OrderedDict()  # least recently used first
        self._loads: dict[Key, _Load] = {}
        self._retired: list[ModelInstance[M]] = []  # never handed out again, but their memory is not back yet
        self._closed = False
        self._hits = self._misses = self._evictions = self._fallbacks = 0

    def acquire(self, model_size: str, timeout: float = 300.0, *, compute_type: str = "default") -> ModelInstance[M]:
        """A model in use by the caller until `release`. `timeout` (seconds) is for waiting, not for loading.

        Raises PoolTimeout, Draining once the pool is closed, and what the engine raises when it loads.
        """
        key = self._engine.resolve(model_size, compute_type)
        deadline = self._clock() + timeout
        with self._changed:
            while not self._closed:
                instance = self._ready.get(key)
                if instance is not None:
                    self._hits += 1
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
            instance.last_used = datetime.now(UTC)
            if instance.in_use:
                return
            if instance.discarded:
                self._unload(instance, "discarded")
                return
            self._ready.move_to_end(instance.key)
            self._changed.notify_all()
            idle_allowed = 0 if self._closed else self._size
            while len(self._idle()) > idle_allowed and self._evict_oldest("idle"):
                pass

    def discard(self, instance: ModelInstance[M]) -> None:
        with self._changed:
            if instance.discarded or self._ready.get(instance.key) is not instance:
                return
            self._retire(instance)
            if not instance.in_use:
                self._unload(instance, "discarded")

    @contextmanager
    def lease(self, model_size: str, timeout: float = 300.0, *, compute_type: str = "default") -> Iterator[Lease[M]]:
        """As `acquire`, for the length of the block. An instance that raised OutOfMemory in it is discarded."""
        lease = Lease(self, self.acquire(model_size, timeout, compute_type=compute_type))
        try:
            yield lease
        except OutOfMemory:
            lease.discard()
            raise
        finally:
            self.release(lease.instance)

    @contextmanager
    def acquire_model(self, model_size: str, timeout: float = 300.0) -> Iterator[M]:
        with self.lease(model_size, timeout) as lease:
            yield lease.model

    def evict_idle(self) -> int:
        """Unload every model that nobody uses; how many there were."""
        count = 0
        with self._changed:
            while self._evict_oldest("idle"):
                count += 1
        return count

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
            self._fallbacks += 1

    def get_stats(self) -> dict[str, Any]:
        """`hits` needed no load of their own, `misses` began one. Times are aware datetimes."""
        with self._changed:
            asked = self._hits + self._misses
            return {
                "hits": self._hits,
                "misses": self._misses,
                "evictions": self._evictions,
                "oom_fallbacks": self._fallbacks,
                "hit_rate": self._hits / asked if asked else 0.0,
                "loaded": [_described(instance) for instance in self._held()],
            }

    # Below here the lock is held on entry and on return.

    def _hand_out(self, instance: ModelInstance[M]) -> ModelInstance[M]:
        instance.in_use += 1
        instance.use_count += 1
        instance.last_used = datetime.now(UTC)
        self._ready.move_to_end(instance.key)
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
        reserved = sum(load.memory_bytes for load in self._loads.values())
        if not self._memory_bytes:
            # With nothing to unload or to wait for, the engine tries: the estimate may be too high.
            return needed + reserved <= self._engine.free_bytes() or not (held or self._loads)
        if needed > self._memory_bytes:
            raise OutOfMemory(
                f"The model needs about {needed // _MB} MB and the pool may hold {self._memory_bytes // _MB} MB: "
                "raise MODEL_POOL_MEMORY_MB or ask for a smaller model."
            )
        return needed + reserved + sum(instance.model.memory_bytes for instance in held) <= self._memory_bytes

    def _load(self, key: Key) -> ModelInstance[M]:
        self._misses += 1
        load = self._loads[key] = _Load(self._engine.estimate_bytes(*key))
        try:
            with self._unlocked():
                started = self._clock()
                model = self._engine.load(*key)
                seconds = round(self._clock() - started, 3)
                emit("pool.loaded", **_labels(*key), seconds=seconds, memory_bytes=model.memory_bytes)
        except EngineError as error:
            load.error = error
            raise
        finally:
            load.ended = True
            del self._loads[key]
            self._changed.notify_all()
        now = datetime.now(UTC)
        instance = self._ready[key] = ModelInstance(model, *key, loaded_at=now, last_used=now)
        return instance

    def _join(self, load: _Load, deadline: float) -> None:
        while not load.ended:
            self._wait(deadline)
        if load.error is not None:
            raise copy.copy(load.error) from load.error  # one object raised in two threads mixes up its tracebacks

    def _wait(self, deadline: float) -> None:
        left = deadline - self._clock()
        if left <= 0:
            loading = ", ".join(_name(size) for size, _ in self._loads) or "none"
            busy = ", ".join(f"{_name(one.size)} {one.compute_type}" for one in self._held()) or "none"
            raise PoolTimeout(
                f"No model came free in time (in use: {busy}; loading: {loading}; at most {self._max_size}). "
                "Raise MODEL_POOL_MAX_SIZE or MODEL_POOL_MEMORY_MB, or run fewer jobs at once."
            )
        self._changed.wait(min(left, _LOOK_AGAIN_S))

    def _evict_oldest(self, reason: str) -> bool:
        idle = self._idle()
        if not idle:
            return False
        self._evictions += 1
        self._retire(idle[0])
        self._unload(idle[0], reason)
        return True

    def _retire(self, instance: ModelInstance[M]) -> None:
        instance.discarded = True
        del self._ready[instance.key]
        self._retired.append(instance)

    def _unload(self, instance: ModelInstance[M], reason: str) -> None:
        try:
            with self._unlocked():
                instance.model.close()
                emit("pool.evicted", **_labels(*instance.key), reason=reason)
        except EngineError as error:  # whoever runs into this did not ask for it: it must not cost them their job
            emit("pool.close_failed", **_labels(*instance.key), error=str(error))
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


def _described(instance: ModelInstance[Any]) -> dict[str, Any]:
    return {
        **_labels(*instance.key),
        "memory_bytes": instance.model.memory_bytes,
        "loaded_at": instance.loaded_at,
        "last_used": instance.last_used,
        "use_count": instance.use_count,
        "in_use": instance.in_use,
    }


def _name(size: str) -> str:
    return size.rpartition("/")[2]  # a model given as a path: messages and events carry none


def _labels(size: str, compute_type: str) -> dict[str, str]:
    return {"size": _name(size), "compute_type": compute_type}


# --- out of memory -------------------------------------------------------------------------------------------------

_INT8 = {"float32": "int8_float32", "float16": "int8_float16", "bfloat16": "int8_bfloat16", "int16": "int8"}
# By quality. Not through turbo, though it is better than medium: it cannot translate, and this table knows no task.
_LARGER = {
    "medium": ("large", "large-v3", "large-v2", "large-v1"),
    "small": ("medium", "turbo", "large-v3-turbo", "distil-large-v3.5", "distil-large-v3", "distil-large-v2"),
    "base": ("small",),
    "tiny": ("base",),
    "small.en": ("medium.en", "distil-medium.en"),
    "base.en": ("small.en", "distil-small.en"),
    "tiny.en": ("base.en",),
}
_SMALLER = {larger: size for size, sizes in _LARGER.items() for larger in sizes}


@dataclass(frozen=True, slots=True)
class Rung:
    size: str
    compute_type: str
    batch: int  # windows a call

    @property
    def weights(self) -> Key:
        return self.size, self.compute_type


def ladder(size: str, compute_type: str, batch: int) -> Iterator[Rung]:
    """What to try when memory ran out, in order: the same again, smaller batches, int8, smaller models.

    No rung needs more memory than the one before it.
    """
    yield Rung(size, compute_type, batch)
    while batch > 1:
        batch //= 2
        yield Rung(size, compute_type, batch)
    if compute_type in _INT8:
        compute_type = _INT8[compute_type]
        yield Rung(size, compute_type, batch)
    while size in _SMALLER:
        size = _SMALLER[size]
        yield Rung(size, compute_type, batch)


class Fallback(Generic[M]):
    """One job's way down the ladder; it does not climb back within the job. Belongs to one thread.

    `rung` says what is really used now, `steps` how often memory ran out.
    """

    def __init__(
        self, pool: ModelPool[M], size: str, *, compute_type: str = "default", batch: int = 1, timeout: float = 300.0
    ) -> None:
        _, resolved = pool.resolve(size, compute_type)
        self.rung = self._first = Rung(size, resolved, batch)
        self.steps = 0
        self._pool = pool
        self._timeout = timeout
        self._below = takewhile(lambda rung: pool.allow_smaller or rung.size == size, ladder(size, resolved, batch))
        self._ran_out: OutOfMemory | None = None

    @property
    def changed_model(self) -> bool:
        return self.rung.size != self._first.size

    def map(self, call: Callable[[M, Sequence[W]], Sequence[R]], windows: Iterable[W]) -> Iterator[R]:
        """One result a window, in order, as groups of at most `rung.batch` windows are done.

        `windows` is read as it is needed. What is done is not done again when a later group runs out of memory.
        """
        source, held = iter(windows), list[W]()
        while True:
            held.extend(islice(source, max(0, self.rung.batch - len(held))))
            if not held:
                return
            results = self.run(lambda model: call(model, held[: self.rung.batch]))
            if len(results) != len(held[: self.rung.batch]):
                raise RuntimeError("This is a bug: the engine must give one result a window.")
            del held[: len(results)]
            yield from results

    def run(self, call: Callable[[M], R]) -> R:
        """`call` with a leased model, and again a rung lower when memory runs out. Raises the last OutOfMemory."""
        while True:
            during = "load"
            try:
                with self._pool.lease(self.rung.size, self._timeout, compute_type=self.rung.compute_type) as lease:
                    during = "call"
                    return call(lease.model)
            except OutOfMemory as error:
                self._ran_out = error
                self._step(error, during)
            except ModelUnavailable as error:
                # The model asked for must be there; a smaller one that is not here is one rung less.
                if self._ran_out is None or self.rung.weights == self._first.weights:
                    raise
                self._step(self._ran_out, type(error).code)

    def _step(self, error: OutOfMemory, during: str) -> None:
        self._pool.evict_idle()
        failed = self.rung
        for rung in self._below:
            # A smaller batch does not help where the weights alone did not fit.
            if during == "load" and rung.weights == failed.weights and rung.batch < failed.batch:
                continue
            self.rung = rung
            self.steps += 1
            self._pool.count_fallback()
            following = {f"next_{name}": value for name, value in _labels(*rung.weights).items()}
            emit(
                "pool.oom",
                during=during,
                **_labels(*failed.weights),
                batch=failed.batch,
                **following,
                next_batch=rung.batch,
            )
            return
        raise error


class _Process:
    pool: ClassVar[ModelPool[Any] | None] = None


def install(pool: ModelPool[Any] | None) -> None:
    """Make `pool` this process's own; called once, in the process that transcribes and never in its parent."""
    _Process.pool = pool


def process_pool() -> ModelPool[Any]:
    if _Process.pool is None:
        raise RuntimeError("This is a bug: model_pool.install() was not called in this process.")
    return _Process.pool


@contextmanager
def acquire_model(model_size: str, timeout: float = 300.0) -> Iterator[Any]:
    """A model of this process's pool for the length of the block."""
    with process_pool().acquire_model(model_size, timeout) as model:
        yield model
