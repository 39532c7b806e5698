"""Which rows go to the device together, and when: queues by batch key, fair between jobs, urgent ones mostly first.

Pure scheduling: knows no engine, socket or sound. A row is one window to be decoded, aligned or listened to.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from threading import Condition, Lock
from time import monotonic
from typing import Any

QUANTUM_S = 30.0  # of sound, that a job may have decoded before it is the next one's turn
URGENT_TURNS = 3  # batches of urgent rows, after which others that wait have one: the share of ADR 4
LOOK_AHEAD = 4  # batches' worth of rows among which those of like length are chosen


@dataclass(slots=True, eq=False)
class Row:
    key: Hashable  # rows of one key may share a batch
    job: Hashable  # rows of one job share its turn
    length_s: float  # of speech: what takes about as long to say ends together
    payload: Any
    urgent: bool = False
    alone: bool = False  # suspected of having killed the engine: nothing else runs beside it
    at: float = field(default_factory=monotonic)


class _Load:
    """A load that is suspected of having killed the engine: it takes its turn among the rows that are."""


class Batcher:
    """Lanes call `take` and `done`; whoever has rows calls `put`. Thread-safe."""

    def __init__(self, *, most: Callable[[Hashable], int], linger_s: float = 0.0) -> None:
        """`most`: rows of a key in one batch. `linger_s`: how long a batch that is not full waits for more rows."""
        self._most = most
        self._linger_s = linger_s
        self._changed = Condition()
        self._classes = {True: _Turns(), False: _Turns()}  # urgent, not urgent
        self._ahead = 0  # batches of urgent rows for which others had to wait
        self._suspects: deque[Row | _Load] = deque()
        self._running = 0
        self._loads = 0
        self._exclusive = False
        self._closed = False

    def put(self, row: Row) -> None:
        with self._changed:
            if row.alone:
                self._suspects.append(row)
            else:
                self._classes[row.urgent].add(row)
            self._changed.notify_all()

    def take(self) -> list[Row] | None:
        """The next batch, as soon as there is one to run; None once closed. Its lane calls `done` afterwards."""
        with self._changed:
            while not self._closed:
                batch, wait_s = self._choose()
                if batch:
                    self._running += 1
                    return batch
                self._changed.wait(wait_s)
            return None

    def done(self) -> None:
        with self._changed:
            self._running -= 1
            self._exclusive = False
            self._changed.notify_all()

    @contextmanager
    def load(self, *, alone: bool) -> Iterator[None]:
        """While the block lasts a model is loaded. Beside no suspect; beside nothing at all where it is one itself."""
        with self._changed:
            self._await_turn(_Load() if alone else None)
            self._loads += 1
            self._exclusive = alone
        try:
            yield
        finally:
            with self._changed:
                self._loads -= 1
                self._exclusive = False
                self._changed.notify_all()

    def forget(self, job: Hashable) -> int:
        """Drop what a job still has waiting: its child is gone. How many rows that were."""
        with self._changed:
            suspects = [one for one in self._suspects if isinstance(one, Row) and one.job == job]
            for row in suspects:
                self._suspects.remove(row)
            return len(suspects) + sum(turns.forget(job) for turns in self._classes.values())

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def waiting(self) -> int:
        with self._changed:
            suspects = sum(isinstance(one, Row) for one in self._suspects)
            return suspects + sum(turns.count for turns in self._classes.values())

    # The lock is held below here.
    def _await_turn(self, suspect: "_Load | None") -> None:
        """Of a load. One that is no suspect lets all of them go first."""
        if suspect is None:
            self._changed.wait_for(lambda: not (self._exclusive or self._suspects))
            return
        self._suspects.append(suspect)
        self._changed.wait_for(lambda: self._suspects[0] is suspect and self._is_idle())
        self._suspects.popleft()

    def _is_idle(self) -> bool:
        return not (self._running or self._loads or self._exclusive)

    def _choose(self) -> tuple[list[Row], float | None]:
        """A batch, or how long to wait at most before looking again."""
        if self._exclusive:
            return [], None
        if self._suspects and not self._loads:  # during a load, which may be long, suspects wait and others do not
            return self._lone_row(), None
        urgent, others = self._classes[True], self._classes[False]
        if others.count and (not urgent.count or self._ahead >= URGENT_TURNS):
            batch, wait_s = self._from(others)
            self._ahead = 0 if batch else self._ahead
        elif urgent.count:
            batch, wait_s = self._from(urgent)
            self._ahead += bool(batch and others.count)
        else:
            batch, wait_s = [], None
        return batch, wait_s

    def _lone_row(self) -> list[Row]:
        """Of the first suspect, once nothing runs; none where that is a load, which has a thread of its own."""
        suspect = self._suspects[0]
        if not isinstance(suspect, Row) or not self._is_idle():
            return []
        self._suspects.popleft()
        self._exclusive = True
        return [suspect]

    def _from(self, turns: "_Turns") -> tuple[list[Row], float | None]:
        head = next(turns.in_order())
        most = max(1, self._most(head.key))
        alike = list(islice((row for row in turns.in_order() if row.key == head.key), LOOK_AHEAD * most))
        left_s = self._linger_s - (monotonic() - head.at)
        if len(alike) < most and left_s > 0:
            return [], left_s
        others = sorted(alike[1:], key=lambda row: abs(row.length_s - head.length_s))
        batch = [head, *others[: most - 1]]
        turns.take(batch)
        return batch, None


class Waited:
    """The time in which a job had rows waiting and none running: the device worked for others. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._waiting = self._running = 0
        self._since = clock()
        self._seconds = 0.0

    def came(self) -> None:
        self._change(waiting=1)

    def began(self) -> None:
        self._change(waiting=-1, running=1)

    def ended(self) -> None:
        self._change(running=-1)

    def take(self) -> float:
        """Seconds since the last call."""
        self._change()
        with self._lock:
            seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _change(self, *, waiting: int = 0, running: int = 0) -> None:
        with self._lock:
            now = self._clock()
            if self._waiting and not self._running:
                self._seconds += now - self._since
            self._since = now
            self._waiting += waiting
            self._running += running


class _Turns:
    """Deficit round robin (Shreedhar and Varghese, 1995) over the jobs of one class, by seconds of sound."""

    def __init__(self) -> None:
        self._rows: OrderedDict[Hashable, deque[Row]] = OrderedDict()  # jobs in the order of their turns
        self._deficit: dict[Hashable, float] = {}
        self.count = 0

    def add(self, row: Row) -> None:
        self._rows.setdefault(row.job, deque()).append(row)
        self._deficit.setdefault(row.job, QUANTUM_S)
        self.count += 1

    def in_order(self) -> Iterator[Row]:
        """Every row, as they would be served if nothing else came."""
        left = {job: deque(rows) for job, rows in self._rows.items()}
        deficit = dict(self._deficit)
        while left:
            for job in list(left):
                rows = left[job]
                while rows and rows[0].length_s <= deficit[job]:
                    deficit[job] -= rows[0].length_s
                    yield rows.popleft()
                deficit[job] += QUANTUM_S
                if not rows:
                    del left[job]

    def take(self, rows: list[Row]) -> None:
        for row in rows:
            waiting = self._rows[row.job]
            waiting.remove(row)
            self._deficit[row.job] -= row.length_s
            self.count -= 1
            if not waiting:
                del self._rows[row.job], self._deficit[row.job]
        self._next_turn()

    def forget(self, job: Hashable) -> int:
        rows = self._rows.pop(job, deque())
        self._deficit.pop(job, None)
        self.count -= len(rows)
        return len(rows)

    def _next_turn(self) -> None:
        """Who has used up his turn goes to the end of the round."""
        for job in list(self._rows):
            if self._rows[job][0].length_s <= self._deficit[job]:
                return
            self._deficit[job] += QUANTUM_S
            self._rows.move_to_end(job)
