"""What is made of the segments that faster-whisper gives for one window."""

from hypothesis import given
from hypothesis import strategies as st

from engines.decoding import _clipped, _tidy
from transcript import Segment, Word

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
