"""The lanes of an engine server: each takes a batch, leases the model, runs it, and gives every row its answer."""

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic
from typing import Any

import errors
from engines import encoder, memory
from engines.batcher import Batcher, Row
from engines.foreign import translate
from engines.wire import LOADING, RUNNING
from model_pool import ModelPool
from telemetry.events import count, emit

LINGER_S = 0.005  # windows of one child come one shortly after the other
STALLED_S = 600.0  # a batch that takes longer hangs: leave, and be started again
WATCH_S = 5.0
LEAVE_CODE = 70
GOOD_BATCHES = 64  # that were full, before a batch that was halved may grow by a row; a row too many costs a reload
MOST_GOOD_BATCHES = 4096


@dataclass(slots=True)
class _Counts:
    batches: int = 0
    rows: int = 0
    room: int = 0  # rows that the batches could have held
    busy_s: float = 0.0
    since: float = field(default_factory=monotonic)


@dataclass(slots=True)
class _Limit:
    """Rows of a key for which memory ran out with more. It may have been a neighbour's fault, so the limit grows again.

    Additive increase, multiplicative decrease; each time that memory runs out anew, the next try comes later.
    """

    rows: int
    needed: int = GOOD_BATCHES  # full batches until the limit grows
    good: int = 0

    def shrink(self, rows: int) -> None:
        self.rows, self.good, self.needed = rows, 0, min(2 * self.needed, MOST_GOOD_BATCHES)

    def went_well(self, rows: int) -> None:
        self.good += rows >= self.rows
        if self.good >= self.needed:
            self.rows, self.good = self.rows + 1, 0


class Lanes:
    """`count` batches in flight, of at most `most` rows."""

    def __init__(self, pool: ModelPool[Any], *, count: int, most: int) -> None:
        self.batcher = Batcher(most=self._most_of, linger_s=LINGER_S)
        self._pool = pool
        self._count = count
        self._most = most
        self._limits: dict[Hashable, _Limit] = {}
        self._since: dict[int, float] = {}  # lane -> when its batch began
        self._rows: dict[int, int] = {}  # lane -> rows of its batch
        self._counts = _Counts()

    def start(self) -> None:
        for number in range(self._count):
            Thread(target=self._work, args=(number,), name=f"lane-{number}", daemon=True).start()
        Thread(target=self._watch, name="watch", daemon=True).start()

    def stats(self) -> dict[str, Any]:
        """Of the batches since the start. `busy`: share of the time in which a lane was at work."""
        counts, seconds = self._counts, max(monotonic() - self._counts.since, 1e-6)
        return {
            "waiting_windows": self.batcher.waiting(),
            "running_windows": sum(list(self._rows.values())),
            "windows": counts.rows,
            "batches": counts.batches,
            "batch_fill": round(counts.rows / counts.room, 3) if counts.room else None,
            "windows_per_second": round(counts.rows / seconds, 3),
            "busy": round(counts.busy_s / seconds / self._count, 3),
        }

    def _most_of(self, key: Hashable) -> int:
        limit = self._limits.get(key)
        return self._most if limit is None else limit.rows

    def _shrink(self, key: Hashable, rows: int) -> None:
        if (limit := self._limits.get(key)) is None:
            self._limits[key] = _Limit(rows)
        else:
            limit.shrink(rows)

    def _went_well(self, key: Hashable, rows: int) -> None:
        if (limit := self._limits.get(key)) is None:
            return
        limit.went_well(rows)
        if limit.rows >= self._most:
            self._limits.pop(key, None)

    def _work(self, number: int) -> None:
        while (batch := self.batcher.take()) is not None:
            self._since[number] = started = monotonic()
            self._rows[number] = len(batch)
            try:
                self._run(batch)
            except Exception as bug:  # noqa: BLE001 a lane that ended would leave its children waiting
                emit("engine.failed", reason=type(bug).__name__, exc_info=bug)
                os._exit(LEAVE_CODE)
            finally:
                del self._since[number], self._rows[number]
                self._counts.busy_s += monotonic() - started
                self.batcher.done()

    def _run(self, batch: Sequence[Row]) -> None:
        for row in batch:
            row.payload[0].waited.began()
        for row, answer in zip(batch, self._answers(batch), strict=True):
            child, request = row.payload
            child.waited.ended()
            if isinstance(answer, errors.ServiceError):
                child.refuse(request, answer)
            else:
                child.answer(request, {**answer, "waited": child.waited.take()})

    def _answers(self, batch: Sequence[Row]) -> Sequence[dict[str, Any] | errors.ServiceError]:
        """One a row. Out of memory: idle models go, then the batch is halved; what is left over hears of it alone."""
        try:
            return self._attempt(batch)
        except errors.EngineBroken as error:
            emit("engine.broken", reason=str(error))
            os._exit(LEAVE_CODE)  # a new process starts with a clean device
        except errors.OutOfMemory as error:
            self._pool.count_fallback()
            if self._pool.evict_idle():
                return self._answers(batch)
            if len(batch) == 1:
                return [error]
        except errors.ServiceError as error:
            return [error] * len(batch)
        half = len(batch) // 2
        self._shrink(batch[0].key, half)
        emit("engine.batch_halved", rows=half, during="batch")
        return [*self._answers(batch[:half]), *self._answers(batch[half:])]

    def _attempt(self, batch: Sequence[Row]) -> list[dict[str, Any]]:
        started = monotonic()
        requests = [row.payload[1] for row in batch]
        mels = [row.payload[0].arena.mel(row.payload[1]["slot"], tuple(row.payload[1]["shape"])) for row in batch]
        first = requests[0]
        _set_states(batch, LOADING)  # the model may have been unloaded meanwhile
        with self._pool.lease(first["size"], compute_type=first["compute_type"]) as lease:
            _set_states(batch, RUNNING)
            try:
                answers: list[dict[str, Any]] = lease.model.run(first["op"], mels, requests)
            except Exception as error:
                raise translate(error) from error
        self._went_well(batch[0].key, len(batch))
        self._counts.batches += 1
        self._counts.rows += len(batch)
        self._counts.room += self._most
        count("engine.ran", rows=len(batch), fill=len(batch) / self._most, seconds=monotonic() - started)
        return answers

    def _watch(self) -> None:
        """Over batches that hang; and after work, that memory goes back (see `memory.keep_freed`)."""
        trimmed = 0
        while not Event().wait(WATCH_S):
            if not self._since and trimmed != (trimmed := self._counts.batches):
                encoder.rest()
                memory.trim()
            longest_s = max((monotonic() - since for since in list(self._since.values())), default=0.0)
            if longest_s > STALLED_S:
                emit("engine.stalled", seconds=round(longest_s))
                os._exit(LEAVE_CODE)


def _set_states(batch: Sequence[Row], state: int) -> None:
    for row in batch:
        child, request = row.payload
        child.arena.set_state(request["slot"], state)
