"""Options of subtitles as callers give them: one set for results, batches and OpenAI's clients. Renders nothing."""

from collections.abc import Collection
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BaseModel, BeforeValidator, Field

import errors
from formats import SubtitleOptions, takers


def _absent(value: Any) -> Any:
    """A field left empty was not given."""
    return None if value == "" else value


def _off(value: Any) -> Any:
    return False if value in ("", None) else value


Number = Annotated[int | None, BeforeValidator(_absent)]
Switch = Annotated[bool, BeforeValidator(_off)]


class SubtitleFields(BaseModel):
    """Names as on openai/whisper's command line, where it has them."""

    max_line_width: Number = Field(None, ge=10, le=200, description="Characters of a line of srt or vtt.")
    max_line_count: Number = Field(None, ge=1, le=10, description="Lines of a cue; needs max_line_width.")
    max_words_per_line: Number = Field(None, ge=1, le=50, description="Words of a cue, in one line.")
    max_cue_seconds: Annotated[float | None, BeforeValidator(_absent)] = Field(
        None, ge=0.5, le=20, description="How long a cue may stay. With any of these options, 7."
    )
    highlight_words: Switch = Field(False, description="A cue for each word, underlined; needs times of words.")
    word_level: Switch = Field(False, description="Times within the text of vtt or lrc; needs times of words.")

    def subtitle_options(self) -> SubtitleOptions:
        """Raises InvalidOption where two of them contradict each other."""
        options = SubtitleOptions(**{name: getattr(self, name) for name in SubtitleFields.model_fields})
        if options.max_line_count is not None and options.max_line_width is None:
            raise errors.InvalidOption(("max_line_count", "needs max_line_width, such as 42"))
        if options.max_words_per_line is not None and options.max_line_width is not None:
            raise errors.InvalidOption(("max_words_per_line", "cannot go with max_line_width; choose one"))
        if options.highlight_words and options.word_level:
            raise errors.InvalidOption(("word_level", "cannot go with highlight_words; choose one"))
        return options


def _options(fields: Annotated[SubtitleFields, Query()]) -> SubtitleOptions:
    return fields.subtitle_options()


Subtitles = Annotated[SubtitleOptions, Depends(_options)]


def check_formats(options: SubtitleOptions, formats: Collection[str]) -> None:
    """Raises InvalidOption for one that none of these formats takes."""
    for name in options.given:
        if not {*takers(name)} & {*formats}:
            raise errors.InvalidOption((name, f"is for {' and '.join(takers(name))}, not for {', '.join(formats)}"))


def check_words(options: SubtitleOptions, *, has_words: bool) -> None:
    """Raises InvalidOption where the times of words are needed, and the job has none."""
    if options.needs_words and not has_words:
        name = "highlight_words" if options.highlight_words else "word_level"
        raise errors.InvalidOption(
            (name, "needs the times of words: submit the recording with word_timestamps=true, or leave this out")
        )
