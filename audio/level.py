"""How loud sound is: a quiet recording is made louder before anybody listens; loud parts without speech are named."""

import numpy as np
from numpy.typing import NDArray

from audio.vad import FRAME, SAMPLE_RATE

Samples = NDArray[np.float32]

QUIET = 0.004  # RMS of the loudest frames, -48 dBFS: speech below it escapes the voice detector
USUAL = 0.05  # RMS of the loudest frames of ordinary speech, -26 dBFS
MOST = 1000.0  # 60 dB; beyond lies the rounding of 16-bit samples
LOUDEST = 98  # percentile of frames: two thirds of a second in half a minute, more than a click
LOUD = 0.01  # RMS, -40 dBFS: clearly audible
BLOCK = SAMPLE_RATE  # loudness is told by the second


def gain(sound: Samples) -> float:
    """By what to multiply `sound` (mono, -1..1) so that speech in it is as loud as usual; 1 unless it is very quiet."""
    if len(sound) < FRAME:
        return 1.0
    loudest = float(np.percentile(_rms(sound, FRAME), LOUDEST))
    return min(USUAL / loudest, MOST) if 0 < loudest < QUIET else 1.0


def loud_parts(sound: Samples) -> list[tuple[float, float]]:
    """Stretches that are clearly audible, in seconds from the start, to the second."""
    loud = np.flatnonzero(_rms(sound, BLOCK) >= LOUD).tolist() if len(sound) >= BLOCK else []
    return joined([(float(second), float(second + 1)) for second in loud])


def joined(parts: list[tuple[float, float]], *, gap_s: float = 0.0) -> list[tuple[float, float]]:
    """Stretches in order; those that are at most `gap_s` apart are one."""
    together: list[tuple[float, float]] = []
    for start, end in parts:
        if together and start - together[-1][1] <= gap_s:
            start = together.pop()[0]  # noqa: PLW2901
        together.append((start, end))
    return together


def _rms(sound: Samples, block: int) -> Samples:
    """Of each whole block."""
    whole = sound[: len(sound) // block * block].reshape(-1, block)
    levels: Samples = np.sqrt(np.einsum("ij,ij->i", whole, whole) / block)  # einsum: no copy of the sound
    return levels
