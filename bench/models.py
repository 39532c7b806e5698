"""Models for benches: those of `bench.weights`, taught to say no times, so that every side decodes a window once.

With random weights Whisper's rules would pick times at random; stock then decodes part of a window again, in sequential
mode and not in batches, and the sides would do different work.
"""

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bench import weights

FIRST_TIME = 50_364  # <|0.00|>
PROJECTION = b"decoder/projection/weight"
FOLDER = Path(tempfile.gettempdir()) / f"whisper-bench-{os.getuid()}"  # kept between runs


def model(size: str, *, length: int = 100, quantization: str = "float16") -> Path:
    """A folder that faster-whisper loads; made where it is not there yet."""
    folder = FOLDER / f"{size}-{length}-{quantization}"
    if not (folder / "done").exists():
        weights.make(size, folder, length=length, quantization=quantization)
        if quantization == "float16":
            silence_times(folder / "model.bin")
        (folder / "done").touch()
    return folder


def silence_times(path: Path) -> None:
    """The feature that says "do not stop yet" also says "no time now": logits of times sink by about 20."""
    with path.open("r+b") as file:
        start, (rows, width) = next((at, shape) for name, at, shape in _variables(file) if name == PROJECTION)
        table = np.memmap(file, np.float16, "r+", start, (rows, width))
        table[FIRST_TIME : FIRST_TIME + 1501, 0] = 1.0
        table.flush()


def _variables(file: BinaryIO) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    """Name, place and shape of each variable in a CTranslate2 model."""
    _unpack(file, "<I")
    _text(file)
    _, count = _unpack(file, "<II")
    for _ in range(count):
        name = _text(file)
        (rank,) = _unpack(file, "<B")
        shape = _unpack(file, f"<{rank}I")
        _, size = _unpack(file, "<BI")
        yield name, file.tell(), shape
        file.seek(size, 1)


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _text(file: BinaryIO) -> bytes:
    (size,) = _unpack(file, "<H")
    return file.read(size).rstrip(b"\0")
