"""Speech of any length for benches: the demo's minute of English, over and over, each time a little different.

Our engine encodes a window once, however often it is asked about it: no bench may send the same one twice.
"""

import wave
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audio.decode import open_audio
from engines import SAMPLE_RATE

Samples = NDArray[np.float32]
MINUTE = Path(__file__).parents[1] / "demo" / "samples" / "english-minute.webm"
WINDOW = 30 * SAMPLE_RATE
NOISE = 1e-4  # three steps of a 16-bit sample
_RANDOM = np.random.default_rng()


@cache
def _minute() -> Samples:
    with open_audio(MINUTE) as audio:
        return np.concatenate(list(audio.blocks()))


def speech(seconds: float) -> Samples:
    """With a whisper of noise, which no other call has had."""
    minute, samples = _minute(), round(seconds * SAMPLE_RATE)
    noise = _RANDOM.standard_normal(samples, np.float32) * np.float32(NOISE)
    return np.tile(minute, -(-samples // len(minute)))[:samples] + noise


def windows(count: int) -> list[Samples]:
    """Of 30 s each, full."""
    return list(speech(30 * count).reshape(count, WINDOW))


def write_wav(path: Path, seconds: float, *, skip_s: float = 0.0) -> Path:
    """`skip_s`: where in the speech it begins, so that recordings differ."""
    sound = speech(skip_s + seconds)[round(skip_s * SAMPLE_RATE) :]
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes((sound * 32767).astype("<i2").tobytes())
    return path
