"""The graph of Whisper's encoder (Radford et al. 2022) for OpenVINO, from the weights of a CTranslate2 file."""

from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as ops

from engines.model_file import rounded
from engines.wire import FRAMES

if TYPE_CHECKING:
    from engines.model_file import Weights

Node = Any
LEVELS = 255  # -127 to 127
TINY = np.float32(1e-30)  # against a division by zero where all is silent


def graph(weights: "dict[str, Weights]") -> openvino.Model:
    """(1, mels, FRAMES) to (1, FRAMES / 2, width), float32. Raises KeyError on what is no such encoder."""
    mel = ops.parameter([1, weights["conv1/weight"].shape[1], FRAMES], np.float32)
    hidden = _convolution(weights, "conv2", _convolution(weights, "conv1", mel, stride=1), stride=2)
    hidden = ops.add(
        ops.transpose(hidden, _constant([0, 2, 1])), _floats(weights["position_encodings/encodings"][None])
    )
    for name in _layers(weights):
        hidden = _attention(weights, f"{name}/self_attention", hidden)
        hidden = _feed_forward(weights, f"{name}/ffn", hidden)
    return openvino.Model([_norm(weights, "layer_norm", hidden)], [mel], "encoder")


def _layers(weights: "dict[str, Weights]") -> list[str]:
    count = len([name for name in weights if name.endswith("/ffn/linear_0/weight")])
    return [f"layer_{number}" for number in range(count)]


def _attention(weights: "dict[str, Weights]", name: str, hidden: Node) -> Node:
    heads, width = int(weights["num_heads"]), hidden.shape[-1]
    joint = _linear(weights, f"{name}/linear_0", _norm(weights, f"{name}/layer_norm", hidden))
    parts = ops.transpose(
        ops.reshape(joint, _constant([1, -1, 3, heads, width // heads]), special_zero=False),
        _constant([2, 0, 3, 1, 4]),
    )
    query, key, value = (ops.gather(parts, _constant(number), _constant(0)) for number in range(3))
    found = ops.transpose(ops.scaled_dot_product_attention(query, key, value), _constant([0, 2, 1, 3]))
    joined = ops.reshape(found, _constant([1, -1, width]), special_zero=False)
    return ops.add(hidden, _linear(weights, f"{name}/linear_1", joined))


def _feed_forward(weights: "dict[str, Weights]", name: str, hidden: Node) -> Node:
    inner = _linear(weights, f"{name}/linear_0", _norm(weights, f"{name}/layer_norm", hidden))
    return ops.add(hidden, _linear(weights, f"{name}/linear_1", ops.gelu(inner, "ERF")))


def _linear(weights: "dict[str, Weights]", name: str, hidden: Node) -> Node:
    """In 8 bits, as CTranslate2 does it: each position by its largest value, each row of the weights by its own."""
    rows, scale = _bytes(weights, name)
    largest = ops.maximum(ops.reduce_max(ops.abs(hidden), _constant([-1]), keep_dims=True), _floats(TINY))
    low, high = _floats(np.float32(-1)), _floats(np.float32(1))
    within_one = ops.multiply(hidden, ops.divide(high, largest))
    rounded_hidden = ops.fake_quantize(within_one, low, high, low, high, LEVELS)
    matrix = ops.multiply(
        ops.convert(openvino.op.Constant(rows, shared_memory=True), "f32"), _floats(1 / scale[:, None])
    )
    product = ops.multiply(ops.matmul(rounded_hidden, matrix, transpose_a=False, transpose_b=True), largest)
    return ops.add(product, _floats(weights[f"{name}/bias"][None, None])) if f"{name}/bias" in weights else product


def _bytes(weights: "dict[str, Weights]", name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    matrix = weights[f"{name}/weight"]
    return (matrix, weights[f"{name}/weight_scale"]) if matrix.dtype == np.int8 else rounded(matrix)


def _norm(weights: "dict[str, Weights]", name: str, hidden: Node) -> Node:
    normal = ops.mvn(hidden, _constant([-1]), normalize_variance=True, eps=1e-5, eps_mode="INSIDE_SQRT")
    return ops.add(ops.multiply(normal, _floats(weights[f"{name}/gamma"])), _floats(weights[f"{name}/beta"]))


def _convolution(weights: "dict[str, Weights]", name: str, sound: Node, *, stride: int) -> Node:
    kernel = weights[f"{name}/weight"]
    if kernel.dtype == np.int8:
        kernel = kernel / weights[f"{name}/weight_scale"][:, None, None]
    found = ops.convolution(sound, _floats(kernel), [stride], [1], [1], [1])
    return ops.gelu(ops.add(found, _floats(weights[f"{name}/bias"][None, :, None])), "ERF")


def _floats(values: "Weights | np.float32") -> Node:
    return ops.constant(np.asarray(values, np.float32))


def _constant(values: int | list[int]) -> Node:
    return ops.constant(np.asarray(values, np.int64))
