"""How often a window is decoded. Whisper's loop decodes what lies behind its last time stamp as a window of its own.

That rest is nearly always the silence in which the voice detector has cut: decoded again it costs as much as the
window, and invents words. It is decoded where somebody speaks in it.
"""

from engines import Speech

UNHEARD_S = 0.25  # a stretch of speech that no segment touches: the shortest words last so long
CUT_OFF_S = 0.8  # of a stretch that a segment covers in part: Whisper ends a segment up to so much before the voice


class Covered(Exception):
    """Nobody speaks behind the last segment."""


class Passes:
    """Of one window."""

    def __init__(self, speech: Speech | None) -> None:
        """`speech`: None where it is not known, and Whisper goes on to the window's end."""
        self._speech = speech
        self._covered_s = 0.0
        self.count = 0

    def begin(self) -> None:
        """Before each pass. Raises Covered where there is nothing left to hear."""
        if self.count and self._speech is not None and not any(map(self._is_left, self._speech)):
            raise Covered
        self.count += 1

    def cover(self, until_s: float) -> None:
        """A segment ends there."""
        self._covered_s = max(self._covered_s, until_s)

    def _is_left(self, stretch: tuple[float, float]) -> bool:
        start, end = stretch
        if start >= self._covered_s:
            return end - start >= UNHEARD_S
        return end - self._covered_s >= CUT_OFF_S
