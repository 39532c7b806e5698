"""The network of Silero VAD v6 on numpy: a few matrix products for many frames together, and a loop for its LSTM.

onnxruntime runs its small convolutions frame by frame, which takes more than twice as long. Knows nothing of regions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
State = tuple[Floats, Floats]  # of the LSTM: hidden, cell

CONTEXT = 64  # samples of the frame before, which the network sees too
SEEN = CONTEXT + 512
STEPS, WINDOW, HOP = 4, 256, 128  # spectra of a frame; samples of each, and between them
BINS = WINDOW // 2 + 1
STRIDES = (1, 2, 2, 1)  # of the convolutions: 4 steps become 4, 2, 1, 1
CELLS = 128
FRESH: State = (np.zeros(CELLS, np.float32), np.zeros(CELLS, np.float32))
HALF = np.float32(0.5)


@dataclass(frozen=True, slots=True)
class Convolution:
    """Over time, with three taps and a step of silence at both ends, then ReLU."""

    weights: Floats  # (3 taps x channels in, channels out)
    bias: Floats  # (channels out)
    stride: int

    def __call__(self, steps: Floats) -> Floats:
        """(n, steps x channels in) -> (n, fewer steps x channels out)."""
        channels = len(self.weights) // 3
        taken = steps.shape[1] // channels
        made = np.empty((len(steps), -(-taken // self.stride), len(self.bias)), np.float32)
        for number in range(made.shape[1]):
            first = number * self.stride - 1
            begin, end = max(0, first), min(taken, first + 3)
            weights = self.weights[(begin - first) * channels : (end - first) * channels]
            np.matmul(steps[:, begin * channels : end * channels], weights, out=made[:, number])
        made += self.bias
        return np.maximum(made, 0, out=made).reshape(len(steps), -1)


class Silero:
    """`tensors`: the network's weights by their names in the ONNX file; KeyError, ValueError: it is another network."""

    def __init__(self, tensors: Mapping[str, Floats]) -> None:
        basis = tensors["encoder.feature_extractor.forward_basis_buffer"]
        self._basis = np.ascontiguousarray(basis.reshape(2 * BINS, WINDOW).T)
        self._convolutions = [
            Convolution(_as_matrix(tensors[f"{name}.weight"]), tensors[f"{name}.bias"], stride)
            for name, stride in ((f"encoder.conv_layers.{number}", stride) for number, stride in enumerate(STRIDES))
        ]
        self._heard = _gates(tensors["onnx::LSTM_209"][0])
        self._remembered = _gates(tensors["onnx::LSTM_210"][0])
        self._heard_bias = _gates(tensors["onnx::LSTM_211"].reshape(2, 4 * CELLS).sum(axis=0)[:, None])[0]
        self._spoken = tensors["decoder.conv1d.weight"].reshape(CELLS)
        self._spoken_bias = tensors["decoder.conv1d.bias"]

    def __call__(self, frames: Floats, state: State) -> tuple[Floats, State]:
        """(n, 576) samples, each row beginning with the end of the row before -> (n) probabilities, the next state."""
        steps = self._spectra(frames)
        for convolution in self._convolutions:
            steps = convolution(steps)
        hidden, state = self._recur(steps @ self._heard + self._heard_bias, state)
        sums = np.maximum(hidden, 0) @ self._spoken + self._spoken_bias
        return np.tanh(sums * HALF) * HALF + HALF, state

    def _spectra(self, frames: Floats) -> Floats:
        """Magnitudes, (n, 4 x 129). The last window sees the end of the frame mirrored."""
        waves = np.empty((len(frames), STEPS, 2 * BINS), np.float32)
        for step in range(STEPS - 1):
            np.matmul(frames[:, step * HOP : step * HOP + WINDOW], self._basis, out=waves[:, step])
        last = frames[:, (STEPS - 1) * HOP :]
        mirrored = last[:, -2 : -2 - (WINDOW - last.shape[1]) : -1]
        np.matmul(np.hstack([last, mirrored]), self._basis, out=waves[:, -1])
        np.square(waves, out=waves)
        magnitudes: Floats = np.sqrt(waves[..., :BINS] + waves[..., BINS:])
        return magnitudes.reshape(len(frames), -1)

    def _recur(self, gates: Floats, state: State) -> tuple[Floats, State]:
        """(n, 512), what the frames say to the gates -> (n, 128), the LSTM's output. 9 microseconds a frame."""
        row, products = np.empty(5 * CELLS, np.float32), np.empty(2 * CELLS, np.float32)
        # The row: output, input and forget gate, candidate, cell; so that input x candidate and forget x cell are one.
        sums, sigmoids, output = row[: 4 * CELLS], row[: 3 * CELLS], row[:CELLS]
        input_forget, candidate_cell, cell = row[CELLS : 3 * CELLS], row[3 * CELLS :], row[4 * CELLS :]
        new, kept = products[:CELLS], products[CELLS:]
        hidden, cell[:] = state
        outputs = np.empty((len(gates), CELLS), np.float32)
        for heard, said in zip(gates, outputs, strict=True):
            np.dot(hidden, self._remembered, out=sums)
            np.add(sums, heard, out=sums)
            np.tanh(sums, out=sums)
            np.multiply(sigmoids, HALF, out=sigmoids)  # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2
            np.add(sigmoids, HALF, out=sigmoids)
            np.multiply(input_forget, candidate_cell, out=products)
            np.add(new, kept, out=cell)
            np.tanh(cell, out=said)
            np.multiply(said, output, out=said)
            hidden = said
        return outputs, (hidden, cell)


def _as_matrix(weight: Floats) -> Floats:
    """(out, in, taps) -> (taps x in, out)."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, len(weight)))


def _gates(weight: Floats) -> Floats:
    """(input, output, forget, candidate; in) of ONNX -> (in; output, input, forget, candidate), sigmoids' halved."""
    of_input, of_output, of_forget, of_candidate = weight.reshape(4, CELLS, -1)
    return np.ascontiguousarray(np.vstack([of_output * HALF, of_input * HALF, of_forget * HALF, of_candidate]).T)
