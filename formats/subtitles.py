"""SubRip and WebVTT (W3C): a cue a segment, or readable ones as options say. Nothing in a text reads as markup."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape

from formats.breaking import PAUSE_MS
from formats.cues import Timed, clock, cues, label_of, lines_of
from formats.options import SubtitleOptions
from formats.readable import ReadableCue, readable
from formats.units import Spoken, text_of

Shown = tuple[int, int, Sequence[str]]  # start and end in ms, lines as the file has them
Escape = Callable[[str], str]
Speaker = Callable[[Sequence[str], int | None], tuple[str, ...]]  # lines of a channel, with what says whose they are


def render_srt(segments: Iterable[Timed]) -> str:
    said = cues(segments, lambda segment: labelled(lines_of(segment), segment.channel))
    return _srt((cue.start, cue.end, cue.lines) for cue in said)


def render_vtt(segments: Iterable[Timed]) -> str:
    said = cues(segments, lambda segment: _voiced([*map(_escaped, lines_of(segment))], segment.channel))
    return _vtt((cue.start, cue.end, cue.lines) for cue in said)


def readable_srt(segments: Iterable[Spoken], options: SubtitleOptions) -> str:
    return _srt(_shown(readable(segments, options), options, str, labelled))


def readable_vtt(segments: Iterable[Spoken], options: SubtitleOptions) -> str:
    return _vtt(_shown(readable(segments, options), options, _escaped, _voiced))


def _srt(shown: Iterable[Shown]) -> str:
    """It knows no escape, so an arrow that would read as a time line loses its shaft."""
    blocks = []
    for number, (start, end, lines) in enumerate(shown, start=1):
        text = re.sub("-+->", "->", "\n".join(lines))
        blocks.append(f"{number}\n{clock(start, ',')} --> {clock(end, ',')}\n{text}\n")
    return "\n".join(blocks)


def _vtt(shown: Iterable[Shown]) -> str:
    blocks = []
    for start, end, lines in shown:
        text = "\n".join(lines)
        blocks.append(f"{clock(start, '.')} --> {clock(end, '.')}\n{text}\n")
    return "WEBVTT\n\n" + "\n".join(blocks)


def _escaped(text: str) -> str:
    """`&`, `<` and `>`, which also disarms an arrow."""
    return escape(text, quote=False)


def labelled(lines: Sequence[str], channel: int | None) -> tuple[str, ...]:
    if channel is None or not lines:
        return tuple(lines)
    return (f"{label_of(channel)}: {lines[0]}", *lines[1:])


def _voiced(lines: Sequence[str], channel: int | None) -> tuple[str, ...]:
    """A voice span: players show it, if at all, as style."""
    if channel is None or not lines:
        return tuple(lines)
    opened = (f"<v {label_of(channel)}>{lines[0]}", *lines[1:])
    return (*opened[:-1], f"{opened[-1]}</v>")


def _shown(said: Iterable[ReadableCue], options: SubtitleOptions, escaped: Escape, speaker: Speaker) -> Iterator[Shown]:
    for cue in said:
        inner = _inner_times(cue) if options.word_level else []
        moments = _moments(cue) if options.highlight_words else [(cue.start, cue.end, None)]
        for start, end, word in moments:
            texts = [escaped(unit.text) for unit in cue.units]
            if word is not None:
                texts[word] = f"<u>{texts[word]}</u>"
            for number, ms in inner:
                texts[number] = f"<{clock(ms, '.')}>{texts[number]}"
            yield start, end, _lines(cue, texts, speaker)


def _lines(cue: ReadableCue, texts: Sequence[str], speaker: Speaker) -> list[str]:
    left = iter(texts)
    return [
        line
        for turn in cue.turns
        for line in speaker([text_of(units, [next(left) for _ in units]) for units in turn.lines], turn.channel)
    ]


def _inner_times(cue: ReadableCue) -> list[tuple[int, int]]:
    """(number of the unit, ms): WebVTT wants each time later than the one before it, and within the cue."""
    found, latest = [], cue.start
    for number, unit in enumerate(cue.units):
        if latest < unit.start < cue.end:
            found.append((number, unit.start))
            latest = unit.start
    return found


def _moments(cue: ReadableCue) -> Iterator[tuple[int, int, int | None]]:
    """(start, end, number of the unit that is spoken); None in a pause. Together they are the cue."""
    spoken = sorted(enumerate(cue.units), key=lambda one: one[1].start)
    next_starts = [unit.start for _, unit in spoken[1:]]
    at = cue.start
    for (number, unit), next_start in zip(spoken, [*next_starts, cue.end], strict=True):
        until = min(next_start if next_start - unit.end < PAUSE_MS else unit.end, cue.end)
        if at < unit.start < until:
            yield at, unit.start, None
            at = unit.start
        if at < until:
            yield at, until, number
            at = until
    if at < cue.end:
        yield at, cue.end, None
