"""How wrong a text is: Whisper's own normalisers, then the fewest edits, apart: substituted, deleted, inserted.

English by its English normaliser, other languages by the basic one, per character where words are not divided
(Radford et al. 2022, appendix C); strings of digits digit by digit.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rapidfuzz.distance import Levenshtein
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from bench.accuracy.manifest import DIGITS, OTHER_DIGITS, Recording

LEAST_MIXED = 2  # characters of the rarer script, from which a text mixes the two: one may be a name
Json = dict[str, Any]
Start = tuple[str, float | None]  # a word, and when it begins where that is to be compared


@dataclass(frozen=True, slots=True)
class Score:
    words: int = 0  # of the reference; characters where it is scored by those
    substituted: int = 0
    deleted: int = 0
    inserted: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.words + other.words,
            self.substituted + other.substituted,
            self.deleted + other.deleted,
            self.inserted + other.inserted,
        )

    @property
    def errors(self) -> int:
        return self.substituted + self.deleted + self.inserted

    @property
    def rate(self) -> float:
        """Word error rate in per cent; 0 without a word."""
        return 100 * self.errors / self.words if self.words else 0.0


def score(recording: Recording, heard: str) -> Score:
    said = units(recording, recording.text or "")
    found = [edit.tag for edit in Levenshtein.editops(said, units(recording, heard))]
    return Score(len(said), found.count("replace"), found.count("delete"), found.count("insert"))


def units(recording: Recording, text: str) -> list[str]:
    """What is compared: words, characters or digits, normalised."""
    if recording.digits:
        return list(_digits(text))
    if recording.language == "en":
        return [unit for word in str(_english()(text)).split() for unit in _apart(word)]
    names = OTHER_DIGITS.get(recording.language, {})
    return [names.get(word, word) for word in str(_basic(by_character=recording.by_character)(text)).split()]


def _apart(word: str) -> list[str]:
    """`1234` and `1, 2, 3, 4` are the same said, and Whisper's normaliser writes a lone 1 as `one`."""
    return list(word) if word.isdecimal() else ["1" if word == "one" else word]


@cache
def _english() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


@cache
def _basic(*, by_character: bool) -> BasicTextNormalizer:
    return BasicTextNormalizer(split_letters=by_character)


def _digits(text: str) -> Iterator[str]:
    for word in words_of(text):
        if word.isdecimal():
            yield from word
        else:
            yield DIGITS.get(word, word)


def words_of(text: str) -> list[str]:
    """Whatever is said at all, music in brackets too; punctuation and notes are no words."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\u2019", "'"))


def marked(recording: Recording, heard: str) -> str:
    """What was heard, against the reference: [-missing-] {+too much+}."""
    said, found = units(recording, recording.text or ""), units(recording, heard)
    between = "" if recording.by_character else " "
    pieces = []
    for edit in Levenshtein.opcodes(said, found):
        before, after = (
            between.join(said[edit.src_start : edit.src_end]),
            between.join(found[edit.dest_start : edit.dest_end]),
        )
        if edit.tag == "equal":
            pieces.append(after)
        else:
            pieces.append((f"[-{before}-]" if before else "") + (f"{{+{after}+}}" if after else ""))
    return between.join(pieces) or "(nothing)"


def word_starts(recording: Recording, answer: Json) -> list[Start]:
    words = (word for segment in answer["segments"] for word in segment["words"])
    return list(_starts(recording, words, "word"))


def segment_starts(recording: Recording, answer: Json) -> list[Start]:
    """Every word, so that both can be aligned; only a segment's first one has a time."""
    return list(_starts(recording, answer["segments"], "text"))


def _starts(recording: Recording, timed: Any, name: str) -> Iterator[Start]:
    for one in timed:
        parts = words_of(one[name])
        parts = list("".join(parts)) if recording.by_character else parts
        yield from ((part, one["start"] if number == 0 else None) for number, part in enumerate(parts))


def time_errors(ours: Sequence[Start], theirs: Sequence[Start]) -> list[float]:
    """Seconds between the starts of equal words that have one on both sides."""
    edits = Levenshtein.editops([word for word, _ in ours], [word for word, _ in theirs])
    blocks = edits.as_matching_blocks()
    pairs = ((ours[block.a + at][1], theirs[block.b + at][1]) for block in blocks for at in range(block.size))
    return [abs(a - b) for a, b in pairs if a is not None and b is not None]


def script(text: str) -> str:
    """Of a Chinese text: 'simplified', 'traditional', 'mixed' or '' (neither). By the character sets of the two."""
    simplified = sum(_is_in(char, "gb2312") and not _is_in(char, "big5") for char in text)
    traditional = sum(_is_in(char, "big5") and not _is_in(char, "gb2312") for char in text)
    if min(simplified, traditional) >= LEAST_MIXED:
        return "mixed"
    if not simplified and not traditional:
        return ""
    return "simplified" if simplified > traditional else "traditional"


def _is_in(char: str, charset: str) -> bool:
    try:
        char.encode(charset)
    except UnicodeEncodeError:
        return False
    return "\u4e00" <= char <= "\u9fff"
