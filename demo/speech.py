"""Synthetic speech with known word and phoneme times, and its log-mel frames.

Owns the voices (trained and held out) and the synthesisers: libespeak-ng through ctypes, which
reports times, and flite on PATH, which does not. Never touches tokens or the network.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from demo.phrases import Phrase

RATE = 16_000
HOP = 160
Samples = npt.NDArray[np.float32]

BASES = {
    "en": ["en-us", "en", "en-us", "en", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland"],
    "de": ["de"],
    "fr": ["fr", "fr", "fr-be", "fr-ch"],
    "es": ["es", "es", "es-419"],
}
VARIANTS = (
    "f1 f2 f3 f5 m1 m2 m3 m4 m6 m7 m8 klatt klatt2 klatt4 Alex Alicia Andy Annie Diogo Gene Henrique "
    "Hugo Jacky Lee Marco Michael Mike Nguyen adam anika antonio belinda benjamin boris caleb david ed "
    "edward gustave iven iven3 john linda marcelo mario miguel pablo paul pedro quincy rob robert "
    "sandro shelby steph steph3 travis victor zac"
).split()
HELD_OUT_VARIANTS = ["f4", "m5", "klatt3", "Andrea", "max", "edward2", "steph2", "norbert"]
HELD_OUT_SPEEDS = [143, 161, 187, 203]
FLITE_VOICES = ["slt", "rms", "awb", "kal16", "kal"]


@dataclass(frozen=True, slots=True)
class Voice:
    name: str  # espeak-ng's name, or flite's with "flite:" before it
    speed: int = 175  # words per minute
    pitch: int = 50


@dataclass(slots=True)
class Utterance:
    phrase: Phrase
    voice: Voice
    samples: Samples  # 16 kHz, trimmed
    words: list[tuple[float, float]]  # seconds, one a word; empty where unknown
    phonemes: list[tuple[float, str]]  # start in seconds, espeak's name; empty where unknown


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):  # espeak_EVENT of speak_lib.h
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_WORD, _PHONEME = 1, 7
PAUSES = ("_", "_:")  # espeak's names for silence


class Espeak:
    """One libespeak-ng; a process can hold only one."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate = self._library.espeak_Initialize(2, 0, None, 1)  # synchronous, phoneme events
        self._blocks: list[npt.NDArray[np.int16]] = []
        self._events: list[tuple[int, int, float, str]] = []
        self._callback = _CALLBACK(self._receive)  # kept: the library holds no reference
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave: ctypes._Pointer[ctypes.c_short], count: int, events: object) -> int:
        if count > 0:
            self._blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        at = 0
        while (event := events[at]).type != 0:  # type: ignore[index]
            name = event.id.string.decode() if event.type == _PHONEME else ""
            self._events.append((event.type, event.text_position, event.audio_ms / 1000, name))
            at += 1
        return 0

    def speak(self, phrase: Phrase, voice: Voice) -> Utterance:
        self._blocks.clear()
        self._events.clear()
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        self._library.espeak_SetParameter(1, voice.speed, 0)
        self._library.espeak_SetParameter(3, voice.pitch, 0)
        text = phrase.spoken.encode() + b"\0"
        self._library.espeak_Synth(text, len(text), 0, 1, 0, 1, None, None)
        self._library.espeak_Synchronize()
        samples = resample(np.concatenate(self._blocks).astype(np.float32) / np.float32(32768), self._rate)
        phonemes = [(at, name) for kind, _, at, name in self._events if kind == _PHONEME]
        starts = {where - 1: at for kind, where, at, _ in self._events if kind == _WORD}
        samples, first = trim(samples)
        words = _word_times(phrase.spoken, starts, phonemes, first + len(samples) / RATE)
        return Utterance(
            phrase,
            voice,
            samples,
            [(max(a - first, 0.0), max(b - first, 0.02)) for a, b in words],
            [(at - first, name) for at, name in phonemes],
        )


def _word_times(
    spoken: str, starts: dict[int, float], phonemes: list[tuple[float, str]], end: float
) -> list[tuple[float, float]]:
    """Start and end of each word; a word espeak joined to the one before shares its span."""
    pauses = sorted(at for at, name in phonemes if name in PAUSES)
    begins = sorted(set(starts.values()))
    spans: list[tuple[float, float]] = []
    position = 0
    for word in spoken.split(" "):
        start = starts.get(position)
        position += len(word) + 1
        if start is None:
            spans.append(spans[-1] if spans else (0.0, end))
            continue
        stop = min([t for t in (*begins, *pauses) if t > start + 0.01] + [end])
        spans.append((start, stop))
    return spans


def speak_with_flite(phrase: Phrase, voice: Voice) -> Utterance:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        stretch = 175 / voice.speed
        command = ["flite", "-voice", voice.name.removeprefix("flite:"), "-t", phrase.spoken]
        command += ["--setf", f"duration_stretch={stretch:.2f}", "-o", file.name]
        subprocess.run(command, check=True, capture_output=True)
        samples, rate = read_wav(Path(file.name))
    return Utterance(phrase, voice, trim(resample(samples, rate))[0], [], [])


def read_wav(path: Path) -> tuple[Samples, int]:
    """A mono 16-bit file as samples in -1..1 and its rate; sizes in the header are not trusted."""
    data = path.read_bytes()
    rate = int.from_bytes(data[24:28], "little")
    start = data.index(b"data") + 8
    body = data[start : start + (len(data) - start) // 2 * 2]
    return np.frombuffer(body, np.int16).astype(np.float32) / np.float32(32768), rate


def resample(samples: Samples, rate: int, to: int = RATE) -> Samples:
    """Band-limited, by Fourier transform: phrases are short."""
    if rate == to:
        return samples
    count = round(len(samples) * to / rate)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    spectrum = np.pad(spectrum, (0, count // 2 + 1 - len(spectrum)))
    return (np.fft.irfft(spectrum, count) * (to / rate)).astype(np.float32)


def trim(samples: Samples) -> tuple[Samples, float]:
    """Without the silence at both ends, and where the rest began in seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1], float(loud[0]) / RATE


def random_voice(rng: Random, language: str) -> Voice:
    """A voice to train on: a default one in nearly half of the cases."""
    kind = rng.random()
    base = rng.choice(BASES[language])
    if kind < 0.45:
        return Voice(rng.choice(BASES[language][:2]))
    if language == "en" and kind > 0.96:
        return Voice(f"flite:{rng.choice(FLITE_VOICES)}", rng.randint(145, 205))
    speed = rng.randint(125, 215)
    while speed in HELD_OUT_SPEEDS:
        speed = rng.randint(125, 215)
    pitch = rng.randint(25, 80)
    if kind < 0.6:
        return Voice(base, speed, pitch)
    return Voice(f"{base}+{rng.choice(VARIANTS)}", speed, pitch)


def held_out_voice(rng: Random, language: str) -> Voice:
    """A voice and a speed that no training phrase has."""
    name = f"{BASES[language][0]}+{rng.choice(HELD_OUT_VARIANTS)}"
    return Voice(name, rng.choice(HELD_OUT_SPEEDS), rng.randint(35, 65))


CODECS: dict[str, tuple[str, list[str]]] = {
    "mp3": ("mp3", ["-c:a", "libmp3lame", "-b:a", "32k"]),
    "mp3-low": ("mp3", ["-c:a", "libmp3lame", "-b:a", "16k"]),
    "aac": ("m4a", ["-c:a", "aac", "-b:a", "32k"]),
    "vorbis": ("ogg", ["-c:a", "libvorbis", "-q:a", "0"]),
    "opus": ("webm", ["-c:a", "libopus", "-b:a", "16k"]),
    "opus-low": ("webm", ["-c:a", "libopus", "-b:a", "10k"]),
    "telephone": ("wav", ["-c:a", "pcm_mulaw", "-ar", "8000"]),
}


def through_codec(pieces: list[Samples], codec: str) -> list[Samples]:
    """The same pieces after a lossy codec (ffmpeg on PATH): one run for them all."""
    suffix, options = CODECS[codec]
    gap = np.zeros(RATE // 8, np.float32)
    joined = np.concatenate([part for piece in pieces for part in (piece, gap)])
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/coded.{suffix}"
        raw = ["-f", "s16le", "-ar", str(RATE), "-ac", "1"]
        quiet = ["ffmpeg", "-nostdin", "-loglevel", "error", "-threads", "1"]
        body = (joined.clip(-1, 1) * 32767).astype(np.int16).tobytes()
        subprocess.run([*quiet, *raw, "-i", "-", *options, file], input=body, check=True)
        done = subprocess.run([*quiet, "-i", file, *raw, "-"], capture_output=True, check=True)
    coded = np.frombuffer(done.stdout, np.int16).astype(np.float32) / np.float32(32768)
    coded = np.pad(coded, (0, max(0, len(joined) - len(coded))))
    ends = np.cumsum([len(piece) + len(gap) for piece in pieces])
    return [coded[end - len(gap) - len(piece) : end - len(gap)] for piece, end in zip(pieces, ends, strict=True)]


def mel_filters() -> npt.NDArray[np.float32]:
    """Whisper's 80 Slaney mel filters for a 400-point transform at 16 kHz: 80 x 201."""

    def to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(mel >= 15, 1000 * np.exp((np.log(6.4) / 27) * (mel - 15)), mel * 200 / 3)

    edges = to_hertz(np.linspace(0, 15 + np.log(8) / (np.log(6.4) / 27), 82))
    bins = np.linspace(0, RATE / 2, 201)
    ramps = edges[:, None] - bins[None]
    widths = np.diff(edges)
    below, above = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    weights = np.maximum(0, np.minimum(below, above))
    return (weights * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


_FILTERS = mel_filters()
_WINDOW = np.hanning(401)[:-1].astype(np.float32)


def log_mel(samples: Samples) -> npt.NDArray[np.float16]:
    """log10 of the mel power, a frame each 10 ms, before Whisper's clamp and scale."""
    padded = np.pad(samples, (200, 200 + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::HOP]
    power = np.abs(np.fft.rfft(frames * _WINDOW)) ** 2
    mel = power[:, :201].astype(np.float32) @ _FILTERS.T
    frames_of_log: npt.NDArray[np.float16] = np.log10(np.maximum(mel, 1e-10)).astype(np.float16)
    return frames_of_log


def speak_all(plan: Iterable[tuple[Phrase, Voice]]) -> Iterable[Utterance]:
    espeak = Espeak()
    for phrase, voice in plan:
        by_flite = voice.name.startswith("flite:")
        yield speak_with_flite(phrase, voice) if by_flite else espeak.speak(phrase, voice)
