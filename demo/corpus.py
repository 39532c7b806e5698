"""The training corpus: synthetic utterances as log-mel frames with their words and phonemes.

Owns its making on several processors and its files (a folder outside the repository).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from demo import speech
from demo.phrases import Phrase, phrase
from demo.speech import CODECS, RATE, Utterance

SHARD = 250  # utterances made by one task
LANGUAGE_SHARES = {"en": 0.43, "de": 0.19, "fr": 0.19, "es": 0.19}
CODED = 0.3  # share of the shards that go through a codec
UNKNOWN = -100  # phoneme of a frame whose phoneme is not known
SHARP_EDGE = 0.05  # seconds of silence kept around an utterance, so that its edges are natural


@dataclass(slots=True)
class Record:
    phrase: Phrase
    mel: npt.NDArray[np.float16]  # frames of 10 ms x 80
    words: list[tuple[float, float]]  # seconds from the first frame
    phonemes: npt.NDArray[np.int16]  # one a 20 ms
    start: float  # of the sound, seconds from the first frame
    end: float


def _plan(rng: Random) -> Iterator[tuple[Phrase, speech.Voice]]:
    codes = rng.choices(list(LANGUAGE_SHARES), list(LANGUAGE_SHARES.values()), k=SHARD)
    for code in codes:
        yield phrase(rng, code), speech.random_voice(rng, code)


def _frame_names(utterance: Utterance, frames: int) -> list[str | None]:
    """The phoneme of each 20 ms frame; "_" in silence, None where unknown."""
    names: list[str | None] = ["_"] * frames
    length = len(utterance.samples) / RATE
    for i in range(frames):
        at = i * 0.02 - SHARP_EDGE
        if 0 <= at < length:
            current = [name for start, name in utterance.phonemes if start <= at + 0.005]
            names[i] = (current or ["_"])[-1] if utterance.phonemes else None
    return names


def _make_shard(seed: int) -> list[tuple[Utterance, npt.NDArray[np.float16], list[str | None]]]:
    rng = Random(seed)
    utterances = list(speech.speak_all(_plan(rng)))
    edge = np.zeros(round(SHARP_EDGE * RATE), np.float32)
    pieces = [np.concatenate([edge, u.samples, edge]) for u in utterances]
    if rng.random() < CODED:
        pieces = speech.through_codec(pieces, rng.choice(list(CODECS)))
    made = []
    for utterance, piece in zip(utterances, pieces, strict=True):
        mel = speech.log_mel(piece)
        mel = mel[: len(mel) // 2 * 2]
        made.append((utterance, mel, _frame_names(utterance, len(mel) // 2)))
    return made


def make(folder: Path, *, shards: int, seed: int, processes: int) -> None:
    """Write the shards that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(shards) if not (folder / f"{i}.pickle").exists()]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        results = pool.map(_make_shard, [seed * 100_003 + i for i in missing])
        for i, made in zip(missing, results, strict=True):
            rows = [(u.phrase, mel, u.words, names, len(u.samples) / RATE) for u, mel, names in made]
            (folder / f"{i}.pickle").write_bytes(pickle.dumps(rows))


def read(folder: Path, shards: int, names: dict[str, int]) -> dict[str, list[Record]]:
    """The records by language; `names` is filled with a number for each phoneme."""
    records: dict[str, list[Record]] = {code: [] for code in LANGUAGE_SHARES}
    names.setdefault("_", 0)
    names.setdefault("_:", 0)
    for i in range(shards):
        for said, mel, words, frames, length in pickle.loads((folder / f"{i}.pickle").read_bytes()):
            ids = [UNKNOWN if n is None else names.setdefault(n, len(names)) for n in frames]
            times = [(a + SHARP_EDGE, b + SHARP_EDGE) for a, b in words]
            record = Record(said, mel, times, np.array(ids, np.int16), SHARP_EDGE, SHARP_EDGE + length)
            records[said.language].append(record)
    return records
