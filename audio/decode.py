"""Recordings as sound: starts a decoder process for each and turns what it says into arrays and errors of ours.

Never opens media in this process: a crash, a hang or a memory bomb in a decoder is an ordinary error of one job.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audio.child import Child
from config import Settings, get_settings
from errors import (
    AudioTooLong,
    CodecMissing,
    DecoderCrashed,
    FileMissing,
    MediaError,
    NoAudioStream,
    NoSuchTrack,
    ServiceError,
    StorageError,
    UndecodableAudio,
)

SAMPLE_RATE = 16_000  # Hz
BLOCK_BYTES = 10 * SAMPLE_RATE * 2  # 10 s
HEADER_BYTES = 1 << 16  # a first line that is longer is none
MESSAGE_LENGTH = 300  # characters; the decoder has read a stranger's file, so its words are not trusted either
DECODER = (sys.executable, "-I", str(Path(__file__).with_name("decoder.py").resolve()))

_FAULTS: dict[str, type[MediaError]] = {
    error.code: error for error in (UndecodableAudio, NoAudioStream, AudioTooLong, CodecMissing, NoSuchTrack)
}  # fmt: skip
_DEATHS = {
    signal.SIGXCPU: "used far more processor time than such a recording needs",
    signal.SIGKILL: "was killed; machines that run out of memory do that",
}


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the headers claim, for display. Nothing may be decided by it: headers lie."""

    duration: float | None  # seconds; None also where more is claimed than is accepted
    container: str
    codec: str
    sample_rate: int  # Hz
    channels: int
    has_video: bool = False
    bit_rate: int | None = None  # bit/s of the whole file
    tracks: list[dict[str, Any]] = field(default_factory=list)  # index, language, title, channels, default
    track: int = 0  # the one that is decoded: its index among them, which ffmpeg calls a:N
    apart: int | None = None  # channels that come each by itself; None: mixed to one
    warnings: list[dict[str, Any]] = field(default_factory=list)  # code, message: what a listener might miss

    def as_json(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name != "warnings"}  # those are the result's


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be heard of a recording."""

    track: str | None = None  # a number among the sound tracks, from 0, or a language; None: chosen by `language`
    language: str | None = None  # to prefer, where no track is marked as the default
    separate: bool = False  # channels are not mixed


WHOLE = Selection()


class DecodedAudio:
    """One open recording, read once from beginning to end."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._pending = b""
        self.info = self._read_info()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """16 kHz, -1..1, 10 s each, the last one shorter: (n), or (n, `info.apart`) where channels are apart.

        A fault in the middle is raised after the sound before it was given. Raises UndecodableAudio, AudioTooLong,
        DecoderCrashed.
        """
        channels = self.info.apart or 1
        while pcm := self._read_block(BLOCK_BYTES * channels):
            samples = len(pcm) // 2 // channels
            sound = np.frombuffer(pcm, "<i2", samples * channels).astype(np.float32) / np.float32(32768)
            yield sound if self.info.apart is None else sound.reshape(samples, channels)
        self._finish()

    def interrupt(self) -> None:
        """From another thread: `blocks` ends soon, with an error."""
        self._child.interrupt()

    def _read_block(self, size: int) -> bytes:
        parts, missing = [self._pending[:size]], size - len(self._pending)
        self._pending = self._pending[size:]
        while missing > 0 and (part := self._child.read(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _read_info(self) -> AudioInfo:
        line = b""
        while b"\n" not in line and len(line) < HEADER_BYTES:
            part = self._child.read(HEADER_BYTES)
            if not part:
                self._finish()
                raise DecoderCrashed("The decoder ended without a word. This is a bug.")
            line += part
        line, _, self._pending = line.partition(b"\n")
        try:
            return AudioInfo(**json.loads(line))
        except (ValueError, TypeError):
            raise DecoderCrashed("The decoder did not say what it found. This is a bug.") from None

    def _finish(self) -> None:
        status = self._child.end()
        if status:
            raise _error_of(status, self._child.complaint)


@contextmanager
def open_audio(
    path: Path,
    *,
    start_s: float = 0.0,
    repair: bool = False,
    take: Selection = WHOLE,
    settings: Settings | None = None,
    program: Sequence[str] = DECODER,
) -> Iterator[DecodedAudio]:
    """Decode a file; the decoder process is gone when the block is left, however that happens.

    Times count from the first moment of sound or film: sound that begins later, and gaps in its stamps, are silence.
    `start_s` leaves out exactly that many seconds (to the nearest sample). Without `repair` a damaged recording raises
    UndecodableAudio; with it, what cannot be decoded is passed over. The thread that opens must stay alive meanwhile.
    Raises MediaError (the recording's fault), DecoderCrashed, FileMissing, StorageError.
    """
    settings = settings or get_settings()
    options = ["--start", f"{start_s:.6f}", "--parent", str(os.getpid())]
    options += ["--max-hours", str(settings.max_audio_hours), "--memory-mb", str(settings.decode_memory_mb)]
    options += [f"--track={take.track or ''}", f"--language={take.language or ''}"]  # one word: may begin with a dash
    options += [option for option, is_on in (("--repair", repair), ("--separate", take.separate)) if is_on]
    command = [*program, *options]
    with _open_file(path) as media, _start(command, media, settings.decode_stall_seconds) as child:
        yield DecodedAudio(child)


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise FileMissing("The recording is no longer in storage.") from None
    except OSError as error:
        raise StorageError(f"The recording could not be read from storage: {error.strerror}.") from None


def _start(command: Sequence[str], media: BinaryIO, stall_s: float) -> Child:
    try:
        return Child(command, media, stall_s=stall_s)
    except OSError as error:
        raise DecoderCrashed(f"The decoder could not be started: {error.strerror}.") from None


def _error_of(status: int, complaint: str) -> ServiceError:
    """The exception for a decoder that did not end well."""
    code, message = _last_words(complaint)
    if fault := _FAULTS.get(code):
        return fault(message)
    if status < 0:
        name = signal.Signals(-status).name
        return DecoderCrashed(f"The decoder {_DEATHS.get(signal.Signals(-status), f'died of {name}')}.")
    return DecoderCrashed(message or f"The decoder failed with status {status}. This is a bug.")


def _last_words(complaint: str) -> tuple[str, str]:
    """(code, message) from the last line on stderr, or two empty strings."""
    try:
        said = json.loads(complaint.strip().rpartition("\n")[2])
        return str(said["code"]), str(said["message"])[:MESSAGE_LENGTH]
    except (ValueError, TypeError, KeyError):
        return "", ""
