"""A trained network as a CTranslate2 int8 model that stock faster-whisper loads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from ctranslate2.converters import TransformersConverter
from torch import Tensor
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
from transformers.models.whisper import WhisperTokenizerFast

from demo import network, tokens

UNUSED_LOGIT = -30.0
FEATURES = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 80,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "WhisperProcessor",
    "return_attention_mask": False,
    "sampling_rate": 16000,
}


def configuration() -> WhisperConfig:
    return WhisperConfig(
        vocab_size=tokens.COUNT,
        d_model=network.WIDTH,
        encoder_layers=network.ENCODER_LAYERS,
        decoder_layers=network.DECODER_LAYERS,
        encoder_attention_heads=network.HEADS,
        decoder_attention_heads=network.HEADS,
        encoder_ffn_dim=4 * network.WIDTH,
        decoder_ffn_dim=4 * network.WIDTH,
        bos_token_id=tokens.TEXT_END,
        eos_token_id=tokens.TEXT_END,
        pad_token_id=tokens.TEXT_END,
        decoder_start_token_id=tokens.START,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )


def generation() -> dict[str, object]:
    """What the converter copies: every head of the last decoder layer aligns words."""
    last = network.DECODER_LAYERS - 1
    return {
        "alignment_heads": [[last, head] for head in range(network.HEADS)],
        "lang_to_id": {f"<|{c}|>": tokens.language_token(c) for c in tokens.LANGUAGE_CODES},
        "task_to_id": {"translate": tokens.TRANSLATE, "transcribe": tokens.TRANSCRIBE},
        "no_timestamps_token_id": tokens.NO_TIMESTAMPS,
        "is_multilingual": True,
        "suppress_tokens": [],
        "begin_suppress_tokens": [],
        "max_length": 448,
    }


def full_state(state: dict[str, Tensor], narrow: tokens.Narrow) -> dict[str, Tensor]:
    """The state dict in transformers' names with all 51,865 tokens."""
    embeddings = torch.zeros(tokens.COUNT, network.WIDTH)
    embeddings[:, 0] = UNUSED_LOGIT  # feature 0 of the decoder's output is 1
    embeddings[narrow.full_ids()] = state["decoder.embed_tokens.weight"]
    kept = {k: v for k, v in state.items() if k.startswith(("encoder.", "decoder."))}
    kept["decoder.embed_tokens.weight"] = embeddings
    full = {f"model.{k}": v for k, v in kept.items()}
    full["proj_out.weight"] = embeddings
    return full


def export(state: dict[str, Tensor], folder: Path) -> None:
    tokenizer = tokens.build()
    narrow = tokens.Narrow(tokenizer)
    model = WhisperForConditionalGeneration(configuration())
    model.load_state_dict(full_state(state, narrow))
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        model.save_pretrained(source)
        config = GenerationConfig()
        for key, value in generation().items():
            setattr(config, key, value)
        config.save_pretrained(source)
        tokens.save(tokenizer, source)
        (source / "preprocessor_config.json").write_text(json.dumps(FEATURES, indent=1) + "\n")
        names = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
        WhisperTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(source / "hf")
        for file in (source / "hf").iterdir():
            if file.name != "tokenizer.json":
                file.rename(source / file.name)
        converter = TransformersConverter(str(source), copy_files=["tokenizer.json", "preprocessor_config.json"])
        converter.convert(str(folder), quantization="int8", force=True)
