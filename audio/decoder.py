"""The program that opens one untrusted recording: stdin is the file; stdout a line of JSON, then 16 kHz mono s16le PCM.

It limits itself before it decodes and can then open nothing else. It never learns a file name and never writes a
traceback: what went wrong is one line of JSON on stderr. Of this service it imports its own parts alone: a quick start.
"""

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import BinaryIO

if __name__ == "__main__":  # isolated, so that nothing but this is found beside Python's own packages
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # noqa: PTH120 pathlib: 5 ms

from audio.confine import confine
from audio.sink import SAMPLE_RATE, Options, Refusal
from audio.wav import plain_wav

OUT_OF_MEMORY = b'{"code": "out_of_memory", "message": "The decoder ran out of its memory limit."}\n'  # ready made
Decode = Callable[[BinaryIO, BinaryIO, Options], None]


class _Media(io.FileIO):
    """The file on stdin, which may itself say that a part of it lies where no file can have one."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """The new position, or ffmpeg's own number for "no such place": PyAV would raise what ffmpeg can live with."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return -errno.EINVAL


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        with _Media(0, "rb") as media, os.fdopen(1, "wb", buffering=1 << 16) as stdout:
            decode = _decoder_of(media, options)
            confine(memory_mb=options.memory_mb, parent=options.parent)
            decode(media, stdout, options)
    except Refusal as refusal:
        return _fail_with(*refusal.args)
    except MemoryError:
        return _fail(OUT_OF_MEMORY)
    except BrokenPipeError:
        return 1  # nobody listens any more
    except Exception as error:  # noqa: BLE001  a reading error of the disk, or a bug: the parent tries again
        return _fail_with("decoder_failed", f"The decoder failed: {type(error).__name__}.")
    return 0


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="decoder", description="Decode the recording on stdin to PCM on stdout.")
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS", help="leave out this much")
    parser.add_argument("--max-hours", type=float, default=24.0, help="refuse what is longer")
    parser.add_argument("--memory-mb", type=int, default=1024, help="address space")
    parser.add_argument("--parent", type=int, default=0, metavar="PID", help="die with this process")
    parser.add_argument("--track", default="", help="number of the sound track, from 0, or its language")
    parser.add_argument("--language", default="", help="language of the track to prefer")
    parser.add_argument("--separate", action="store_true", help="each channel by itself, interleaved")
    parser.add_argument("--repair", action="store_true", help="pass over what cannot be decoded")
    given = parser.parse_args(arguments)
    limit = round(given.max_hours * 3600 * SAMPLE_RATE)
    return Options(
        round(given.start * SAMPLE_RATE), limit, given.repair, given.memory_mb, given.parent,
        given.track, given.language, given.separate,
    )  # fmt: skip


def _decoder_of(media: BinaryIO, options: Options) -> Decode:
    """What reads this recording, with all that it needs imported. PyAV takes longer to import than to read a clip."""
    wav = None if options.track else plain_wav(media, longest=options.limit)
    if wav:
        return wav.decode
    from audio.media import decode

    return decode


def _fail_with(code: str, message: str) -> int:
    return _fail(json.dumps({"code": code, "message": message}).encode() + b"\n")


def _fail(line: bytes) -> int:
    os.write(2, line)
    return 1


if __name__ == "__main__":
    sys.exit(main())
