"""A circuit breaker for each worker child: one that cannot work rests, so that it does not draw every job to itself."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from time import monotonic

import errors
from telemetry.events import emit

FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0
LOOK_EVERY_S = 0.2  # whether the worker is told to stop


@dataclass(frozen=True, slots=True)
class Illness:
    code: str  # of errors.py
    message: str
    since: datetime


class Breaker:
    """Used by the child's one working thread; `illness` is read by others.

    A rest is longer after each fault in a row. It ends when a probe succeeds, never before.
    """

    def __init__(self, probe: Callable[[], None], is_draining: Callable[[], bool]) -> None:
        """`probe` tries what every job needs. It raises a ServiceError, or anything else, where that fails."""
        self._probe = probe
        self._is_draining = is_draining
        self._in_a_row = 0
        self.illness: Illness | None = None

    def note_fault(self, code: str, message: str) -> None:
        """An attempt or a probe failed for a reason of the worker's own."""
        self._in_a_row += 1
        since = self.illness.since if self.illness else datetime.now(UTC)
        self.illness = Illness(code, message, since)
        emit("worker.ill", code=code, reason=message, in_a_row=self._in_a_row)

    def note_work(self) -> None:
        """An attempt ended otherwise, well or badly."""
        self._in_a_row = 0

    def rest(self) -> None:
        """Block until the child is well, or the worker is told to stop. The child draws no job meanwhile."""
        while self.illness and not self._is_draining():
            self._pause(min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(self._in_a_row - 1, 10)))
            if not self._is_draining():  # a probe may take minutes
                self._look_whether_it_is_well()

    def _look_whether_it_is_well(self) -> None:
        try:
            self._probe()
        except errors.ServiceError as error:
            self.note_fault(error.code, str(error))
        except Exception as error:  # noqa: BLE001 a probe that fails in a way unforeseen has failed
            self.note_fault("internal_error", type(error).__name__)
        else:
            self.illness = None
            emit("worker.well", in_a_row=self._in_a_row)

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while monotonic() < until and not self._is_draining():
            Event().wait(min(LOOK_EVERY_S, seconds))
