"""How much of a recording was taken for speech, and which parts can be heard but hold no words.

Kept with the job's `audio` at each checkpoint, so that an attempt which resumes goes on counting.
"""

from collections.abc import Iterable
from typing import Any, Self

from audio.level import joined
from audio.split import Stretch, Window

GAP_S = 2.0  # loud parts that are less apart are told as one
WORTH_TELLING_S = 5.0  # a shorter loud part is a cough, a door, a chord
MOST_PARTS = 200  # of a day of music with pauses; the later ones are not listed


class SpeechReport:
    def __init__(self, speech_s: float = 0.0, loud: Iterable[Stretch] = ()) -> None:
        self._speech_s = speech_s
        self._loud = list(loud)

    @classmethod
    def of(cls, audio: dict[str, Any]) -> Self:
        """As `as_json` left it."""
        return cls(audio.get("speech_seconds", 0.0), [(start, end) for start, end in audio.get("no_speech_in", ())])

    def add(self, group: Iterable[Window]) -> None:
        for window in group:
            self._speech_s += window.speech_s
            together = joined([*self._loud, *window.loud], gap_s=GAP_S)
            done, last = together[:-1], together[-1:]  # the last one may go on
            self._loud = [part for part in done if _is_worth_telling(part)][:MOST_PARTS] + last

    def as_json(self) -> dict[str, Any]:
        return {"speech_seconds": round(self._speech_s, 2), "no_speech_in": [list(part) for part in self._loud]}

    def warnings(self, *, has_text: bool) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if not has_text:
            found.append({"code": "no_speech_found", "message": "No speech was found in this recording."})
        if loud := [[round(second, 1) for second in part] for part in self._loud if _is_worth_telling(part)]:
            message = "These parts can be heard but were not taken for speech; vad_filter=false transcribes all of it."
            found.append({"code": "no_speech_in", "message": message, "ranges": loud})
        return found


def _is_worth_telling(part: Stretch) -> bool:
    return part[1] - part[0] >= WORTH_TELLING_S
