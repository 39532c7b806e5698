"""The recordings and the yardsticks that `check.py` measures a model with.

Owns word error rate, time errors, and test recordings whose true words and times are known.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from faster_whisper.audio import decode_audio
from faster_whisper.transcribe import Segment, TranscriptionInfo

from demo import phrases, speech
from demo.phrases import Phrase
from demo.speech import RATE, Samples, Voice


@dataclass(frozen=True, slots=True)
class Spoken:
    text: str
    start: float  # seconds in the recording
    end: float


@dataclass(slots=True)
class Recording:
    language: str
    samples: Samples
    spoken: list[Spoken] = field(default_factory=list)
    words: list[tuple[float, float]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.spoken)


def errors(truth: str, heard: str) -> tuple[int, int]:
    """Word edits between the two, and the count of true words."""
    true, said = truth.split(), plain(heard).split()
    row = list(range(len(said) + 1))
    for i, word in enumerate(true, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(said, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (word != other))
    return row[-1], len(true)


def plain(text: str) -> str:
    return text.lower().translate(str.maketrans("", "", ".,!?¿¡")).replace("-", " ")


def word_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """In percent, over (truth, heard) pairs."""
    counts = [errors(truth, heard) for truth, heard in pairs]
    return 100 * sum(wrong for wrong, _ in counts) / max(1, sum(size for _, size in counts))


class Studio:
    """Makes recordings with one espeak."""

    def __init__(self) -> None:
        self._espeak = speech.Espeak()

    def record(self, parts: Sequence[tuple[Phrase, Voice]], pauses: Sequence[float], *, tail: float = 0.2) -> Recording:
        """The parts one after the other, with a pause in seconds before each."""
        blocks: list[Samples] = []
        recording = Recording(parts[0][0].language, np.zeros(0, np.float32))
        at = 0.0
        for (phrase, voice), pause in zip(parts, pauses, strict=True):
            utterance = self._espeak.speak(phrase, voice)
            silence = np.zeros(round(pause * RATE), np.float32)
            at += len(silence) / RATE
            end = at + len(utterance.samples) / RATE
            recording.spoken.append(Spoken(phrase.text, at, end))
            recording.words += [(at + a, at + b) for a, b in utterance.words]
            blocks += [silence, utterance.samples]
            at = end
        recording.samples = np.concatenate([*blocks, np.zeros(round(tail * RATE), np.float32)])
        return recording

    def say(self, language: str, text: str, voice: Voice, *, spoken: str | None = None) -> Recording:
        return self.record([(Phrase(language, text, text, spoken or text), voice)], [0.1])

    def phrases(
        self, language: str, count: int, seed: int, *, held_out: bool = False, name: str = ""
    ) -> list[Recording]:
        rng = Random(seed)
        made = []
        for _ in range(count):
            phrase = phrases.phrase(rng, language)
            voice = speech.held_out_voice(rng, language) if held_out else Voice(name)
            made.append(self.record([(phrase, voice)], [rng.uniform(0.0, 0.4)]))
        return made

    def talk(self, language: str, seed: int, seconds: float, pauses: tuple[float, float]) -> Recording:
        """Phrases of the language's default voice with random pauses, for about so long."""
        rng = Random(seed)
        parts: list[tuple[Phrase, Voice]] = []
        length = 0.0
        while length < seconds:
            phrase = phrases.phrase(rng, language)
            parts.append((phrase, Voice(speech.BASES[language][0])))
            length += 0.35 * len(phrase.text.split()) + sum(pauses) / 2
        return self.record(parts, [0.2] + [rng.uniform(*pauses) for _ in parts[1:]])


def coded(samples: Samples, suffix: str, options: Sequence[str]) -> Samples:
    """The samples written by ffmpeg in a format and read back as faster-whisper reads files."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / f"coded.{suffix}")
        raw = ["-f", "s16le", "-ar", str(RATE), "-ac", "1", "-i", "-"]
        body = (samples.clip(-1, 1) * 32767).astype(np.int16).tobytes()
        command = ["ffmpeg", "-nostdin", "-loglevel", "error", *raw, *options, file]
        subprocess.run(command, input=body, check=True)
        heard: Samples = decode_audio(file)
    return heard


class Listener:
    """A model with the settings of the acceptance: nothing carried over, no voice detection."""

    def __init__(self, folder: Path) -> None:
        self.model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=2)
        self._batched = BatchedInferencePipeline(self.model)

    def sequential(self, samples: Samples, **options: object) -> tuple[list[Segment], TranscriptionInfo]:
        wanted = {"vad_filter": False, "condition_on_previous_text": False, **options}
        segments, info = self.model.transcribe(samples, **wanted)
        return list(segments), info

    def batched(self, samples: Samples, **options: object) -> tuple[list[Segment], TranscriptionInfo]:
        wanted = {"without_timestamps": False, "batch_size": 8, **options}
        segments, info = self._batched.transcribe(samples, **wanted)
        return list(segments), info


def text_of(segments: Sequence[Segment]) -> str:
    return " ".join(segment.text.strip() for segment in segments)


def time_errors(truth: Sequence[Spoken], heard: Sequence[Segment]) -> list[float]:
    """Seconds by which the start and the end of each phrase are off its best-fitting segment."""
    off: list[float] = []
    for part in truth:
        overlap = [min(part.end, s.end) - max(part.start, s.start) for s in heard]
        if not overlap or max(overlap) <= 0:
            off += [part.end - part.start] * 2
            continue
        best = heard[overlap.index(max(overlap))]
        off += [abs(best.start - part.start), abs(best.end - part.end)]
    return off


def noises(seconds: float = 12) -> dict[str, Samples]:
    """Recordings without speech."""
    rng = np.random.default_rng(3)
    count = round(seconds * RATE)
    white = rng.standard_normal(count)
    hertz = np.maximum(np.arange(count // 2 + 1) / seconds, 20)
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(hertz), count)
    at = np.arange(count) / RATE
    hum = np.sum([np.sin(2 * np.pi * 50 * k * at) / k for k in range(1, 6)], axis=0)
    made = {"silence": np.zeros(count), "tone": np.sin(2 * np.pi * 440 * at)}
    made |= {"white": white, "pink": pink, "hum": hum}
    loud = {k: (0.1 * v / max(np.std(v), 1e-9)).astype(np.float32) for k, v in made.items()}
    quiet = {f"{k}, quiet": v * np.float32(0.02) for k, v in loud.items() if k != "silence"}
    return loud | quiet
