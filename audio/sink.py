"""Where a decoder's sound goes: counted, its beginning left out, refused where it is too long."""

import os
from typing import BinaryIO, NamedTuple  # not dataclasses: they take longer to import than to read a clip

from audio.confine import allow_cpu

SAMPLE_RATE = 16_000  # Hz, of the output
CPU_S_PER_MINUTE = 20  # processor time for each further minute of sound; the slowest codec measured needs 0.6
SILENCE = 10 * SAMPLE_RATE  # samples that are written at once


class Refusal(Exception):
    """The recording, or what was asked of it, is at fault. `args`: code, message to a person."""


class Options(NamedTuple):
    start: int  # samples to leave out at the beginning
    limit: int  # samples; more is too long
    repair: bool
    memory_mb: int
    parent: int  # pid; 0: nobody's
    track: str = ""  # a number among the sound tracks, or a language; empty: chosen here
    language: str = ""  # that the caller expects to hear
    separate: bool = False  # each channel by itself


class Sink:
    """Counts real samples, leaves out the first `start`, stops at `limit`, and shows the parent that work goes on.

    A sample is one value for each of the `channels`, which are interleaved.
    """

    def __init__(self, stdout: BinaryIO, options: Options, *, channels: int = 1) -> None:
        self._stdout = stdout
        self._options = options
        self._width = 2 * channels  # bytes
        self._next_sign = 60 * SAMPLE_RATE
        self.samples = 0

    def write(self, pcm: bytes | memoryview) -> None:
        """Whole samples of s16le. Raises Refusal."""
        skip = max(0, self._options.start - self.samples)
        samples = len(pcm) // self._width
        self.samples += samples
        if self.samples > self._options.limit:
            hours = self._options.limit / SAMPLE_RATE / 3600
            raise Refusal("audio_too_long", f"The recording is longer than {hours:g} hours. Send it in parts.")
        if skip < samples:
            self._stdout.write(pcm[skip * self._width :])
        if self.samples >= self._next_sign:
            self._sign()

    def silence(self, samples: int) -> None:
        zeros = bytes(SILENCE * self._width)
        for done in range(0, samples, SILENCE):
            self.write(zeros[: min(SILENCE, samples - done) * self._width])

    def _sign(self) -> None:
        """Once a minute of sound: more processor time, and a byte on stderr, for nothing is written while skipping."""
        self._next_sign = self.samples + 60 * SAMPLE_RATE
        allow_cpu(CPU_S_PER_MINUTE)
        os.write(2, b"\n")
