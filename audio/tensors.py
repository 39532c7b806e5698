"""The weights in an ONNX file, without the packages that run or build networks. Never a file that a stranger sent."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Numbers of fields, which can never change: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
FLOAT = 1  # of the data types


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every float32 tensor that the network holds, by its name. Raises ValueError: there is no network."""
    [graph] = _values(path.read_bytes(), MODEL_GRAPH)
    tensors = _values(graph, GRAPH_INITIALIZER)
    return {_values(tensor, TENSOR_NAME)[0].decode(): _array(tensor) for tensor in tensors if _is_float(tensor)}


def _is_float(tensor: bytes) -> bool:
    return _values(tensor, TENSOR_TYPE) == [FLOAT]


def _array(tensor: bytes) -> NDArray[np.float32]:
    [raw] = _values(tensor, TENSOR_RAW)
    return np.frombuffer(raw, "<f4").reshape(_values(tensor, TENSOR_DIMS))


def _values(message: bytes, number: int) -> list[Any]:
    """All values of one field: int where it is a number, else the bytes of a text, of data or of a message."""
    from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
    from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

    return [field.data for field in UnknownFieldSet(Empty.FromString(message)) if field.field_number == number]
