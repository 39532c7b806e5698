"""A window is decoded again only where somebody speaks behind its last segment; prompts never cost text."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from engines.decoding import LONGEST_PROMPT, prompt_tokens, without_loops
from engines.passes import Covered, Passes
from transcript import DecodeOptions, Segment

PROMPTED = DecodeOptions(language="en", initial_prompt="Sesame, sesame")


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
    assert tokens[-LONGEST_PROMPT:][0] == 350 - LONGEST_PROMPT
    assert tokens[-1] == 1149
    assert LONGEST_PROMPT * 2 + 2 == 448, "half of the decoder is left for the text"
    assert prompt_tokens(Words(), DecodeOptions(hotwords=" ", initial_prompt="")) == []


def repeating(ratio: float) -> tuple[Segment, ...]:
    return (Segment(0, 1, f" {ratio}", compression_ratio=ratio),)


@pytest.mark.parametrize(("with_prompt", "without", "kept"), [(3.0, 1.5, 1.5), (3.0, 4.0, 3.0), (2.3, 1.0, 2.3)])
def test_a_prompt_that_makes_the_model_loop_is_dropped_for_that_window(
    with_prompt: float, without: float, kept: float
) -> None:
    asked: list[DecodeOptions] = []

    def read(options: DecodeOptions) -> tuple[Segment, ...]:
        asked.append(options)
        return repeating(with_prompt if options.initial_prompt else without)

    assert without_loops(read, PROMPTED) == repeating(kept)
    assert asked[1:] == ([replace(PROMPTED, initial_prompt=None)] if with_prompt > 2.4 else [])


def test_a_loop_without_a_prompt_is_left_to_whispers_own_rules() -> None:
    asked: list[DecodeOptions] = []

    def read(options: DecodeOptions) -> tuple[Segment, ...]:
        asked.append(options)
        return repeating(5.0)

    assert without_loops(read, DecodeOptions(language="en")) == repeating(5.0)
    assert len(asked) == 1
