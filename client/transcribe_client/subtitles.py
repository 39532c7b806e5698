"""The options of srt, vtt and lrc, as openai/whisper calls them: what each format is asked for with."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from transcribe_client.failures import Misuse

LAYOUT = ("max_line_width", "max_line_count", "max_words_per_line", "max_cue_seconds", "highlight_words")
SUBTITLE_OPTIONS = frozenset({*LAYOUT, "word_level"})
TAKEN = {"srt": LAYOUT, "vtt": (*LAYOUT, "word_level"), "lrc": ("word_level",)}


def _subtitle(**more: Any) -> Any:
    return typer.Option(rich_help_panel="Subtitles", show_default=False, **more)


@dataclass(frozen=True, slots=True)
class Subtitles:
    """Formats that do not take an option are as without it."""

    max_line_width: Annotated[int | None, _subtitle(min=10, max=200, help="Characters of a line (srt, vtt).")] = None
    max_line_count: Annotated[int | None, _subtitle(min=1, max=10, help="Lines of a cue, with a line width.")] = None
    max_words_per_line: Annotated[int | None, _subtitle(min=1, max=50, help="Words of a cue, in one line.")] = None
    max_cue_seconds: Annotated[float | None, _subtitle(min=0.5, max=20, help="How long a cue may stay.")] = None
    highlight_words: Annotated[bool, _subtitle(help="Underline each word while it is spoken.")] = False
    word_level: Annotated[bool, _subtitle(help="Time of each word in the text (vtt, lrc).")] = False

    def given(self) -> dict[str, str]:
        """As the API's query has them. Raises Misuse, before anything is sent, for what it would refuse at the end."""
        if self.max_line_count is not None and self.max_line_width is None:
            raise Misuse("--max-line-count needs --max-line-width.", hint="Write --max-line-width 42.")
        if self.max_words_per_line is not None and self.max_line_width is not None:
            raise Misuse("--max-words-per-line and --max-line-width cannot go together.", hint="Choose one.")
        if self.highlight_words and self.word_level:
            raise Misuse("--highlight-words and --word-level cannot go together.", hint="Choose one.")
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: str(value).lower() for name, value in values.items() if value not in (None, False)}

    def query(self, wanted: str) -> dict[str, str]:
        """For a result in this format."""
        return {"format": wanted} | {
            name: value for name, value in self.given().items() if name in TAKEN.get(wanted, ())
        }

    def with_words(self, asked: dict[str, str], formats: Sequence[str]) -> dict[str, str]:
        """The fields of a job whose results can be written like that. Raises Misuse."""
        queries = [self.query(wanted) for wanted in formats]
        if not any(query.keys() & {"highlight_words", "word_level"} for query in queries):
            return asked
        if asked.get("word_timestamps") == "false":
            raise Misuse("--highlight-words and --word-level need the times of words, not --no-word-timestamps.")
        return asked | {"word_timestamps": "true"}
