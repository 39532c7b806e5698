"""Where somebody speaks: Silero VAD v6 on onnxruntime, with the weights that faster-whisper ships.

Never imports faster_whisper, and nothing is loaded before the first call: worker processes fork.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz
FRAME = 512  # samples a probability; 32 ms
CONTEXT = 64  # samples of the frame before, which the network sees too
STATE = (1, 1, 128)  # of its LSTM
FRAMES_PER_RUN = 10_000  # 5 minutes; bounds the memory of one run
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
    padded = np.pad(audio, (0, FRAME - len(audio) % FRAME)).reshape(-1, FRAME)
    padded[-1, -CONTEXT:] = 0  # stock does so by accident; its numbers are what Whisper's users know
    before = np.vstack([np.zeros((1, CONTEXT), np.float32), padded[:-1, -CONTEXT:]])
    frames = np.hstack([before, padded])
    hidden, cell = np.zeros(STATE, np.float32), np.zeros(STATE, np.float32)
    outputs = []
    for start in range(0, len(frames), FRAMES_PER_RUN):
        feed = {"input": frames[start : start + FRAMES_PER_RUN], "h": hidden, "c": cell}
        output, hidden, cell = _session().run(None, feed)
        outputs.append(output.reshape(-1))
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
def _session() -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1  # each worker child has its core
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(_weights(), providers=["CPUExecutionProvider"], sess_options=options)


def _weights() -> Path:
    found = find_spec("faster_whisper")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("faster-whisper is not installed; its package holds the weights of the VAD.")
    return Path(found.submodule_search_locations[0]) / "assets" / "silero_vad_v6.onnx"
