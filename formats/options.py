"""What a caller may ask of subtitles. Ranges and contradictions are checked where the options come in."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True)
class SubtitleOptions:
    """Names as on openai/whisper's command line, but for the last two fields, which are ours."""

    max_line_width: int | None = None  # characters; None: a cue has one line
    max_line_count: int | None = None  # lines of a cue; None: any number
    max_words_per_line: int | None = None  # of a cue, which then has one line
    highlight_words: bool = False  # a cue for each word, which is underlined in it
    max_cue_seconds: float | None = None  # None: 7 s
    word_level: bool = False  # the time of each word within the text (vtt, lrc)

    @property
    def given(self) -> list[str]:
        """Names of those that are not left out."""
        return [one.name for one in fields(self) if getattr(self, one.name) != one.default]

    def only(self, names: Collection[str]) -> Self:
        return type(self)(**{name: getattr(self, name) for name in names})

    @property
    def needs_words(self) -> bool:
        return self.highlight_words or self.word_level

    @property
    def keeps_segments(self) -> bool:
        """As openai/whisper: text flows over the ends of segments where the size of a cue is given, and only there."""
        return self.max_line_width is None or self.max_line_count is None
