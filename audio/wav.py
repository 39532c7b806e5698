"""The plain WAV file, 16 kHz mono s16 and nothing odd about it, read without ffmpeg: its samples are the sound.

Every number in the header must be the expected one and agree with the size of the file. Whatever differs is not plain.
"""

import json
import os
import struct
from typing import BinaryIO, NamedTuple

from audio.sink import SAMPLE_RATE, Options, Sink

# Format chunk: its size, PCM, channels, rate, bytes a second, bytes a sample, bits a sample.
OPENING = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
LONGEST_LIST = 256  # bytes before the sound that name the program it comes from; ffmpeg writes 26
LONGEST_HEAD = 44 + LONGEST_LIST + 8
SPDIF_SEEN = 1 << 16  # ffmpeg looks for S/PDIF in so many bytes of the sound,
SPDIF = b"\x72\xf8\x1f\x4e"  # and this begins a burst of it
ACT = bytes(256 - 44) + b"\x84"  # at 44: a dictaphone's file that only begins like a WAV file
BLOCK = 1 << 16  # bytes


class PlainWav(NamedTuple):
    first: int  # byte of the sound
    samples: int
    file_bytes: int

    def decode(self, media: BinaryIO, stdout: BinaryIO, options: Options) -> None:
        """Write the line of JSON and the sound: what `audio.media.decode` writes for this file, byte for byte."""
        apart = 1 if options.separate else None
        stdout.write(json.dumps(self._probe() | {"apart": apart, "warnings": []}).encode() + b"\n")
        stdout.flush()
        sink = Sink(stdout, options)
        media.seek(self.first)
        missing = self.samples * 2
        while missing and (pcm := media.read(min(missing, BLOCK))):
            sink.write(pcm)
            missing -= len(pcm)

    def _probe(self) -> dict[str, object]:
        microseconds = (self.samples * 125 + 1) // 2
        return {
            "duration": round(self.samples / SAMPLE_RATE, 3),
            "container": "wav",
            "codec": "pcm_s16le",
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
            "has_video": False,
            "bit_rate": int(self.file_bytes * 8.0 * 1e6 / microseconds),
            "tracks": [{"index": 0, "language": None, "title": None, "channels": 1, "default": False}],
            "track": 0,
        }


def plain_wav(media: BinaryIO, *, longest: int) -> PlainWav | None:
    """None: not plain, or more than `longest` samples. Leaves `media` at its beginning."""
    file_bytes = os.fstat(media.fileno()).st_size
    head = media.read(LONGEST_HEAD + SPDIF_SEEN)
    media.seek(0)
    at = _data_chunk(head)
    if head[:4] != b"RIFF" or head[8:36] != OPENING or head[at : at + 4] != b"data" or len(head) < at + 8:
        return None
    first, size = at + 8, _number(head, at + 4)
    agreed = _number(head, 4) + 8 == file_bytes == first + size
    disguised = head.startswith(ACT, 44) or SPDIF in head
    if not agreed or disguised or size % 2 or not 0 < size // 2 <= longest:
        return None
    return PlainWav(first, size // 2, file_bytes)


def _data_chunk(head: bytes) -> int:
    """Where it must be: after the format, or after the one name that ffmpeg writes there, its own."""
    size = _number(head, 40)
    is_name = head[36:40] == b"LIST" and head[44:52] == b"INFOISFT" and _number(head, 52) + 12 == size
    return 44 + min(size, LONGEST_LIST) if is_name and size % 2 == 0 else 36


def _number(head: bytes, at: int) -> int:
    return int.from_bytes(head[at : at + 4], "little")
