"""LRC, as players of music show it: a line for each segment, and in its enhanced form a time for each word."""

import re
from collections.abc import Iterable, Sequence

from formats.cues import Timed, cues, lines_of
from formats.options import SubtitleOptions
from formats.subtitles import labelled
from formats.units import Spoken, in_sequence, text_of, units_of

SILENCE_MS = 2000  # after so long a line is taken away: LRC has no other end
TIME_TAG = re.compile(r"[\[<](?=\d+:\d)")


def render_lrc(segments: Iterable[Timed]) -> str:
    said = cues(segments, lambda segment: labelled([*map(_disarmed, lines_of(segment))], segment.channel))
    return _lrc([(cue.start, cue.end, " ".join(cue.lines)) for cue in said])


def word_level_lrc(segments: Iterable[Spoken], options: SubtitleOptions) -> str:
    lines: list[tuple[int, int, str]] = []
    for segment in sorted(segments, key=lambda segment: segment.start):
        if units := in_sequence(units_of(segment)):
            text = text_of(units, [f"<{_clock(unit.start)}>{_disarmed(unit.text)}" for unit in units])
            (line,) = labelled([text], segment.channel)
            lines.append((units[0].start, units[-1].end, line))
    return _lrc(lines)


def _lrc(lines: Sequence[tuple[int, int, str]]) -> str:
    """Of (start in ms, end in ms, text)."""
    rows = []
    next_starts: list[int | None] = [start for start, _, _ in lines[1:]]
    for (start, end, text), next_start in zip(lines, [*next_starts, None], strict=False):
        rows.append(f"[{_clock(start)}]{text}\n")
        if next_start is None or next_start - end >= SILENCE_MS:
            rows.append(f"[{_clock(end)}]\n")
    return "".join(rows)


def _clock(ms: int) -> str:
    minutes, hundredths = divmod(ms // 10, 6000)
    return f"{minutes:02}:{hundredths // 100:02}.{hundredths % 100:02}"


def _disarmed(text: str) -> str:
    """It knows no escape, so what would read as a time gets another bracket."""
    return TIME_TAG.sub("(", text)
