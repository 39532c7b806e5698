"""The server's side of a model: a window is encoded once, whatever is asked about it, and in whatever company."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from config import Settings
from engines import open_engine
from engines.raw import Encodings, RawWhisper
from engines.whisper import WhisperLoader
from engines.wire import name_of
from tests.test_engine_conformance import OPTIONS, decoded

MEL = np.random.default_rng(1).standard_normal((4, 80, 3000), np.float32)
GENERATE = {"prompt": [50258, 50259, 50359], "options": {"beam_size": 1, "return_scores": True, "max_length": 40}}


def rows(*names: str) -> list[dict[str, Any]]:
    return [{**GENERATE, "window": name} for name in names]


@pytest.fixture
def raw() -> RawWhisper:
    return WhisperLoader(Settings(device="cpu"), is_shared=False).load("demo", "int8")


def test_a_row_in_a_batch_gets_bit_for_bit_what_it_gets_alone(raw: RawWhisper) -> None:
    together = raw.run("generate", list(MEL), rows("a", "b", "c", "d"))
    alone = [raw.run("generate", [mel], rows(f"{number} again"))[0] for number, mel in enumerate(MEL)]
    for one, other in zip(together, alone, strict=True):
        assert (one["tokens"], one["scores"]) == (other["tokens"], other["scores"])


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The windows that went through the encoder."""
    names: list[str] = []
    put = Encodings.put

    def spy(self: Encodings, name: str, encoding: Any) -> None:
        names.append(name)
        put(self, name, encoding)

    monkeypatch.setattr(Encodings, "put", spy)
    return names


def test_language_text_another_try_and_words_take_one_encoding(encoded: list[str]) -> None:
    model = open_engine(Settings(device="cpu")).load("demo", "default")
    window = decoded("british.m4a")
    assert next(iter(model.detect_languages(window))) == "en"
    model.transcribe([window], replace(OPTIONS, word_timestamps=True))
    model.transcribe([window], replace(OPTIONS, temperature=0.8))
    assert len(encoded) == 1
    model.transcribe([window[8000:]], OPTIONS)
    assert len(set(encoded)) == len(encoded) == 2


def test_a_window_that_was_overwritten_before_its_turn_is_not_kept_under_its_name(raw: RawWhisper) -> None:
    """Its child gave up a server that hung, and used the slot for another window; then the server went on."""
    name = name_of(MEL[0])
    expected = raw.run("generate", [MEL[0]], rows("not kept"))
    raw.run("generate", [MEL[1]], rows(name))
    assert raw.run("generate", [MEL[0]], rows(name))[0]["scores"] == expected[0]["scores"]


def test_a_bounded_number_of_encodings_is_kept_and_the_one_used_longest_ago_goes_first() -> None:
    kept = Encodings(most=3)
    for name in "abc":
        kept.put(name, np.zeros((1, 1000), np.float32))
    kept.get("a")
    kept.put("d", np.zeros((1, 1000), np.float32))
    assert [name for name in "abcd" if kept.get(name) is None] == ["b"]


def test_a_closed_model_keeps_none(raw: RawWhisper) -> None:
    raw.run("generate", [MEL[0]], rows("a"))
    raw.close()
    assert raw._encodings is None
