"""An engine for fault tests: what it does is written in the recording, as 16-bit samples that survive any decoder.

A script is a JSON object. Every second of the recording holds a copy and its own number, so that a window cut anywhere
says what to do and where it lies; a test asks for VAD to be off, because a script is no speech.
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any
from wave import open as open_wave

from config import Settings
from engines import SAMPLE_RATE
from engines.faults import act
from errors import ModelUnavailable
from transcript import DecodeOptions, Segment

if TYPE_CHECKING:
    from engines import Audio, Speech

_MAGIC = b"\x00\xffFAKE\xff\x00"
_HEADER = struct.Struct("<HHI")  # second of the recording, length of the script, its CRC-32
_STEP = 256  # one byte a sample, so far apart that dither and rounding do not matter
_MODEL_BYTES = 100_000_000


class FakeEngine:
    """With MODEL_DOWNLOAD=false it has the models of which MODEL_CACHE_DIR holds a folder, as the real one."""

    waited_seconds = 0.0

    def __init__(self, settings: Settings | None = None) -> None:
        self._only = None if settings is None or settings.model_download else settings.model_cache_dir

    def resolve(self, size: str, compute_type: str) -> tuple[str, str]:
        return size, "int8" if compute_type == "default" else compute_type

    def load(self, size: str, compute_type: str) -> "FakeModel":
        """A size like "slow/8" takes that many seconds to load; give it as WHISPER_MODEL_SIZE."""
        if self._only is not None and not (self._only / size).is_dir():
            raise ModelUnavailable("The model is not on this machine, and MODEL_DOWNLOAD is off.")
        if size.startswith("slow/"):
            time.sleep(float(size.removeprefix("slow/")))
        return FakeModel(*self.resolve(size, compute_type))

    def estimate_bytes(self, size: str, compute_type: str) -> int:
        return _MODEL_BYTES

    def free_bytes(self) -> int:
        return 100 * _MODEL_BYTES

    def default_batch(self) -> int:
        return 1

    def begin(self, *, urgent: bool) -> None:
        return

    def warm(self, size: str) -> None:
        return

    def unload(self, size: str) -> None:
        return

    def pool_stats(self, pool: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**pool, "device": "fake", "pid": os.getpid()}]


class FakeModel:
    def __init__(self, size: str, compute_type: str) -> None:
        self.size = size
        self.compute_type = compute_type
        self.memory_bytes = _MODEL_BYTES
        self.revision: str | None = None

    def transcribe(
        self, windows: "Sequence[Audio]", options: DecodeOptions, speech: "Sequence[Speech | None]" = ()
    ) -> list[tuple[Segment, ...]]:
        return [self._window(window, len(windows)) for window in windows]

    def detect_languages(self, window: "Audio") -> dict[str, float]:
        return {"en": 1.0}

    def prompt_excess(self, options: DecodeOptions) -> int:
        return 0

    def close(self) -> None:
        return

    def _window(self, window: "Audio", batch: int) -> tuple[Segment, ...]:
        """One segment over the whole window: the script's text, and from the second window on its start in seconds."""
        found = decode_script(window)
        if found is None:
            return ()
        script, start_s = found
        end_s = len(window) / SAMPLE_RATE
        if self._is_meant(script, start_s, end_s, batch):
            act(script)
        text = str(script.get("text", ""))
        if text and start_s >= 1:
            text = f"{text} {start_s:.0f}"
        return (Segment(0.0, round(end_s, 3), f" {text}", avg_logprob=-0.1),) if text else ()

    def _is_meant(self, script: dict[str, Any], start_s: float, length_s: float, batch: int) -> bool:
        if self.size not in script.get("only", [self.size]) or batch <= script.get("batch_above", 0):
            return False
        return bool(script.get("every")) or start_s <= script.get("at", 0.0) < start_s + length_s


def encode_script(script: dict[str, Any], seconds: int = 1) -> bytes:
    """A WAV file (16 kHz, mono, 16 bit) of that length that carries `script`."""
    payload = json.dumps(script).encode()
    with BytesIO() as file:
        with open_wave(file, "wb") as wave:
            wave.setnchannels(1)
            wave.setsampwidth(2)
            wave.setframerate(SAMPLE_RATE)
            for second in range(seconds):
                block = _MAGIC + _HEADER.pack(second, len(payload), zlib.crc32(payload)) + payload
                samples = [(byte - 128) * _STEP for byte in block]
                wave.writeframes(struct.pack(f"<{SAMPLE_RATE}h", *samples, *[0] * (SAMPLE_RATE - len(samples))))
        return file.getvalue()


def decode_script(window: "Audio") -> tuple[dict[str, Any], float] | None:
    """The first whole script in the window, and the second of the recording at which the window starts."""
    import numpy as np

    levels = np.clip(np.rint(np.asarray(window, dtype=np.float64) * 32768 / _STEP) + 128, 0, 255)
    data = levels.astype(np.uint8).tobytes()
    place = data.find(_MAGIC)
    while place >= 0:
        start = place + len(_MAGIC) + _HEADER.size
        if start <= len(data):
            second, length, checksum = _HEADER.unpack_from(data, place + len(_MAGIC))
            payload = data[start : start + length]
            if len(payload) == length and zlib.crc32(payload) == checksum:
                return dict(json.loads(payload)), second - place / SAMPLE_RATE
        place = data.find(_MAGIC, place + 1)
    return None
