"""Scores by group of recordings, and what stands beside them: invented words, languages, scripts, times. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.accuracy.manifest import Recording
from bench.accuracy.scoring import Score, score, script, segment_starts, time_errors, word_starts, words_of
from bench.measure import quantile

POOLED = "pooled"
SECTIONS = (POOLED, "length", "group", "language", "kind")
FIRST = (POOLED, "words", "characters", "up to 10 s", "10-30 s", "above 30 s")  # the rest by name
STOCK = "sequential"  # what ours is held against
Json = dict[str, Any]
Heard = Mapping[str, Mapping[str, Json]]  # side: recording's id: answer


@dataclass(frozen=True, slots=True)
class Group:
    section: str
    name: str
    recordings: int
    scores: Mapping[str, Score]  # by side

    def difference(self, side: str) -> tuple[float, int]:
        """Points and errors that `side` is above stock sequential."""
        ours, stock = self.scores[side], self.scores[STOCK]
        return ours.rate - stock.rate, ours.errors - stock.errors

    def as_json(self) -> Json:
        scores = {side: asdict(one) | {"wer": round(one.rate, 3)} for side, one in self.scores.items()}
        return {"section": self.section, "group": self.name, "recordings": self.recordings, "scores": scores}


def groups(recordings: Sequence[Recording], heard: Heard) -> list[Group]:
    """Of the recordings in which something is said that somebody wrote down."""
    spoken = [recording for recording in recordings if recording.text]
    scores = {side: {one.id: score(one, answers[one.id]["text"]) for one in spoken} for side, answers in heard.items()}
    members: dict[tuple[str, str], list[str]] = {}
    for recording in spoken:
        for place in _places(recording):
            members.setdefault(place, []).append(recording.id)
    found = [
        Group(section, name, len(ids), {side: sum((of[one] for one in ids), Score()) for side, of in scores.items()})
        for (section, name), ids in members.items()
    ]
    return sorted(found, key=_order)


def _order(group: Group) -> tuple[int, int, str]:
    return SECTIONS.index(group.section), FIRST.index(group.name) if group.name in FIRST else 0, group.name


def _places(recording: Recording) -> Iterable[tuple[str, str]]:
    yield POOLED, POOLED
    yield POOLED, "characters" if recording.by_character else "words"
    yield "length", recording.length
    yield "group", recording.group
    yield "language", recording.language
    yield "kind", recording.kind


def invented(recordings: Sequence[Recording], heard: Heard) -> list[Json]:
    """Words where nothing is spoken, by group and side."""
    silent = [recording for recording in recordings if recording.text == ""]
    found = []
    for name in dict.fromkeys(recording.group for recording in silent):
        those = [recording for recording in silent if recording.group == name]
        minutes = sum(recording.seconds for recording in those) / 60
        words = {side: sum(len(words_of(answers[one.id]["text"])) for one in those) for side, answers in heard.items()}
        rates = {side: round(count / minutes, 3) for side, count in words.items()}
        found.append(
            {
                "group": name, "recordings": len(those), "minutes": round(minutes, 2), "words": words,
                "words_per_minute": rates,
            }
        )  # fmt: skip
    return found


def wrong_languages(recordings: Sequence[Recording], answers: Mapping[str, Json]) -> list[Json]:
    """Of recordings with speech and an answer that has a text."""
    asked = (one for one in recordings if one.text != "" and answers[one.id]["text"])
    return [
        {"id": one.id, "language": one.language, "found": answers[one.id]["language"]}
        for one in asked
        if answers[one.id]["language"] != one.language
    ]


def without_text(recordings: Sequence[Recording], answers: Mapping[str, Json]) -> list[str]:
    """Somebody speaks, and nothing was heard. Also what failed."""
    return [one.id for one in recordings if one.text != "" and not words_of(answers[one.id]["text"])]


def scripts(recordings: Sequence[Recording], answers: Mapping[str, Json]) -> dict[str, str]:
    return {one.id: script(answers[one.id]["text"]) for one in recordings if one.language == "zh"}


def mixed_scripts(recordings: Sequence[Recording], answers: Mapping[str, Json]) -> list[str]:
    """Chinese written in both scripts. Which of the two is heard is the model's choice."""
    return [name for name, kind in scripts(recordings, answers).items() if kind == "mixed"]


def times(recordings: Sequence[Recording], ours: Mapping[str, Json], stock: Mapping[str, Json]) -> Json:
    """Seconds between equal words' starts: median, and what 95 % do not exceed."""
    found = {}
    for name, starts in (("segments", segment_starts), ("words", word_starts)):
        errors = [
            error for one in recordings for error in time_errors(starts(one, ours[one.id]), starts(one, stock[one.id]))
        ]
        if errors:
            found[name] = {
                "compared": len(errors), "median": round(median(errors), 3), "p95": round(quantile(errors, 0.95), 3)
            }  # fmt: skip
    return found
