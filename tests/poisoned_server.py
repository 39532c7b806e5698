"""A real engine server that dies of complete silence and of loading `small`; every other model is `demo`.

`python -m tests.poisoned_server SOCKET DEVICE`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import Settings
from engines import catalog, raw, server
from engines.whisper import WhisperLoader

SILENCE = -1.49  # the least of a spectrogram is (log10(1e-10) + 4) / 4, and only silence has it
really = raw.RawWhisper.run
really_open = WhisperLoader._open


def run(
    self: raw.RawWhisper, operation: str, mels: Sequence[Any], requests: Sequence[raw.Request]
) -> list[dict[str, Any]]:
    if any(mel.min() <= SILENCE for mel in mels):
        os._exit(9)
    return really(self, operation, mels, requests)


def _open(self: WhisperLoader, folder: Path, size: str, compute_type: str) -> raw.RawWhisper:
    if size == "small":
        os._exit(9)
    return really_open(self, folder, size, compute_type)


def locate(size: str, settings: Settings) -> Path:
    return catalog.DEMO_DIR


if __name__ == "__main__":
    raw.RawWhisper.run = run  # type: ignore[method-assign]
    WhisperLoader._open = _open  # type: ignore[method-assign]
    catalog.locate = locate
    server.main()
