"""Transcripts as text files: txt, srt, vtt, tsv; one table. JSON is the API's own.

Never a broken file: cues have whole milliseconds, keep their order, do not overlap, and their text cannot end them.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from itertools import pairwise
from typing import NamedTuple, Protocol

SHORTEST_CUE_MS = 100  # given to a cue of no length, where the next one leaves as much room


class Timed(Protocol):
    """What is rendered: a transcript.Segment, or a row of transcript_segments."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Cue:
    """Times in ms; `lines` are not empty, nor is one of them blank."""

    start: int
    end: int
    lines: tuple[str, ...]


def render_txt(segments: Iterable[Timed]) -> str:
    return "".join(f"{' '.join(lines)}\n" for segment in segments if (lines := _lines(segment.text)))


def render_srt(segments: Iterable[Timed]) -> str:
    """SubRip. It knows no escape, so an arrow that would read as a time line loses its shaft."""
    blocks = []
    for number, cue in enumerate(cues(segments), start=1):
        text = re.sub("-+->", "->", "\n".join(cue.lines))
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def render_vtt(segments: Iterable[Timed]) -> str:
    """WebVTT (W3C): `&`, `<` and `>` escaped, which also disarms an arrow."""
    blocks = []
    for cue in cues(segments):
        text = escape("\n".join(cue.lines), quote=False)
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "WEBVTT\n\n" + "\n".join(blocks)


def render_tsv(segments: Iterable[Timed]) -> str:
    """Columns as openai/whisper has them, times in ms: for programs, so nothing is cut, merged or left out."""
    rows = ["start\tend\ttext"]
    for segment in segments:
        text = " ".join(_lines(segment.text.replace("\t", " ")))
        rows.append(f"{_whole_ms(segment.start)}\t{_whole_ms(segment.end)}\t{text}")
    return "\n".join(rows) + "\n"


class Format(NamedTuple):
    media_type: str
    suffix: str  # of the file name, with its dot
    render: Callable[[Iterable[Timed]], str]


FORMATS = {
    "txt": Format("text/plain; charset=utf-8", ".txt", render_txt),
    "srt": Format("application/x-subrip; charset=utf-8", ".srt", render_srt),
    "vtt": Format("text/vtt; charset=utf-8", ".vtt", render_vtt),
    "tsv": Format("text/tab-separated-values; charset=utf-8", ".tsv", render_tsv),
}


def cues(segments: Iterable[Timed]) -> list[Cue]:
    """In time order, each at least 1 ms long and over before the next begins; without text there is no cue."""
    merged: list[Cue] = []
    for cue in sorted(_spoken(segments), key=lambda cue: cue.start):
        if merged and merged[-1].start == cue.start:
            last = merged.pop()
            cue = Cue(last.start, max(last.end, cue.end), last.lines + cue.lines)  # noqa: PLW2901
        merged.append(cue)
    cut = [replace(cue, end=min(cue.end, following.start)) for cue, following in pairwise(merged)]
    return cut + merged[-1:]


def _spoken(segments: Iterable[Timed]) -> Iterable[Cue]:
    for segment in segments:
        start, end, lines = _whole_ms(segment.start), _whole_ms(segment.end), _lines(segment.text)
        if lines:
            yield Cue(start, end if end > start else start + SHORTEST_CUE_MS, lines)


def _lines(text: str) -> tuple[str, ...]:
    """Without blank ones: they would end the cue."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _whole_ms(seconds: float) -> int:
    """Half up, in decimal: 1.0005 is 1001, which binary floating point would make 1000. Never negative."""
    return max(0, int((Decimal(repr(float(seconds))) * 1000).quantize(Decimal(1), ROUND_HALF_UP)))


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"
