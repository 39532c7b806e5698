"""Windows made ready on a thread of their own, while the device works on those before. A bounded number wait."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
LOOK_EVERY_S = 0.2


class Ahead(Generic[T]):
    """`with Ahead(items, room=4, interrupt=stop) as ready: ready.take(2)`. Items come in their order.

    `interrupt` must make `items` end soon: it is called on the way out, before the thread is waited for.
    """

    def __init__(self, items: Iterator[T], *, room: int, interrupt: Callable[[], object]) -> None:
        self._items = items
        self._interrupt = interrupt
        self._queue: Queue[T | BaseException | None] = Queue(room)  # None: the end
        self._left = Event()
        self._thread = Thread(target=self._fill, name="prelude", daemon=True)

    def take(self, most: int) -> list[T]:
        """The next items: at least one, and as many more as are ready; none at the end. Raises what `items` raised."""
        taken: list[T] = []
        while len(taken) < most:
            try:
                item = self._queue.get(block=not taken)
            except Empty:
                break
            if item is None or isinstance(item, BaseException):
                return self._ended(item, taken)
            taken.append(item)
        return taken

    def _ended(self, end: BaseException | None, taken: list[T]) -> list[T]:
        """What came before the end is given first; the end is met again."""
        self._queue.put(end)
        if taken or end is None:
            return taken
        raise end

    def _fill(self) -> None:
        try:
            for item in self._items:
                self._offer(item)
                if self._left.is_set():
                    return
            self._offer(None)
        except BaseException as error:  # noqa: BLE001 it is raised again where it is waited for
            self._offer(error)

    def _offer(self, item: T | BaseException | None) -> None:
        offered = False
        while not (offered or self._left.is_set()):
            with suppress(Full):
                self._queue.put(item, timeout=LOOK_EVERY_S)
                offered = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._left.set()
        self._interrupt()
        self._thread.join()
