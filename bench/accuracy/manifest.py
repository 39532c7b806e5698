"""A folder of recordings with their texts: `manifest.json`, a list, and the files that it names. Never written."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHARACTERS = {"ja", "zh", "ko"}  # written without spaces, or with few: scored by the character, as in Whisper's paper
SHORT_S, LONG_S = 10, 30
NEEDED: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "file": str,
    "language": str,
    "group": str,
    "kind": str,
    "seconds": (int, float),
}


@dataclass(frozen=True, slots=True)
class Recording:
    id: str
    path: Path
    language: str  # Whisper's code
    text: str | None  # None: nobody wrote it down; "": nothing is spoken
    group: str
    kind: str
    seconds: float
    digits: bool = False  # the text is a string of digits: scored digit by digit

    @property
    def by_character(self) -> bool:
        return self.language in CHARACTERS

    @property
    def length(self) -> str:
        if self.seconds <= SHORT_S:
            return "up to 10 s"
        return "10-30 s" if self.seconds <= LONG_S else "above 30 s"


def read(folder: Path) -> list[Recording]:
    """Raises SystemExit, with the recording and the field, where the manifest is not one."""
    path = folder / "manifest.json"
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise SystemExit(f"There is no manifest: {path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise SystemExit(f"{path} is no JSON: {error}") from error
    if not isinstance(found, list) or not found:
        raise SystemExit(f"{path} must be a list of recordings, each an object with {', '.join(NEEDED)} and text.")
    recordings = [_recording(folder, number, entry) for number, entry in enumerate(found, start=1)]
    if twice := {one.id for one in recordings if sum(other.id == one.id for other in recordings) > 1}:
        raise SystemExit(f"{path} names these ids twice: {', '.join(sorted(twice))}.")
    return recordings


def _recording(folder: Path, number: int, entry: Any) -> Recording:
    if not isinstance(entry, dict):
        raise SystemExit(f"Entry {number} of the manifest is no object.")
    name = entry.get("id", f"number {number}")
    for field, kind in NEEDED.items():
        if not isinstance(entry.get(field), kind):
            raise SystemExit(f"Recording {name} of the manifest: '{field}' is missing or of another type.")
    if not isinstance(entry.get("text", 0), str | None):
        raise SystemExit(f"Recording {name} of the manifest: 'text' must be a text, \"\" (silence) or null (unknown).")
    path = folder / entry["file"]
    if not path.is_file():
        raise SystemExit(f"Recording {name} of the manifest: there is no file {entry['file']} beside it.")
    return Recording(
        entry["id"], path, entry["language"], entry["text"], entry["group"], entry["kind"], float(entry["seconds"]),
        digits=is_digits(entry["text"] or ""),
    )  # fmt: skip


def is_digits(text: str) -> bool:
    """Every word is a digit or its name: 'one zero nine oh', '1 2 3'."""
    words = text.lower().split()
    return len(words) > 1 and all(word.isdigit() or word in DIGITS for word in words)


DIGITS = {
    "zero": "0", "oh": "0", "o": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
# From two on: one is often an article.
OTHER_DIGITS = {
    language: {word: str(digit) for digit, word in enumerate(words.split(), start=2)}
    for language, words in {
        "de": "zwei drei vier fünf sechs sieben acht neun",
        "es": "dos tres cuatro cinco seis siete ocho nueve",
        "fr": "deux trois quatre cinq six sept huit neuf",
        "it": "due tre quattro cinque sei sette otto nove",
        "pt": "dois três quatro cinco seis sete oito nove",
        "ru": "два три четыре пять шесть семь восемь девять",
    }.items()
}
