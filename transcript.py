"""Transcript, Segment, Word: the value that every room speaks. Times are seconds from the start of the recording."""

from dataclasses import dataclass, field, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Word:
    word: str  # with its leading space, as Whisper gives it
    start: float
    end: float
    probability: float

    def shifted(self, by_s: float) -> Self:
        return replace(self, start=round(self.start + by_s, 3), end=round(self.end + by_s, 3))


@dataclass(frozen=True, slots=True)
class Segment:
    start: float
    end: float
    text: str
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    compression_ratio: float = 0.0
    temperature: float = 0.0
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] | None = None  # None: not asked for
    language: str | None = None  # Whisper's code
    channel: int | None = None  # of the recording, from 0; None: the mix of all

    def shifted(self, by_s: float) -> Self:
        words = None if self.words is None else tuple(word.shifted(by_s) for word in self.words)
        return replace(self, start=round(self.start + by_s, 3), end=round(self.end + by_s, 3), words=words)


@dataclass(frozen=True, slots=True)
class Language:
    code: str  # as Whisper names it: "en", "de"
    probability: float | None  # None: there are several


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What a caller may ask of the engine; part of a job for ever, so that a replay can use it."""

    language: str | None = None  # None: detect once; languages.MULTI: for each window
    task: str = "transcribe"
    word_timestamps: bool = False
    initial_prompt: str | None = None
    hotwords: str | None = None
    vad_filter: bool = True
    temperature: float | None = None  # None: 0 with Whisper's fallback steps
    beam_size: int = 5
    languages: tuple[str, ...] = ()  # the only ones that detection may find; none: any
    vad_threshold: float | None = None  # probability from which sound is speech; None: the default
    audio_track: str | None = None  # a number among the sound tracks, from 0, or a language; None: chosen
    channels: str = "mix"  # or "separate": each channel by itself
    condition_on_previous_text: bool = False  # each window sees the text before it


@dataclass(frozen=True, slots=True)
class Transcript:
    text: str
    segments: tuple[Segment, ...] = field(default=())
    language: Language | None = None
    duration: float = 0.0
