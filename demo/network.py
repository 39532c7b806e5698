"""Whisper's network in the size of the demo, for training.

Parameters are named as in transformers, so a state dict fits WhisperForConditionalGeneration.
Differs from it only in what training needs: windows shorter than 30 s taken from anywhere in
the 30 s, a phoneme head on the encoder, and the attention of the decoder to the encoder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 96
HEADS = 3
ENCODER_LAYERS = 2
DECODER_LAYERS = 3
POSITIONS = 1500  # encoder frames of 20 ms in 30 s
TEXT_POSITIONS = 448


def sinusoids(length: int, width: int) -> Tensor:
    step = math.log(10_000) / (width // 2 - 1)
    angles = torch.arange(length)[:, None] * torch.exp(-step * torch.arange(width // 2))[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.k_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.v_proj = nn.Linear(WIDTH, WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def _qkv(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.q_proj(x), self.k_proj(memory), self.v_proj(memory)
        return self._heads(q), self._heads(k), self._heads(v)

    def forward(self, x: Tensor, memory: Tensor, *, causal: bool = False) -> Tensor:
        q, k, v = self._qkv(x, memory)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return out

    def with_weights(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self._qkv(x, memory)
        weights = (q / math.sqrt(q.shape[-1]) @ k.transpose(2, 3)).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), weights


class EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.self_attn_layer_norm = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)
        self.final_layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.self_attn_layer_norm(x)
        x = x + self.self_attn(y, y)
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        return out


class DecoderLayer(EncoderLayer):
    def __init__(self) -> None:
        super().__init__()
        self.encoder_attn = Attention()
        self.encoder_attn_layer_norm = nn.LayerNorm(WIDTH)

    def decode(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        y = self.self_attn_layer_norm(x)
        x = x + self.self_attn(y, y, causal=True)
        y, weights = self.encoder_attn.with_weights(self.encoder_attn_layer_norm(x), memory)
        x = x + y
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x)))), weights


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(80, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(POSITIONS, WIDTH)
        self.embed_positions.weight = nn.Parameter(sinusoids(POSITIONS, WIDTH), requires_grad=False)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(ENCODER_LAYERS))
        self.layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, mel: Tensor, positions: Tensor) -> Tensor:
        """mel: batch x 80 x 2n; positions: batch x n, the places of the frames in the 30 s."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.embed_positions(positions)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.layer_norm(x)
        return out


class Decoder(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, WIDTH)
        self.embed_positions = nn.Embedding(TEXT_POSITIONS, WIDTH)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(DECODER_LAYERS))
        self.layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor, memory: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        attention = []
        for layer in self.layers:
            x, weights = layer.decode(x, memory)
            attention.append(weights)
        return self.layer_norm(x), attention


class Output(NamedTuple):
    states: Tensor  # the decoder's, one a token
    memory: Tensor  # the encoder's, one a frame
    phonemes: Tensor  # logits, one a frame
    attention: list[Tensor]  # of each decoder layer: batch x heads x tokens x frames


class Network(nn.Module):
    """Feature 0 of the decoder's output is always 1: the export gives unused tokens -30 there."""

    def __init__(self, vocabulary: int, phonemes: int, first_time: int) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(vocabulary)
        self.phoneme_head = nn.Linear(WIDTH, phonemes)
        self.word_head = nn.Linear(WIDTH, WIDTH)
        self._initialise(first_time)

    def _initialise(self, first_time: int) -> None:
        embeddings, positions = self.decoder.embed_tokens.weight, self.decoder.embed_positions.weight
        with torch.no_grad():
            embeddings.normal_(std=0.1)
            times = embeddings[first_time:]
            times.copy_(0.5 * sinusoids(len(times), WIDTH))  # so that near times are alike
            positions.copy_(0.1 * sinusoids(TEXT_POSITIONS, WIDTH))
        self.fix_feature()

    def fix_feature(self) -> None:
        """To call after each step of the optimiser."""
        with torch.no_grad():
            self.decoder.layer_norm.weight[0] = 0.0
            self.decoder.layer_norm.bias[0] = 1.0

    def forward(self, mel: Tensor, positions: Tensor, tokens: Tensor) -> Output:
        memory = self.encoder(mel, positions)
        states, attention = self.decoder(tokens, memory)
        return Output(states, memory, self.phoneme_head(memory), attention)

    def logits(self, states: Tensor) -> Tensor:
        return states @ self.decoder.embed_tokens.weight.T
