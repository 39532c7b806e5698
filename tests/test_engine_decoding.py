"""What a batch of faster-whisper leaves out, compared with what its own loop over one window would do next."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.decoding import _clip, _clipped, _mended, _rest_s, _tidy, compression_ratio
from transcript import DecodeOptions, Segment, Word

FIRST_TIMESTAMP = 50_364
OPTIONS = DecodeOptions(language="en", initial_prompt="prompt")
GOOD: dict[str, Any] = {
    "tokens": [FIRST_TIMESTAMP, 1, FIRST_TIMESTAMP + 50],
    "avg_logprob": -0.2,
    "no_speech_prob": 0.1,
}
WINDOW = np.zeros(3 * 16_000, np.float32)
TEXT = st.integers(0, 50_256)
TIME = st.integers(FIRST_TIMESTAMP, FIRST_TIMESTAMP + 1500)


def split(tokens: list[int]) -> tuple[list[dict[str, Any]], int]:
    """Segments and the frame to go on from, by the loop of the faster-whisper that is installed."""
    from faster_whisper.transcribe import WhisperModel

    constants = SimpleNamespace(time_precision=0.02, input_stride=2)
    tokenizer = SimpleNamespace(timestamp_begin=FIRST_TIMESTAMP)
    segments, seek, _ = WhisperModel._split_segments_by_timestamps(constants, tokenizer, tokens, 0.0, 3000, 30.0, 0)
    return segments, seek


@settings(deadline=None)
@given(st.lists(TEXT | TIME | TIME, max_size=30))
def test_decoding_goes_on_where_faster_whispers_own_loop_would(tokens: list[int]) -> None:
    segments, seek = split(tokens)
    rest_s = _rest_s(tokens, FIRST_TIMESTAMP, [])
    assert (3000 if rest_s is None else round(rest_s * 100)) == seek
    if rest_s is None and tokens:
        kept = [token for segment in segments for token in segment["tokens"]]
        assert kept == tokens, "a batch would lose these tokens"


def test_with_word_times_an_unfinished_window_goes_on_after_its_last_word() -> None:
    segments = [Segment(0.0, 3.0, " one two", words=(Word(" one", 0.1, 0.5, 1.0), Word(" two", 0.5, 1.4, 1.0)))]
    assert _rest_s([50_364, 1, 2], FIRST_TIMESTAMP, segments) == 1.4
    assert _rest_s([50_364, 1, 2, 50_500], FIRST_TIMESTAMP, segments) is None


class Scripted:
    """As much of a WhisperModel as a row of a batch needs; whatever is tried again alone says "again"."""

    def __init__(self, text: str = "one") -> None:
        ids = {"<|endoftext|>": 50_257, "<|notimestamps|>": FIRST_TIMESTAMP - 1}
        self.hf_tokenizer = SimpleNamespace(decode=lambda _: text, token_to_id=ids.__getitem__)
        self.model = SimpleNamespace(is_multilingual=True)
        self.asked: list[dict[str, Any]] = []

    def transcribe(self, window: NDArray[np.float32], **asked: Any) -> tuple[list[Any], None]:
        self.asked.append({"seconds": len(window) / 16_000, **asked})
        values = dict.fromkeys(("avg_logprob", "no_speech_prob", "compression_ratio", "temperature"), 0.0)
        return [SimpleNamespace(start=0.0, end=0.5, text=" again", tokens=[], words=None, **values)], None


def mended(whisper: Scripted, options: DecodeOptions = OPTIONS, **output: Any) -> list[tuple[float, float, str]]:
    row = [Segment(0.0, 1.0, " one")]
    found = _mended(whisper, WINDOW, options, row, {**GOOD, **output})
    return [(one.start, one.end, one.text) for one in found]


def test_a_good_row_of_a_batch_stays_as_it_is() -> None:
    whisper = Scripted()
    assert mended(whisper) == [(0.0, 1.0, " one")]
    assert whisper.asked == []


def test_a_row_that_whisper_takes_for_silence_has_no_text() -> None:
    assert mended(Scripted(), no_speech_prob=0.7, avg_logprob=-1.0) == []
    assert mended(Scripted(), no_speech_prob=0.7, avg_logprob=-0.9) == [(0.0, 1.0, " one")]


@pytest.mark.parametrize(("text", "log_probability"), [("one", -1.1), ("la " * 60, -0.2)])
def test_a_weak_row_is_tried_again_alone_at_rising_temperatures(text: str, log_probability: float) -> None:
    whisper = Scripted(text)
    assert mended(whisper, avg_logprob=log_probability) == [(0.0, 0.5, " again")]
    (asked,) = whisper.asked
    assert (asked["seconds"], asked["initial_prompt"]) == (3.0, " prompt")
    assert "temperature" not in asked  # faster-whisper's own steps


def test_a_weak_row_stays_where_the_caller_fixed_the_temperature() -> None:
    whisper = Scripted()
    assert mended(whisper, replace(OPTIONS, temperature=0.0), avg_logprob=-1.1) == [(0.0, 1.0, " one")]


def test_what_follows_an_unfinished_segment_is_decoded_without_the_prompt_and_put_in_its_place() -> None:
    whisper = Scripted()
    unfinished = [*GOOD["tokens"], FIRST_TIMESTAMP + 50, 2]
    assert mended(whisper, tokens=unfinished) == [(0.0, 1.0, " one"), (1.0, 1.5, " again")]
    (asked,) = whisper.asked
    assert (asked["seconds"], asked["initial_prompt"]) == (2.0, None)


def test_an_unfinished_segment_at_the_very_end_leaves_nothing_to_decode() -> None:
    whisper = Scripted()
    end = FIRST_TIMESTAMP + 150
    assert mended(whisper, tokens=[FIRST_TIMESTAMP, 1, end, end]) == [(0.0, 1.0, " one")]
    assert whisper.asked == []


@given(st.integers(0, 31), st.integers(1, 480_000))
def test_a_clip_is_exactly_its_window_after_faster_whisper_has_rounded_it(index: int, samples: int) -> None:
    clip = _clip(index, np.empty(samples, np.float32))
    assert int(clip["start"] * 16_000) == index * 480_000
    assert int(clip["end"] * 16_000) == index * 480_000 + samples


times = st.floats(-5, 40, allow_nan=False)


@given(st.lists(st.tuples(times, times, st.sampled_from([" text", "", "  "]))), st.floats(0.1, 30))
def test_whatever_times_whisper_gives_segments_lie_in_order_inside_the_window(
    found: list[tuple[float, float, str]], length_s: float
) -> None:
    tidy = _tidy([Segment(start, end, text) for start, end, text in found], length_s)
    assert all(0 <= one.start < one.end <= length_s + 0.001 for one in tidy)
    assert all(one.text.strip() for one in tidy)
    assert [one.start for one in tidy] == sorted(one.start for one in tidy)


def test_a_segment_dated_over_the_end_is_clipped_with_its_words_and_one_after_it_is_dropped() -> None:
    words = (Word(" in", 1.0, 2.0, 0.9), Word(" over", 2.5, 4.0, 0.9), Word(" after", 3.5, 4.0, 0.9))
    clipped = _clipped(Segment(1.0, 4.0, " in over after", words=words), 3.0)
    assert (clipped.start, clipped.end) == (1.0, 3.0)
    assert [(word.start, word.end) for word in clipped.words or ()] == [(1.0, 2.0), (2.5, 3.0), (3.0, 3.0)]
    assert _tidy([Segment(3.5, 4.0, " invented")], 3.0) == ()


def test_the_thresholds_and_the_ratio_are_faster_whispers() -> None:
    from inspect import signature

    from faster_whisper.transcribe import WhisperModel, get_compression_ratio

    from engines import decoding

    defaults = {name: one.default for name, one in signature(WhisperModel.transcribe).parameters.items()}
    assert defaults["no_speech_threshold"] == decoding._NO_SPEECH
    assert defaults["log_prob_threshold"] == decoding._LOG_PROBABILITY
    assert defaults["compression_ratio_threshold"] == decoding._COMPRESSION
    for text in ("", "one", "again and again " * 20):
        assert compression_ratio(text) == pytest.approx(get_compression_ratio(text))
