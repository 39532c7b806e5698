"""Where somebody speaks: Silero VAD v6, with the weights that faster-whisper ships and Silero's rules.

Never imports faster_whisper, and nothing is loaded before the first call: worker processes fork.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from audio.silero import CONTEXT, FRESH, SEEN, Silero
from audio.tensors import read_tensors

SAMPLE_RATE = 16_000  # Hz
FRAME = SEEN - CONTEXT  # 512 samples a probability; 32 ms
FRAMES_PER_RUN = 128  # 4 s; what they become stays in the cache of the processor
THRESHOLD = 0.5  # probability from which a frame begins speech
HYSTERESIS = 0.15  # speech ends below the threshold less this


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of speech, in samples from the start of the audio."""

    start: int
    end: int

    @property
    def start_s(self) -> float:
        return self.start / SAMPLE_RATE

    @property
    def end_s(self) -> float:
        return self.end / SAMPLE_RATE


def speech_probabilities(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """One probability of speech a frame of 512 samples, `len(audio) // 512 + 1` of them, from a fresh state.

    `audio`: mono, 16 kHz. The numbers are those of faster_whisper.vad, its padding included.
    """
    silence = np.zeros(CONTEXT, np.float32)
    sound = np.concatenate([silence, audio, np.zeros(FRAME - len(audio) % FRAME, np.float32)])
    sound[-CONTEXT:] = 0  # stock does so by accident; its numbers are what Whisper's users know
    frames = sliding_window_view(sound, SEEN)[::FRAME]
    state, outputs = FRESH, []
    for start in range(0, len(frames), FRAMES_PER_RUN):
        output, state = _network()(frames[start : start + FRAMES_PER_RUN], state)
        outputs.append(output)
    return np.concatenate(outputs)


def speech_regions(
    probabilities: NDArray[np.float32],
    *,
    length: int,
    threshold: float = THRESHOLD,
    min_speech_ms: int = 0,
    min_silence_ms: int = 2000,
    pad_ms: int = 400,
) -> list[Region]:
    """The rules and defaults of Silero's get_speech_timestamps without a longest duration.

    `length`: samples of the audio. Speech goes on over silences shorter than `min_silence_ms`; each region is then
    widened by `pad_ms` on both sides, or by half the silence where two regions would meet. They never overlap.
    """
    bare = _bare_regions(probabilities, length, threshold, min_silence_ms * SAMPLE_RATE // 1000)
    shortest = min_speech_ms * SAMPLE_RATE // 1000
    return _padded([region for region in bare if region.end - region.start > shortest], length, pad_ms)


def _bare_regions(probabilities: NDArray[np.float32], length: int, threshold: float, min_silence: int) -> list[Region]:
    loud = (probabilities >= threshold).tolist()
    quiet = (probabilities < max(threshold - HYSTERESIS, 0.01)).tolist()
    regions: list[Region] = []
    start = silent_from = -1  # samples; -1: not in speech, not in a silence within speech
    for at, is_loud, is_quiet in zip(range(0, len(loud) * FRAME, FRAME), loud, quiet, strict=True):
        if is_loud:
            silent_from = -1
            start = at if start < 0 else start
        elif is_quiet and start >= 0:
            silent_from = at if silent_from < 0 else silent_from
            if at - silent_from >= min_silence:
                regions.append(Region(start, silent_from))
                start = silent_from = -1
    if start >= 0:
        regions.append(Region(start, length))
    return regions


def _padded(regions: list[Region], length: int, pad_ms: int) -> list[Region]:
    pad = pad_ms * SAMPLE_RATE // 1000
    edges = [2 * pad, *(after.start - before.end for before, after in pairwise(regions)), 2 * pad]
    room = [min(pad, silence // 2) for silence in edges]
    return [
        Region(max(0, region.start - before), min(length, region.end + after))
        for region, (before, after) in zip(regions, pairwise(room), strict=False)  # no region: one pair
    ]


@cache
def _network() -> Silero:
    try:
        return Silero(read_tensors(_weights()))
    except (KeyError, ValueError):
        raise RuntimeError("The VAD's weights are not those of Silero v6: faster-whisper 1.2 holds them.") from None


def _weights() -> Path:
    found = find_spec("faster_whisper")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("faster-whisper is not installed; its package holds the weights of the VAD.")
    return Path(found.submodule_search_locations[0]) / "assets" / "silero_vad_v6.onnx"
