"""Where a row of units is broken, at least cost: into lines, and into pieces that fit a cue. Looks at no segment."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from formats.options import SubtitleOptions
from formats.scripts import ends_clause, ends_sentence
from formats.units import Unit, length

FASTEST = 20  # characters a second that a reader can follow
SHORTEST_MS = 800  # anything shorter is a flash
LONGEST_MS = 7000
PAUSE_MS = 500  # between two words, after which a new cue begins
# What breaks are chosen by. Whole sentences come first, then time to read, then equal parts.
BREAK_COST, CLAUSE_COST = 3.0, 0.3  # of a break within a phrase; 0 to 1 more by the place
LACK_COST = 6.0  # of a second that a reader lacks
JOIN_COST, PAUSE_COST = 0.1, 0.05  # of two phrases in one cue, and of each second between them


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one cue."""

    width: int | None  # characters of a line
    lines: int | None
    words: int | None
    longest_ms: int

    @classmethod
    def of(cls, options: SubtitleOptions) -> Self:
        longest_ms = LONGEST_MS if options.max_cue_seconds is None else round(options.max_cue_seconds * 1000)
        return cls(options.max_line_width, options.max_line_count, options.max_words_per_line, longest_ms)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Before which units a phrase begins; and of these, where a cue must begin."""

    phrases: frozenset[int]
    hard: frozenset[int]


@dataclass(slots=True)
class Size:
    """Of a cue that grows: each unit costs the same, however many came before it."""

    limits: Limits
    start: int
    end: int = 0
    words: int = 0
    characters: int = 0
    lines: int = 0
    _used: int = 0  # characters of the last line
    _is_empty: bool = True

    def begin_line(self, indent: int = 0) -> None:
        """`indent`: characters that stand before the first unit."""
        self.lines += 1
        self._used = indent
        self._is_empty = True

    def add(self, unit: Unit) -> None:
        """Lines are filled one after the other: fewer there cannot be."""
        width, bare = self.limits.width, len(unit.text)
        more = bare + unit.is_spaced
        self.characters += more if self.words else bare
        if self._is_empty:
            self._used += bare
            self._is_empty = False
        elif width is None or self._used + more <= width:
            self._used += more
        else:
            self.lines += 1
            self._used = bare
        self.words += 1
        self.end = max(self.end, unit.end)

    @property
    def fits(self) -> bool:
        limits = self.limits
        return (
            (limits.words is None or self.words <= limits.words)
            and (limits.lines is None or self.lines <= limits.lines)
            and self.end - self.start <= limits.longest_ms
        )

    def lacking_s(self, next_start: int | None) -> float:
        """What a reader lacks of the time that he needs, if the cue stays until the next one begins."""
        room_ms = self.limits.longest_ms if next_start is None else min(self.limits.longest_ms, next_start - self.start)
        return max(0, needed_ms(self.characters) - room_ms) / 1000

    @property
    def fill(self) -> float:
        """How much of a cue this takes up, from 0 to 1. The sum of its squares is least for equal parts."""
        limits = self.limits
        fill = (self.end - self.start) / limits.longest_ms
        if limits.words is not None:
            fill = max(fill, self.words / limits.words)
        if limits.width is not None and limits.lines is not None:
            fill = max(fill, self.characters / (limits.width * limits.lines))
        return fill


def needed_ms(characters: int) -> int:
    return max(SHORTEST_MS, characters * 1000 // FASTEST)


def cheapest(count: int, ends: Callable[[int], Iterable[tuple[int, float]]]) -> list[tuple[int, int]]:
    """range(count) in runs (start, end) that together cost least. `ends(start)`: where a run may end, and its cost."""
    costs, cuts = [0.0] * (count + 1), [0] * (count + 1)
    for start in range(count - 1, -1, -1):
        costs[start], cuts[start] = min((cost + costs[end], end) for end, cost in ends(start))
    runs, start = [], 0
    while start < count:
        runs.append((start, cuts[start]))
        start = cuts[start]
    return runs


def lines(units: Sequence[Unit], width: int | None, indent: int = 0) -> list[Sequence[Unit]]:
    """As few lines as the width allows, about equally long. Only a unit that is longer itself makes a longer line.

    `indent`: characters that stand before the first one.
    """
    whole = indent + length(units)
    if width is None or whole <= width:
        return [units]

    def ends(start: int) -> Iterator[tuple[int, float]]:
        used = 0 if start else indent
        for end in range(start + 1, len(units) + 1):
            unit = units[end - 1]
            used += len(unit.text) + (unit.is_spaced and end > start + 1)
            if used > width and end > start + 1:
                return
            yield end, used * used + whole * whole + 1  # a line more costs more than any imbalance

    return [units[start:end] for start, end in cheapest(len(units), ends)]


def pieces(units: Sequence[Unit], bounds: Bounds, limits: Limits, indent: int) -> list[tuple[int, int]]:
    """Ranges of units that are a cue each.

    A phrase is whole if it can be, and alone, unless it would flash by or be too fast to read; one that must be broken
    is broken into about equal parts, at commas and pauses.
    """
    costs = [0.0, *(_break_cost(before, after) for before, after in pairwise(units)), 0.0]
    for bound in bounds.phrases:
        costs[bound] = 0.0

    def ends(start: int) -> Iterator[tuple[int, float]]:
        size, joins = Size(limits, units[start].start), 0.0
        size.begin_line(indent)
        for end in range(start + 1, len(units) + 1):
            size.add(units[end - 1])
            if end > start + 1 and not size.fits:
                return
            is_last = end == len(units)
            lacking_s = size.lacking_s(None if is_last else units[end].start)
            yield end, joins + size.fill**2 + LACK_COST * lacking_s + costs[end]
            if end in bounds.hard:
                return
            if not is_last and end in bounds.phrases:
                joins += join_cost(units[end].start - units[end - 1].end)

    return cheapest(len(units), ends)


def join_cost(pause_ms: int) -> float:
    """Of two phrases in one cue."""
    return JOIN_COST + PAUSE_COST * max(0, pause_ms) / 1000


def _break_cost(before: Unit, after: Unit) -> float:
    """Of a break within a phrase."""
    if ends_clause(before.text):
        return BREAK_COST + CLAUSE_COST
    return BREAK_COST + 1 - 0.7 * min(after.start - before.end, PAUSE_MS) / PAUSE_MS


def ends_phrase(before: Unit, after: Unit) -> bool:
    """A sentence ends, or the speaker pauses."""
    return after.start - before.end >= PAUSE_MS or ends_sentence(before.text, after.text)
