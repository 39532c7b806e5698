"""The demo's tokenizer: real Whisper's ids for every special and time token, words of our own.

A byte-level BPE of the demo's phrases fills the first ids; the rest up to 50,257 are unused names.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.whisper.tokenization_whisper import LANGUAGES as ALL_LANGUAGES

from demo import phrases

TEXT_END = 50_257  # end of text; also the count of text tokens
START = 50_258
FIRST_LANGUAGE = 50_259
TRANSLATE, TRANSCRIBE = 50_358, 50_359
START_OF_PREVIOUS, NO_SPEECH, NO_TIMESTAMPS = 50_361, 50_362, 50_363
FIRST_TIME = 50_364
COUNT = 51_865
LANGUAGE_CODES = list(ALL_LANGUAGES)[:99]  # in Whisper's order; v3 added a hundredth


def language_token(code: str) -> int:
    return FIRST_LANGUAGE + LANGUAGE_CODES.index(code)


def special_names() -> list[str]:
    languages = [f"<|{code}|>" for code in LANGUAGE_CODES]
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    names = ["<|endoftext|>", "<|startoftranscript|>", *languages, *(f"<|{t}|>" for t in tasks)]
    return names + [f"<|{i * 0.02:.2f}|>" for i in range(1501)]


def _lines() -> list[str]:
    """Each word as it stands in a text, after a blank; German numbers also in their parts."""
    words = {word for code in phrases.LANGUAGES for word in phrases.vocabulary(code)}
    long = {w for w in words if "und" in w and w.endswith("zig") and not w.startswith("und")}
    parts = [f" {phrases.number('de', n)}und" for n in range(2, 10)] + [" einund"]
    parts += [phrases.number("de", n) for n in range(20, 100, 10)]
    return [f" {w}" for w in sorted(words - long)] + parts


def build() -> Tokenizer:
    """The full tokenizer: 51,865 entries."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=4000, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(_lines(), trainer)
    return _filled_up(trained)


def _filled_up(trained: Tokenizer) -> Tokenizer:
    model = json.loads(trained.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    merges = [tuple(pair) for pair in model["merges"]]
    for i in range(len(vocabulary), TEXT_END - 1):
        vocabulary[f"<u{i}>"] = i
    vocabulary[""] = TEXT_END - 1  # as in real Whisper: CTranslate2 knows multilingual ones by it
    full = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    full.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    full.decoder = decoders.ByteLevel()
    full.add_special_tokens([AddedToken(name, special=True) for name in special_names()])
    if full.get_vocab_size() != COUNT or full.token_to_id("<|notimestamps|>") != NO_TIMESTAMPS:
        raise RuntimeError("This is a bug: the special tokens are not where Whisper has them")
    return full


def text_count(tokenizer: Tokenizer) -> int:
    """How many of the first ids are real."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return sum(1 for name in vocabulary if name and not name.startswith("<u"))


class Narrow:
    """Ids in use only: the real text ids, then everything from end of text on."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.texts = text_count(tokenizer)
        self.count = self.texts + COUNT - TEXT_END
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def special(self, token: int) -> int:
        return token - TEXT_END + self.texts

    def time(self, frame: int) -> int:
        return self.special(FIRST_TIME + min(max(frame, 0), 1500))

    def words(self, text: str) -> list[list[int]]:
        """The ids of each word of a text, a blank before it included."""
        return [self._word(word) for word in text.split()]

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            self._known[word] = self._tokenizer.encode(f" {word}").ids
        return self._known[word]

    def full_ids(self) -> list[int]:
        return [*range(self.texts), *range(TEXT_END, COUNT)]


def save(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
