"""Whisper models of real shapes with random weights, written locally: they cost what real ones cost and say nonsense.

Each says `length` tokens and stops: its end of text is forced by the position in the decoder, so that step counts are
those of speech (about 100 tokens in 30 s). `python -m bench.weights FOLDER base small`.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
DEMO = Path(__file__).parents[1] / "demo" / "model"
POSITIONS, AUDIO_POSITIONS = 448, 1500
STRENGTH = 60.0  # of the feature that decides whether to stop


@dataclass(frozen=True, slots=True)
class Shape:
    width: int
    layers: int
    heads: int
    decoder_layers: int = 0  # 0: as many as the encoder
    mels: int = 80
    vocabulary: int = 51_865


SHAPES = {
    "tiny": Shape(384, 4, 6),
    "base": Shape(512, 6, 8),
    "small": Shape(768, 12, 12),
    "medium": Shape(1024, 24, 16),
    "large-v3": Shape(1280, 32, 20, mels=128, vocabulary=51_866),
    "large-v3-turbo": Shape(1280, 32, 20, decoder_layers=4, mels=128, vocabulary=51_866),
}


class _Maker:
    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self._random = np.random.default_rng(seed)

    def random(self, *size: int) -> Weights:
        scale = np.float32(1 / np.sqrt(size[-1]))
        return self._random.standard_normal(size, np.float32) * scale

    def linear(self, spec: Any, outputs: int, inputs: int) -> None:
        spec.weight, spec.bias = self.random(outputs, inputs), np.zeros(outputs, np.float32)

    def norm(self, spec: Any) -> None:
        spec.gamma, spec.beta = np.ones(self.shape.width, np.float32), np.zeros(self.shape.width, np.float32)

    def attention(self, spec: Any, *outputs: int) -> None:
        self.norm(spec.layer_norm)
        for linear, rows in zip(spec.linear, outputs, strict=True):
            self.linear(linear, rows, self.shape.width)
        self._keep_first_feature(spec.linear[-1])

    def feed_forward(self, spec: Any) -> None:
        self.norm(spec.layer_norm)
        self.linear(spec.linear_0, 4 * self.shape.width, self.shape.width)
        self.linear(spec.linear_1, self.shape.width, 4 * self.shape.width)
        self._keep_first_feature(spec.linear_1)

    def _keep_first_feature(self, linear: Any) -> None:
        """Nothing is added to the feature by which the decoder stops."""
        linear.weight[0] = 0


def make(size: str | Shape, folder: Path, *, length: int = 100, seed: int = 0, quantization: str = "float16") -> Path:
    """A folder that faster-whisper loads. `length`: tokens said in a window, after the prompt of 4."""
    from ctranslate2.specs.whisper_spec import WhisperSpec

    shape = SHAPES[size] if isinstance(size, str) else size
    decoder_layers = shape.decoder_layers or shape.layers
    spec = WhisperSpec(shape.layers, shape.heads, decoder_layers, shape.heads)
    maker = _Maker(shape, seed)
    _encoder(spec.encoder, maker)
    _decoder(spec.decoder, maker, stop_at=length + 3)
    vocabulary = json.loads((DEMO / "vocabulary.json").read_text())
    spec.register_vocabulary([*vocabulary, *(f"<|extra_{n}|>" for n in range(shape.vocabulary - len(vocabulary)))])
    for name, value in json.loads((DEMO / "config.json").read_text()).items():
        setattr(spec.config, name, value)
    spec.config.alignment_heads = [[decoder_layers - 1, 0]]
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    shutil.copy(DEMO / "tokenizer.json", folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": shape.mels}))
    return folder


def _encoder(spec: Any, maker: _Maker) -> None:
    width, mels = maker.shape.width, maker.shape.mels
    for conv, inputs in ((spec.conv1, mels), (spec.conv2, width)):
        conv.weight, conv.bias = maker.random(width, inputs, 3), np.zeros(width, np.float32)
    spec.position_encodings.encodings = maker.random(AUDIO_POSITIONS, width)
    maker.norm(spec.layer_norm)
    for layer in spec.layer:
        maker.attention(layer.self_attention, 3 * width, width)
        maker.feed_forward(layer.ffn)


def _decoder(spec: Any, maker: _Maker, *, stop_at: int) -> None:
    width = maker.shape.width
    spec.embeddings.weight = maker.random(maker.shape.vocabulary, width)
    spec.embeddings.weight[:, 0] = 0
    spec.position_encodings.encodings = maker.random(POSITIONS, width)
    spec.position_encodings.encodings[:, 0] = np.where(np.arange(POSITIONS) < stop_at, -STRENGTH, STRENGTH)
    maker.norm(spec.layer_norm)
    for layer in spec.layer:
        maker.attention(layer.self_attention, 3 * width, width)
        maker.attention(layer.attention, width, 2 * width, width)
        maker.feed_forward(layer.ffn)
    spec.projection.weight = maker.random(maker.shape.vocabulary, width)
    spec.projection.weight[:, 0] = 0
    spec.projection.weight[_END, 0] = STRENGTH


_END = 50_257  # <|endoftext|>


def main() -> None:
    folder, *sizes = sys.argv[1:]
    for size in sizes:
        print(make(size, Path(folder) / size))


if __name__ == "__main__":
    main()
