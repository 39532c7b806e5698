"""Where a decoder's sound goes: counted, its beginning left out, refused where it is too long."""

import os
from typing import BinaryIO, NamedTuple  # not dataclasses: they take longer to import than to read a clip

from audio.confine import allow_cpu

SAMPLE_RATE = 16_000  # Hz, of the output
CPU_S_PER_MINUTE = 20  # processor time for each further minute of sound; the slowest codec measured needs 0.6


class Refusal(Exception):
    """The recording is at fault. `args`: code, message to a person."""


class Options(NamedTuple):
    start: int  # samples to leave out at the beginning
    limit: int  # samples; more is too long
    repair: bool
    memory_mb: int
    parent: int  # pid; 0: nobody's


class Sink:
    """Counts real samples, leaves out the first `start`, stops at `limit`, and shows the parent that work goes on."""

    def __init__(self, stdout: BinaryIO, options: Options) -> None:
        self._stdout = stdout
        self._options = options
        self._next_sign = 60 * SAMPLE_RATE
        self.samples = 0

    def write(self, pcm: bytes | memoryview) -> None:
        """Whole samples of s16le. Raises Refusal."""
        skip = max(0, self._options.start - self.samples)
        samples = len(pcm) // 2
        self.samples += samples
        if self.samples > self._options.limit:
            hours = self._options.limit / SAMPLE_RATE / 3600
            raise Refusal("audio_too_long", f"The recording is longer than {hours:g} hours. Send it in parts.")
        if skip < samples:
            self._stdout.write(pcm[skip * 2 :])
        if self.samples >= self._next_sign:
            self._sign()

    def _sign(self) -> None:
        """Once a minute of sound: more processor time, and a byte on stderr, for nothing is written while skipping."""
        self._next_sign = self.samples + 60 * SAMPLE_RATE
        allow_cpu(CPU_S_PER_MINUTE)
        os.write(2, b"\n")
