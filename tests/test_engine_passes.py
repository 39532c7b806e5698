"""A window is decoded again only where somebody speaks behind its last segment; prompts never cost text."""

from types import SimpleNamespace

import pytest

from engines.decoding import LONGEST_PROMPT, prompt_excess, prompt_tokens
from engines.passes import Covered, Passes
from transcript import DecodeOptions


def is_over(passes: Passes) -> bool:
    try:
        passes.begin()
    except Covered:
        return True
    return False


@pytest.mark.parametrize(
    ("speech", "covered_s", "over"),
    [
        ([(0.4, 9.6)], 9.4, True),  # the rest is the silence that the detector cut in
        ([(0.4, 9.6)], 8.9, True),
        ([(0.4, 9.6)], 8.7, False),  # a second of speech that no segment covers
        ([(0.4, 5.0), (9.0, 9.3)], 5.0, False),  # a short word after a pause
        ([(0.4, 5.0), (9.0, 9.2)], 5.0, True),  # a click
        ([(0.4, 5.0), (5.6, 9.0)], 9.0, True),
        (None, 1.0, False),  # not known: as stock
        ([], 0.0, True),
    ],
)
def test_another_pass_begins_where_speech_is_left(
    speech: list[tuple[float, float]] | None, covered_s: float, over: bool
) -> None:
    passes = Passes(speech)
    assert not is_over(passes), "the first pass always begins"
    passes.cover(covered_s)
    passes.cover(covered_s / 2)  # segments may overlap: what was covered stays so
    assert is_over(passes) is over


class Words:
    """A tokenizer with a token a word."""

    def encode(self, text: str, *, add_special_tokens: bool) -> SimpleNamespace:
        assert not add_special_tokens
        return SimpleNamespace(ids=[int(word) for word in text.split()])


def test_hotwords_and_prompt_are_counted_together_and_the_last_tokens_are_kept() -> None:
    many = " ".join(map(str, range(200)))
    options = DecodeOptions(hotwords=many, initial_prompt=f"  {' '.join(map(str, range(1000, 1150)))} ")
    tokens = prompt_tokens(Words(), options)
    assert len(tokens) == 350
    assert prompt_excess(Words(), options) == 350 - LONGEST_PROMPT
    assert prompt_excess(Words(), DecodeOptions(initial_prompt="1 2")) == 0
    assert tokens[-LONGEST_PROMPT:][0] == 350 - LONGEST_PROMPT
    assert tokens[-1] == 1149
    assert LONGEST_PROMPT * 2 + 2 == 448, "half of the decoder is left for the text"
    assert prompt_tokens(Words(), DecodeOptions(hotwords=" ", initial_prompt="")) == []
