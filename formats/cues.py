"""Cues as they are without options: one a segment. Never a broken one: cues have whole milliseconds, keep their order,
do not overlap, and their text cannot end them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Protocol

SHORTEST_CUE_MS = 100  # given to a cue of no length, where the next one leaves as much room


class Timed(Protocol):
    """What is rendered: a transcript.Segment, or a row of transcript_segments."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def text(self) -> str: ...
    @property
    def channel(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Cue:
    """Times in ms; `lines` are not empty, nor is one of them blank."""

    start: int
    end: int
    lines: tuple[str, ...]


Lines = Callable[[Timed], tuple[str, ...]]


def label_of(channel: int | None) -> str:
    """What stands before the text of a channel that was transcribed by itself."""
    return "" if channel is None else f"Channel {channel + 1}"


def lines_of(segment: Timed) -> tuple[str, ...]:
    """Without blank ones: they would end the cue."""
    return tuple(line.strip() for line in segment.text.splitlines() if line.strip())


def cues(segments: Iterable[Timed], lines: Lines = lines_of) -> list[Cue]:
    """In time order, each at least 1 ms long and over before the next begins; without text there is no cue."""
    merged: list[Cue] = []
    for cue in sorted(_spoken(segments, lines), key=lambda cue: cue.start):
        if merged and merged[-1].start == cue.start:
            last = merged.pop()
            cue = Cue(last.start, max(last.end, cue.end), last.lines + cue.lines)  # noqa: PLW2901
        merged.append(cue)
    cut = [replace(cue, end=min(cue.end, following.start)) for cue, following in pairwise(merged)]
    return cut + merged[-1:]


def _spoken(segments: Iterable[Timed], lines: Lines) -> Iterable[Cue]:
    for segment in segments:
        start, end, said = whole_ms(segment.start), whole_ms(segment.end), lines(segment)
        if said:
            yield Cue(start, end if end > start else start + SHORTEST_CUE_MS, said)


def whole_ms(seconds: float) -> int:
    """Half up, in decimal: 1.0005 is 1001, which binary floating point would make 1000. Never negative."""
    return max(0, int((Decimal(repr(float(seconds))) * 1000).quantize(Decimal(1), ROUND_HALF_UP)))


def clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"
