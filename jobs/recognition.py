"""Windows to segments in seconds of the recording: which language is spoken, what the model is shown, how it is read.

Never touches the database: `attempt` saves what comes out of here. What is decided about a window follows from the
recording and the options, never from which windows share its group: an attempt that resumes gives the same text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio.split import Stretch, Window
from audio.vad import SAMPLE_RATE
from engines import Model
from jobs import language_detection as detection
from jobs.fallback import Fallback
from jobs.read import SegmentText
from jobs.script import script_of, style_prompt
from languages import MULTI
from transcript import DecodeOptions, Language, Segment

Samples = NDArray[np.float32]
Said = Segment | SegmentText
VOICE_MARGIN_S = 0.05  # a consonant is heard before the detector calls it speech
RESET_TEMPERATURE = 0.5  # above it Whisper guesses: openai/whisper does not show such text to the next window
SHOWN_CHARACTERS = 1000  # of the text before; more than a prompt can hold


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a window in one language: a whole window, but for recordings in several."""

    start_s: float  # in the recording
    audio: Samples
    speech: tuple[Stretch, ...]  # from the start of the piece
    speech_from_s: float  # in the recording
    language: str
    channel: int | None = None


class Recogniser:
    """Belongs to one thread, and to one attempt."""

    def __init__(
        self,
        fallback: Fallback[Model],
        options: DecodeOptions,
        *,
        language: Language | None,
        said: Iterable[Said] = (),
        elsewhere: Callable[[], Iterator[Samples]] = lambda: iter(()),
    ) -> None:
        """`language`: where an earlier attempt has detected it. `said`: what earlier attempts have transcribed.

        `elsewhere`: speech from other places of the recording, asked for where the first does not tell its language.
        """
        self._fallback = fallback
        self._options = options
        self._elsewhere = elsewhere
        self._language = language
        self._seconds: dict[str, float] = {}  # spoken in each language
        self._before = ""
        self._script: str | None = None
        self.revision: str | None = None  # of the model that was last used
        self._prompt_excess = 0  # tokens
        for segment in said:
            self._remember(segment)

    @property
    def language(self) -> Language | None:
        """Of the recording: as asked for, as detected, or the one that is spoken most."""
        if self._options.language != MULTI:
            return self._language
        return Language(max(self._seconds, key=lambda code: self._seconds[code]), None) if self._seconds else None

    def warnings(self) -> list[dict[str, Any]]:
        if not self._prompt_excess:
            return []
        message = f"Prompt and hot words are {self._prompt_excess} tokens too long; their beginning was left out."
        return [{"code": "prompt_cut", "message": message}]

    def recognise(self, group: Sequence[Window]) -> list[Segment]:
        """Raises what the engine raises, when no smaller model is left."""
        pieces = [piece for window in group for piece in self._pieces(window)]
        segments: list[Segment] = []
        while pieces:
            step = 1 if self._needs_the_text_before(pieces[0]) else len(pieces)
            segments += self._transcribe(pieces[:step])
            del pieces[:step]
        return segments

    def _needs_the_text_before(self, piece: Piece) -> bool:
        return self._options.condition_on_previous_text or (piece.language == "zh" and self._script is None)

    def _pieces(self, window: Window) -> list[Piece]:
        if self._options.language == MULTI:
            cuts = detection.cut_by_language(window.audio, window.speech, self._detect)
            return [_piece(window, *cut) for cut in cuts]
        if self._language is None:
            self._language = self._decide(window)
        return [_piece(window, 0.0, len(window.audio) / SAMPLE_RATE, self._language.code)]

    def _detect(self, audio: Samples) -> dict[str, float]:
        found = self._fallback.run(lambda model: model.detect_languages(audio))
        return detection.among(found, self._options.languages)

    def _decide(self, window: Window) -> Language:
        found = self._detect(window.audio)
        if detection.is_doubtful(found):
            found = detection.mean([found, *map(self._detect, self._elsewhere())])
        candidates = detection.candidates(found)
        if len(candidates) > 1:
            tried = {code: self._try(_piece(window, 0.0, 30.0, code)) for code in candidates}
            return detection.best(found, tried)
        return Language(candidates[0], found[candidates[0]])

    def _try(self, piece: Piece) -> Sequence[Segment]:
        options = replace(self._options, language=piece.language, temperature=0.0, word_timestamps=False)
        return self._read([piece], options)[0]

    def _transcribe(self, pieces: Sequence[Piece]) -> list[Segment]:
        """Of pieces that do not need each other's text."""
        segments: list[Segment] = []
        for code, run in groupby(pieces, key=lambda piece: piece.language):
            some = list(run)
            for piece, found in zip(some, self._read(some, self._shown(code)), strict=True):
                segments += [_placed(segment, piece) for segment in found]
        for segment in segments:
            self._remember(segment)
        return segments

    def _read(self, pieces: Sequence[Piece], options: DecodeOptions) -> list[tuple[Segment, ...]]:
        def read(model: Model, some: Sequence[Piece]) -> list[tuple[Segment, ...]]:
            self.revision = model.revision
            self._prompt_excess = model.prompt_excess(self._options)
            return model.transcribe([piece.audio for piece in some], options, [piece.speech or None for piece in some])

        return list(self._fallback.map(read, pieces))

    def _shown(self, language: str) -> DecodeOptions:
        """The options, with what the model is shown before the window."""
        options = replace(self._options, language=language)
        if options.condition_on_previous_text and self._before:
            return replace(options, initial_prompt=f"{options.initial_prompt or ''} {self._before.strip()}".strip())
        if not options.initial_prompt and language == "zh" and options.task == "transcribe":
            return replace(options, initial_prompt=style_prompt(self._script))
        return options

    def _remember(self, segment: Said) -> None:
        if segment.language is not None:
            spoken = self._seconds.get(segment.language, 0.0)
            self._seconds[segment.language] = spoken + segment.end - segment.start
        if segment.language == "zh" and self._script is None:
            self._script = script_of(segment.text)
        if segment.temperature > RESET_TEMPERATURE:
            self._before = ""
        else:
            self._before = (self._before + segment.text)[-SHOWN_CHARACTERS:]


def _piece(window: Window, start_s: float, end_s: float, language: str) -> Piece:
    speech = tuple(
        (max(start, start_s) - start_s, min(end, end_s) - start_s)
        for start, end in window.speech
        if end > start_s and start < end_s
    )
    first, last = round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
    return Piece(
        start_s=window.start_s + start_s,
        audio=window.audio[first:last],
        speech=speech,
        speech_from_s=window.start_s + start_s + (speech[0][0] if speech else 0.0),
        language=language,
        channel=window.channel,
    )


def _placed(segment: Segment, piece: Piece) -> Segment:
    placed = replace(segment.shifted(piece.start_s), language=piece.language, channel=piece.channel)
    return begun_with_the_voice(placed, piece.speech_from_s)


def begun_with_the_voice(segment: Segment, speech_from_s: float) -> Segment:
    """Whisper likes to begin at the window's first moment; the voice detector knows better.

    Both in seconds of the recording. A word that is said to begin earlier is believed.
    """
    first_word_s = segment.words[0].start if segment.words else segment.end
    start = min(speech_from_s - VOICE_MARGIN_S, first_word_s, segment.end)
    return replace(segment, start=round(start, 3)) if start > segment.start else segment
