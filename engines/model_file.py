"""The model.bin of CTranslate2: what is in it, and a copy with the 8-bit weights that loading would make of it.

The format is that of ctranslate2's specs/model_spec.py, binary version 6; int8 is written as its `_quantize` does.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = NDArray[Any]

TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")  # by their numbers in the file
FLOATS = {"float32": "<f4", "float16": "<f2"}  # numpy knows no bfloat16
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Variable:
    name: bytes
    shape: tuple[int, ...]
    type: str
    start: int  # of its bytes in the file
    stored: int  # bytes

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def is_wide_weight(self) -> bool:
        """What CTranslate2 turns into int8 when it loads a float file as int8: matrices, but no convolutions."""
        return self.name.endswith(b"weight") and len(self.shape) == 2 and self.type in FLOATS


def variables(file: BinaryIO) -> Iterator[Variable]:
    """In the file's order; afterwards the file stands at the aliases. Raises struct.error on another format."""
    _read(file, "<I")  # version of the format
    _string(file)
    _, count = _read(file, "<II")
    for _ in range(count):
        name = _string(file)
        (rank,) = _read(file, "<B")
        shape = _read(file, f"<{rank}I")
        kind, stored = _read(file, "<BI")
        if kind >= len(TYPES):
            raise struct.error("an unknown type")
        yield Variable(name, shape, TYPES[kind], file.tell(), stored)
        file.seek(stored, 1)


def holds_wide_weights(path: Path) -> bool:
    """Whether loading as int8 would convert; False for a format that we do not know."""
    try:
        with path.open("rb") as file:
            return any(variable.is_wide_weight for variable in variables(file))
    except (OSError, struct.error):
        return False


def weights(path: Path, beginning: str) -> "dict[str, Weights]":
    """The variables whose names begin so, by the rest of their names; floats as float32. Raises struct.error."""
    import numpy as np

    with path.open("rb") as file:
        found = {variable.name.decode(): variable for variable in variables(file)}
        (count,) = _read(file, "<I")
        for _ in range(count):
            alias, name = _string(file).decode(), _string(file).decode()
            found[alias] = found[name]
            if f"{name}_scale" in found:  # CTranslate2 shares it without a word in the file
                found[f"{alias}_scale"] = found[f"{name}_scale"]
    mapped = np.memmap(path, mode="c")  # 8-bit weights stay in the file, which the system may drop from memory
    return {
        name.removeprefix(beginning): _values(mapped, variable)
        for name, variable in found.items()
        if name.startswith(beginning)
    }


def write_int8(source: Path, target: Path) -> None:
    """`target` loads as int8 with the same weights, bit for bit. Holds a part of one matrix in memory at a time."""
    with source.open("rb") as old, target.open("wb") as new:
        found = list(variables(old))
        aliases = old.read()
        new.write(_head(old) + struct.pack("<I", len(found) + sum(one.is_wide_weight for one in found)))
        for variable in found:
            if variable.is_wide_weight:
                _write_quantized(old, new, variable)
            else:
                _write_header(new, variable.name, variable.shape, variable.type, variable.stored)
                old.seek(variable.start)
                new.write(old.read(variable.stored))
        new.write(aliases)


def rounded(rows: "NDArray[np.float32]") -> "tuple[NDArray[np.int8], NDArray[np.float32]]":
    """Each row in 8 bits, and what it was multiplied with."""
    import numpy as np

    largest = np.abs(rows).max(axis=1)
    largest[largest == 0] = 127
    scales = np.float32(127) / largest
    return np.rint(rows * scales[:, None]).astype(np.int8), scales


def _values(mapped: "NDArray[np.uint8]", variable: Variable) -> "Weights":
    import numpy as np

    kinds = {**FLOATS, "int8": "i1", "int16": "<i2", "int32": "<i4"}
    if variable.type not in kinds:
        raise struct.error("a type that numpy does not know")
    stored = mapped[variable.start : variable.start + variable.stored]
    values = stored.view(kinds[variable.type]).reshape(variable.shape)
    return values.astype(np.float32) if variable.type in FLOATS else values


def _head(file: BinaryIO) -> bytes:
    """All that comes before the number of variables: version, name of the format, its revision."""
    file.seek(4)
    (length,) = _read(file, "<H")
    file.seek(0)
    return file.read(4 + 2 + length + 4)


def _write_quantized(old: BinaryIO, new: BinaryIO, variable: Variable) -> None:
    import numpy as np

    rows, width = variable.shape
    scales: list[Any] = []
    _write_header(new, variable.name, variable.shape, "int8", variable.count)
    old.seek(variable.start)
    for first in range(0, rows, ROWS_AT_ONCE):
        here = min(ROWS_AT_ONCE, rows - first)
        read = old.read(here * width * variable.stored // variable.count)
        part = np.frombuffer(read, FLOATS[variable.type]).reshape(here, width).astype(np.float32)
        narrow, scale = rounded(part)
        scales.append(scale)
        new.write(narrow.tobytes())
    _write_header(new, variable.name + b"_scale", (rows,), "float32", 4 * rows)
    new.write(np.concatenate(scales).astype("<f4").tobytes())


def _write_header(new: BinaryIO, name: bytes, shape: tuple[int, ...], kind: str, stored: int) -> None:
    new.write(struct.pack("<H", len(name) + 1) + name + b"\0")
    new.write(struct.pack(f"<B{len(shape)}I", len(shape), *shape))
    new.write(struct.pack("<BI", TYPES.index(kind), stored))


def _read(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _string(file: BinaryIO) -> bytes:
    return file.read(_read(file, "<H")[0]).rstrip(b"\0")
