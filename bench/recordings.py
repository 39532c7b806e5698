"""Recordings of any length for measurements: a minute of demo speech, then minutes of a quiet room, over and over.

Written as a stream; nothing of the length of the recording is ever held.
"""

import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz
CYCLE_S = 600  # a minute of speech, nine minutes of nearly nothing
SPEECH = Path(__file__).parents[1] / "demo" / "samples" / "english-minute.webm"
HISS = 3  # of 32767: a quiet room is not digital silence
STEP = 960  # samples a frame: 60 ms


def write(path: Path, seconds: int) -> Path:
    """`.wav` or `.opus`, by the ending; `seconds` is a multiple of CYCLE_S."""
    cycles, sound = seconds // CYCLE_S, _cycle()
    if path.suffix == ".wav":
        _write_wav(path, sound, cycles)
    else:
        _write_opus(path, sound, cycles)
    return path


def write_speech(path: Path, seconds: int) -> Path:
    """A WAV with nobody pausing for long; `seconds` is cut down to whole minutes of the sample."""
    sound = speech()
    _write_wav(path, sound, seconds * RATE // len(sound))
    return path


def speech() -> NDArray[np.int16]:
    with av.open(str(SPEECH)) as container:
        to_speech = av.AudioResampler("s16", "mono", RATE)
        pieces = [piece.to_ndarray() for frame in container.decode(audio=0) for piece in to_speech.resample(frame)]
    return np.concatenate(pieces, axis=1)[0]  # type: ignore[no-any-return]


def _cycle() -> NDArray[np.int16]:
    sound = np.random.default_rng(0).integers(-HISS, HISS + 1, CYCLE_S * RATE, dtype=np.int16)
    spoken = speech()
    sound[: len(spoken)] = spoken
    return sound


def _write_wav(path: Path, sound: NDArray[np.int16], cycles: int) -> None:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        for number in range(cycles):  # our engine encodes equal windows once: none may be equal
            hiss = np.random.default_rng(number).integers(-HISS, HISS + 1, len(sound), dtype=np.int16)
            out.writeframes((np.clip(sound, HISS - 32_768, 32_767 - HISS) + hiss).tobytes())


def _write_opus(path: Path, sound: NDArray[np.int16], cycles: int) -> None:
    """Encoded once; the packets are repeated with later time stamps."""
    with path.open("wb") as file, av.open(file, "w", format="ogg") as container:
        stream: Any = container.add_stream("libopus", rate=48_000, layout="mono")
        stream.bit_rate = 24_000
        packets = [packet for frame in _frames(sound) for packet in stream.encode(frame)]
        base = packets[0].time_base or Fraction(1, 48_000)
        length = round(CYCLE_S / base)
        for number in range(cycles):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.duration = stream, base, packet.duration
                copy.pts = copy.dts = (packet.pts or 0) + number * length
                container.mux(copy)


def _frames(sound: NDArray[np.int16]) -> Iterator[av.AudioFrame]:
    to_opus = av.AudioResampler("flt", "mono", 48_000)
    for start in range(0, len(sound), STEP):
        frame = av.AudioFrame.from_ndarray(sound[None, start : start + STEP], format="s16", layout="mono")
        frame.rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        yield from to_opus.resample(frame)
