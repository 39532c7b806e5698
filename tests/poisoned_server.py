"""A real engine server that dies of complete silence: `python -m tests.poisoned_server SOCKET DEVICE`."""

import os
from collections.abc import Sequence
from typing import Any

from engines import raw, server

SILENCE = -1.49  # the least of a spectrogram is (log10(1e-10) + 4) / 4, and only silence has it
really = raw.RawWhisper.run


def run(
    self: raw.RawWhisper, operation: str, mels: Sequence[Any], requests: Sequence[raw.Request]
) -> list[dict[str, Any]]:
    if any(mel.min() <= SILENCE for mel in mels):
        os._exit(9)
    return really(self, operation, mels, requests)


if __name__ == "__main__":
    raw.RawWhisper.run = run  # type: ignore[method-assign]
    server.main()
