"""Transcripts as text files: txt, srt, vtt, tsv, lrc; one table. JSON is the API's own."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from formats.cues import Cue, Timed, cues
from formats.lrc import render_lrc, word_level_lrc
from formats.options import SubtitleOptions
from formats.subtitles import readable_srt, readable_vtt, render_srt, render_vtt
from formats.tables import render_tsv, render_txt
from formats.units import Spoken

__all__ = [
    "FORMATS", "PLAIN", "Cue", "Format", "SubtitleOptions", "cues", "render", "render_lrc", "render_srt", "render_tsv",
    "render_txt", "render_vtt", "takers",
]  # fmt: skip


class Format(NamedTuple):
    media_type: str
    suffix: str  # of the file name, with its dot
    render: Callable[[Iterable[Timed]], str]


FORMATS = {
    "txt": Format("text/plain; charset=utf-8", ".txt", render_txt),
    "srt": Format("application/x-subrip; charset=utf-8", ".srt", render_srt),
    "vtt": Format("text/vtt; charset=utf-8", ".vtt", render_vtt),
    "tsv": Format("text/tab-separated-values; charset=utf-8", ".tsv", render_tsv),
    "lrc": Format("application/x-lrc; charset=utf-8", ".lrc", render_lrc),
}
Readable = Callable[[Iterable[Spoken], SubtitleOptions], str]
LAYOUT = frozenset(SubtitleOptions.__dataclass_fields__) - {"word_level"}
READABLE: Mapping[str, tuple[Readable, frozenset[str]]] = {  # and the options that the format takes
    "srt": (readable_srt, LAYOUT),
    "vtt": (readable_vtt, LAYOUT | {"word_level"}),
    "lrc": (word_level_lrc, frozenset({"word_level"})),
}
PLAIN = SubtitleOptions()


def render(name: str, segments: Iterable[Spoken], options: SubtitleOptions = PLAIN) -> str:
    """Options that the format does not take change nothing; without any it is as FORMATS has it."""
    if name in READABLE:
        readable, taken = READABLE[name]
        if (own := options.only(taken)) != PLAIN:
            return readable(segments, own)
    return FORMATS[name].render(segments)


def takers(option: str) -> list[str]:
    """Formats that take it."""
    return [name for name, (_, taken) in READABLE.items() if option in taken]
