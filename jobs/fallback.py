"""One job's way down a ladder of smaller batches, types and models when memory runs out, or a load kills its server."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Generic, TypeVar

from errors import LoadCrashed, ModelUnavailable, OutOfMemory
from model_pool import Key, Loaded, ModelPool, labels
from telemetry.events import emit

M = TypeVar("M", bound=Loaded)
W = TypeVar("W")
R = TypeVar("R")
_INT8 = {"float32": "int8_float32", "float16": "int8_float16", "bfloat16": "int8_bfloat16", "int16": "int8"}
# By quality. Not through turbo, though it is better than medium: it cannot translate, and this table knows no task.
_SMALLER = {
    **dict.fromkeys(("large", "large-v3", "large-v2", "large-v1"), "medium"),
    **dict.fromkeys(("turbo", "large-v3-turbo", "distil-large-v3.5", "distil-large-v3", "distil-large-v2"), "small"),
    "medium": "small", "small": "base", "base": "tiny",
    "medium.en": "small.en", "small.en": "base.en", "base.en": "tiny.en",
    "distil-medium.en": "small.en", "distil-small.en": "base.en",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rung:
    size: str
    compute_type: str
    batch: int  # windows a call

    @property
    def weights(self) -> Key:
        return self.size, self.compute_type

    def __str__(self) -> str:
        return f"{' '.join(labels(*self.weights).values())} x{self.batch}"


def ladder(size: str, compute_type: str, batch: int) -> Iterator[Rung]:
    """What to try when memory ran out, each needing no more than the one before; the first is the same again."""
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
    """One job's way down the ladder; it does not climb back within the job. Belongs to one thread."""

    def __init__(self, pool: ModelPool[M], size: str, *, compute_type: str = "default", batch: int = 1) -> None:
        _, resolved = pool.resolve(size, compute_type)
        self.rung = Rung(size, resolved, batch)  # what is really used now
        self.steps = 0  # down the ladder
        self._pool = pool
        self._below = takewhile(lambda rung: pool.allow_smaller or rung.size == size, ladder(size, resolved, batch))
        self._failed: OutOfMemory | LoadCrashed | None = None

    def map(self, call: Callable[[M, Sequence[W]], Sequence[R]], windows: Iterable[W]) -> Iterator[R]:
        """One result a window, in order; `windows` is read as it is needed, and what is done is not done again."""
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
        """`call` with a leased model; again, a rung lower, when memory runs out or a load kills the engine server."""
        while True:
            during = "load"
            try:
                with self._pool.lease(self.rung.size, compute_type=self.rung.compute_type) as lease:
                    during = "call"
                    return call(lease.model)
            except (OutOfMemory, LoadCrashed) as error:
                self._failed = error
                self._step(error, "crash" if isinstance(error, LoadCrashed) else during)
            except ModelUnavailable as error:
                if self._failed is None:  # the model asked for must be there; a smaller one that is not is skipped
                    raise
                self._step(self._failed, type(error).code)

    def _step(self, error: OutOfMemory | LoadCrashed, during: str) -> None:
        self._pool.evict_idle()
        failed, again = self.rung, self.rung if during == "load" else None
        # A smaller batch does not help where the weights alone did not fit; nor does the same again after a crash.
        lighter = (one for one in self._below if during == "call" or one.weights != failed.weights or one == again)
        if (rung := next(lighter, None)) is None:
            raise error
        self.rung = rung
        self.steps += 1
        self._pool.count_fallback()
        emit("pool.oom", during=during, **labels(*failed.weights), batch=failed.batch, next=str(rung))
