"""The words of a segment with their times, and where a text without spaces can be broken. Knows no cue and no line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from formats.cues import Timed, whole_ms
from formats.scripts import clusters

WHOLE_UP_TO = 8  # characters: so long a word of the engine stays whole, also in a script without spaces


class TimedWord(Protocol):
    """A transcript.Word, or one as the API shows it."""

    @property
    def word(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


class Spoken(Timed, Protocol):
    """A transcript.Segment, or one as the API shows it."""

    @property
    def words(self) -> Sequence[TimedWord] | None: ...
    @property
    def language(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest thing between which a line or a cue can break: a word, or a character of a script without spaces.

    Times in ms; the text has no whitespace.
    """

    text: str
    start: int
    end: int
    is_spaced: bool  # from the one before, where both stand in one line


@dataclass(frozen=True, slots=True)
class _Whole:
    """A segment whose words have no times of their own."""

    word: str
    start: float
    end: float


def units_of(segment: Spoken) -> list[Unit]:
    """All of its text. Where words have no times, or are not those of the text, times follow from the characters."""
    words: Sequence[TimedWord] = segment.words or ()
    whole_up_to = WHOLE_UP_TO
    if _bare("".join(word.word for word in words)) != _bare(segment.text):
        words, whole_up_to = [_Whole(segment.text, segment.start, segment.end)], 1
    found: list[Unit] = []
    is_spaced = True
    for word in words:
        found += _units(word, whole_up_to, is_spaced=is_spaced)
        is_spaced = word.word[-1:].isspace()
    return found


def _bare(text: str) -> str:
    return "".join(text.split())


def _units(word: TimedWord, whole_up_to: int, *, is_spaced: bool) -> Iterator[Unit]:
    chunks = word.word.split()
    start, length_s, characters, before = word.start, max(0.0, word.end - word.start), sum(map(len, chunks)), 0
    is_spaced = is_spaced or word.word[:1].isspace()
    for chunk in chunks:
        for part in [chunk] if len(chunk) <= whole_up_to else clusters(chunk):
            begin = start + length_s * before / characters
            before += len(part)
            end = start + length_s * before / characters
            yield Unit(part, whole_ms(begin), whole_ms(end), is_spaced)
            is_spaced = False
        is_spaced = True


def in_sequence(units: Sequence[Unit]) -> list[Unit]:
    """Each begins at least 1 ms after the one before, and ends before the next one begins."""
    found: list[Unit] = []
    for unit in units:
        start = max(unit.start, found[-1].start + 1) if found else unit.start
        if found and found[-1].end > start:
            found[-1] = replace(found[-1], end=start)
        found.append(replace(unit, start=start, end=max(unit.end, start + 1)))
    return found


def length(units: Sequence[Unit]) -> int:
    """Characters of one line with these."""
    return sum(len(unit.text) + unit.is_spaced for unit in units) - (units[0].is_spaced if units else 0)


def text_of(units: Sequence[Unit], texts: Sequence[str] | None = None) -> str:
    """One line, with `texts` in place of their own."""
    shown = [unit.text for unit in units] if texts is None else texts
    return "".join(f" {text}" if unit.is_spaced else text for unit, text in zip(units, shown, strict=True)).lstrip(" ")
