"""Cues that people can read: phrases, cut where they do not fit, joined where they would flash by. No markup.

The guidelines are those of BBC and Netflix: whole sentences, balanced lines, time to read them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from formats.breaking import (
    LACK_COST,
    Bounds,
    Limits,
    Size,
    cheapest,
    ends_phrase,
    join_cost,
    lines,
    needed_ms,
    pieces,
)
from formats.cues import label_of
from formats.options import SubtitleOptions
from formats.scripts import is_unspaced
from formats.units import Spoken, Unit, in_sequence, length, units_of


@dataclass(frozen=True, slots=True)
class Turn:
    """What one channel says in a cue."""

    channel: int | None
    lines: tuple[Sequence[Unit], ...]


@dataclass(frozen=True, slots=True)
class ReadableCue:
    """Times in ms."""

    start: int
    end: int
    turns: tuple[Turn, ...]

    @property
    def units(self) -> list[Unit]:
        return [unit for turn in self.turns for line in turn.lines for unit in line]


@dataclass(frozen=True, slots=True)
class _Part:
    """Of a phrase, or of a segment: units of one channel and one language."""

    units: Sequence[Unit]
    channel: int | None
    language: str | None

    @property
    def start(self) -> int:
        return self.units[0].start

    @property
    def end(self) -> int:
        return self.units[-1].end


def indent_of(channel: int | None) -> int:
    """Characters of its label, in SubRip."""
    return 0 if channel is None else len(f"{label_of(channel)}: ")


def readable(segments: Iterable[Spoken], options: SubtitleOptions) -> list[ReadableCue]:
    """In time order, each over before the next begins. All text is kept, in its order within a channel.

    A cue begins with its first word. It stays longer than its words where a reader needs that, at most until the next
    one begins. Channels that speak at the same time share a cue where it has room for both.
    """
    limits = Limits.of(options)
    by_channel: dict[int | None, list[Spoken]] = {}
    for segment in sorted(segments, key=lambda segment: segment.start):
        by_channel.setdefault(segment.channel, []).append(segment)
    parts = [part for said in by_channel.values() for part in _parts(said, limits, options)]
    shared = _shared(sorted(parts, key=lambda part: part.start), limits)
    next_starts = [cue[0].start for cue in shared[1:]]
    return [_cue(cue, next_start, limits) for cue, next_start in zip(shared, [*next_starts, None], strict=False)]


def _parts(segments: Sequence[Spoken], limits: Limits, options: SubtitleOptions) -> list[_Part]:
    """Of one channel."""
    units: list[Unit] = []
    languages: list[str | None] = []
    openings, changes = set[int](), set[int]()
    for segment in segments:
        if not (found := units_of(segment)):
            continue
        if units:
            openings |= {len(units)} if options.keeps_segments else set()
            changes |= {len(units)} if segment.language != languages[-1] else set()
            is_spaced = not (is_unspaced(units[-1].text[-1]) and is_unspaced(found[0].text[0]))
            found[0] = replace(found[0], is_spaced=is_spaced)
        units += found
        languages += [segment.language] * len(found)
    units = in_sequence(units)
    ends = {number for number in range(1, len(units)) if ends_phrase(units[number - 1], units[number])}
    bounds = Bounds(phrases=frozenset(ends | openings | changes), hard=frozenset(changes))
    channel = segments[0].channel
    ranges = pieces(units, bounds, limits, indent_of(channel))
    return [_Part(units[start:end], channel, languages[start]) for start, end in ranges]


def _shared(parts: Sequence[_Part], limits: Limits) -> list[Sequence[_Part]]:
    """Those of each cue: one alone, unless it would flash by, or be too fast to read, and together they are not."""

    def ends(start: int) -> Iterator[tuple[int, float]]:
        first = before = parts[start]
        size, cost = Size(limits, first.start), 0.0
        for end in range(start + 1, len(parts) + 1):
            part = parts[end - 1]
            if part is not first:
                if part.start > first.start and not _may_share(before, part, size):
                    return
                cost += join_cost(part.start - size.end)
            if part is first or part.channel != before.channel:
                size.begin_line(indent_of(part.channel))
            for unit in part.units:
                size.add(unit)
            if part.start > first.start and not size.fits:
                return
            next_start = parts[end].start if end < len(parts) else None
            if next_start != first.start:  # else the cue would have no time
                yield end, cost + LACK_COST * size.lacking_s(next_start)
            before = part

    return [parts[start:end] for start, end in cheapest(len(parts), ends)]


def _may_share(before: _Part, part: _Part, size: Size) -> bool:
    if part.channel != before.channel:
        return part.start < size.end  # they speak at the same time
    return part.language == before.language


def _cue(parts: Sequence[_Part], next_start: int | None, limits: Limits) -> ReadableCue:
    turns = []
    for channel, said in groupby(parts, key=lambda part: part.channel):
        units = [unit for part in said for unit in part.units]
        turns.append(Turn(channel, tuple(lines(units, limits.width, indent_of(channel)))))
    start, characters = parts[0].start, sum(length(part.units) + 1 for part in parts) - 1
    spoken = max(part.end for part in parts)
    end = min(max(spoken, start + needed_ms(characters)), start + limits.longest_ms)
    return ReadableCue(start, end if next_start is None else min(end, next_start), tuple(turns))
