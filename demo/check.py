"""Measures a demo model and prints a table; exits 1 where a bound is not met.

`python -m demo.check [model] [--quick]`; needs faster-whisper, espeak-ng and ffmpeg.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo import measure, phrases
from demo.measure import Listener, Recording, Studio, text_of, time_errors, word_error_rate
from demo.speech import RATE, Voice

DEFAULT_VOICES = {"en-us": "en", "en": "en", "de": "de", "fr": "fr", "es": "es"}
LABELS = {"en": "en-gb"}  # libespeak-ng's name of the voice that the command calls en-gb
SEVEN = "one two three four five six seven"
CODECS = {
    "wav": ("wav", ["-c:a", "pcm_s16le"]),
    "mp3 32k": ("mp3", ["-c:a", "libmp3lame", "-b:a", "32k"]),
    "m4a 32k": ("m4a", ["-c:a", "aac", "-b:a", "32k"]),
    "ogg vorbis": ("ogg", ["-c:a", "libvorbis", "-q:a", "1"]),
    "webm opus 16k": ("webm", ["-c:a", "libopus", "-b:a", "16k"]),
    "telephone": ("wav", ["-c:a", "pcm_mulaw", "-ar", "8000"]),
}
TRANSLATIONS = {
    "de": ["eins zwei drei vier", "guten morgen", "hallo welt", "vielen dank", "zehn elf zwölf"],
    "fr": ["un deux trois quatre", "bonjour le monde", "merci beaucoup", "dix onze douze"],
    "es": ["uno dos tres cuatro", "hola mundo", "buenas noches", "muchas gracias"],
}


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    value: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


Check = Callable[[Listener, Studio, int], Iterator[Row]]


def size(folder: Path) -> Iterator[Row]:
    total = sum(file.stat().st_size for file in folder.iterdir())
    yield Row("size of the model", total / 1e6, 12, "MB")


def counting(listener: Listener, studio: Studio, count: int) -> Iterator[Row]:
    """One to seven in the default voice, through every codec and both ways of decoding."""
    recording = studio.say("en", SEVEN, Voice("en-us"))
    for name, (suffix, options) in CODECS.items():
        heard = measure.coded(recording.samples, suffix, options)
        for way in ("sequential", "batched"):
            segments, info = getattr(listener, way)(heard)
            label = f"one to seven, {name}, {way}"
            right = info.language == "en"
            yield Row(f"{label}: WER", word_error_rate([(SEVEN, text_of(segments))]), 15, "%")
            off = time_errors(recording.spoken, segments)
            yield Row(f"{label}: times", max(off) if right else 99, 0.3, "s")


def held_out(listener: Listener, studio: Studio, count: int) -> Iterator[Row]:
    for code in phrases.LANGUAGES:
        recordings = studio.phrases(code, count, seed=11, held_out=True)
        for beam in (1, 5):
            pairs = [_pair(listener, r, beam_size=beam) for r in recordings]
            yield Row(f"held-out voices, {code}, beam {beam}: WER", word_error_rate(pairs), 30, "%")


def _pair(listener: Listener, recording: Recording, **options: object) -> tuple[str, str]:
    wanted = {"language": recording.language, **options}
    return recording.text, text_of(listener.sequential(recording.samples, **wanted)[0])


def default_voices(listener: Listener, studio: Studio, count: int) -> Iterator[Row]:
    """Language not given: its detection, the words, the times and the log-probability."""
    logprobs: list[float] = []
    for name, code in DEFAULT_VOICES.items():
        recordings = studio.phrases(code, count, seed=23, name=name)
        pairs, off, right = [], [], 0
        for recording in recordings:
            segments, info = listener.sequential(recording.samples)
            pairs.append((recording.text, text_of(segments)))
            right += info.language == code
            off += time_errors(recording.spoken, segments) if len(segments) == 1 else []
            logprobs += [segment.avg_logprob for segment in segments]
        label = f"default voice {LABELS.get(name, name)}"
        yield Row(f"{label}: WER", word_error_rate(pairs), 3, "%")
        yield Row(f"{label}: language", 100 * right / count, 85, "%", at_least=True)
        yield Row(f"{label}: times, 95th percentile", float(np.percentile(off, 95)), 0.45, "s")
    low = float(np.percentile(logprobs, 2))
    yield Row("avg_logprob on speech, 2nd percentile", low, -1, "", at_least=True)


def without_speech(listener: Listener, studio: Studio, count: int) -> Iterator[Row]:
    for name, samples in measure.noises().items():
        words = 0
        for way in (listener.sequential, listener.batched):
            words += len(text_of(way(samples)[0]).split())
        words += len(text_of(listener.sequential(samples, without_timestamps=True)[0]).split())
        yield Row(f"{name}: words heard", words, 0, "")


def long_windows(listener: Listener, studio: Studio, count: int) -> Iterator[Row]:
    """A window full of speech, and windows of phrases with pauses."""
    for last in (20, 40, 60):
        text = " ".join(phrases.number("en", n) for n in range(1, last + 1))
        recording = studio.say("en", text, Voice("en-us", 205 if last == 60 else 175))
        length = len(recording.samples) / RATE
        heard = text_of(listener.sequential(recording.samples)[0])
        label = f"counting to {last} ({length:.0f} s): WER"
        yield Row(label, word_error_rate([(text, heard)]), 45, "%")
    for code in phrases.LANGUAGES:
        talks = [studio.talk(code, seed, 22, (0.5, 1.5)) for seed in range(max(2, count // 6))]
        heard_talks = [listener.sequential(t.samples, language=code)[0] for t in talks]
        pairs = [(t.text, text_of(s)) for t, s in zip(talks, heard_talks, strict=True)]
        yield Row(f"windows of phrases, {code}: WER", word_error_rate(pairs), 25, "%")
        off = [e for t, s in zip(talks, heard_talks, strict=True) for e in time_errors(t.spoken, s)]
        yield Row(f"windows of phrases, {code}: times, median", float(np.median(off)), 0.2, "s")


def ten_minutes(listener: Listener, studio: Studio, count: int) -> Iterator[Row]:
    recording = studio.talk("en", 5, 600, (0.5, 0.9))
    length = len(recording.samples) / RATE
    ways: dict[str, tuple[str, dict[str, object]]] = {
        "sequential": ("sequential", {}),
        "sequential, previous text": ("sequential", {"condition_on_previous_text": True}),
        "batched": ("batched", {}),
        "batched, no timestamps": ("batched", {"without_timestamps": True}),
    }
    for name, (way, options) in ways.items():
        begun = time.perf_counter()
        segments = getattr(listener, way)(recording.samples, **options)[0]
        speed = length / (time.perf_counter() - begun)
        label = f"{length / 60:.0f} minutes, {name}"
        yield Row(f"{label}: WER", word_error_rate([(recording.text, text_of(segments))]), 25, "%")
        if "no timestamps" not in name:
            off = float(np.percentile(time_errors(recording.spoken, segments), 90))
            yield Row(f"{label}: times, 90th percentile", off, 1.0, "s")
        yield Row(f"{label}: speed", speed, 5, "x", at_least=True)


def word_times(listener: Listener, studio: Studio, count: int) -> Iterator[Row]:
    off: list[float] = []
    for recording in studio.phrases("en", count, seed=31, name="en-us"):
        segments, _ = listener.sequential(recording.samples, word_timestamps=True)
        words = [word for segment in segments for word in segment.words or []]
        if len(words) == len(recording.words):
            pairs = zip(words, recording.words, strict=True)
            off += [abs(word.start - start) for word, (start, _) in pairs]
    yield Row("word starts: median error", float(np.median(off)), 0.15, "s")


def translation(listener: Listener, studio: Studio, count: int) -> Iterator[Row]:
    for code, texts in TRANSLATIONS.items():
        pairs = []
        for text in texts:
            samples = studio.say(code, text, Voice(code)).samples
            heard = text_of(listener.sequential(samples, language=code, task="translate")[0])
            pairs.append((phrases.english_of(code, text), heard))
        yield Row(f"translation {code} to en: WER", word_error_rate(pairs), 15, "%")


CHECKS: tuple[Check, ...] = (
    counting,
    default_voices,
    held_out,
    without_speech,
    word_times,
    translation,
    long_windows,
    ten_minutes,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=Path(__file__).parent / "model")
    parser.add_argument("--quick", action="store_true", help="fewer phrases, no long recording")
    parser.add_argument("--only", help="one check by its name")
    args = parser.parse_args()
    listener, studio = Listener(args.model), Studio()
    failed = 0
    chosen = [c for c in CHECKS if not (args.quick and c is ten_minutes)]
    rows = [size(args.model)] if args.only is None else []
    rows += [
        check(listener, studio, 12 if args.quick else 60) for check in chosen if args.only in (None, check.__name__)
    ]
    for row in (row for check in rows for row in check):
        failed += not row.met
        sign = ">=" if row.at_least else "<="
        verdict = "ok" if row.met else "FAILS"
        figure = f"{row.value:8.2f} {row.unit:2} ({sign} {row.bound:g})"
        print(f"{verdict:5} {row.name:58} {figure}", flush=True)
    print(f"{failed} bounds not met")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
