"""Subtitles that people can read: whatever was said, cues keep their limits, lose nothing and give time to read."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from formats import SubtitleOptions, render
from formats.breaking import FASTEST, LONGEST_MS, SHORTEST_MS, Limits, lines, needed_ms
from formats.readable import ReadableCue, readable
from formats.units import length, text_of, units_of
from tests.checker import calm
from tests.test_formats import read_srt, read_vtt, texts, times
from transcript import Segment, Word

WIDE = SubtitleOptions(max_line_width=42, max_line_count=2)
ENDINGS = ("", "", "", "", ",", ".", "?")

segments = st.builds(
    Segment,
    start=times,
    end=times,
    text=texts,
    words=st.none() | st.lists(st.builds(Word, word=texts, start=times, end=times, probability=st.just(1.0))),
    language=st.sampled_from([None, "en", "de"]),
    channel=st.sampled_from([None, 0, 1]),
)


def heard(segment: Segment) -> Segment:
    """Its words are those of its text."""
    return replace(segment, text="".join(word.word for word in segment.words or ()))


anything = st.lists(segments | segments.map(heard), max_size=6)
options = st.builds(
    SubtitleOptions,
    max_line_width=st.none() | st.integers(10, 60),
    max_line_count=st.none() | st.integers(1, 4),
    max_words_per_line=st.none() | st.integers(1, 8),
    max_cue_seconds=st.none() | st.floats(0.5, 20),
)


@st.composite
def speech(draw: st.DrawFn) -> list[Segment]:
    """Words as an engine gives them: in order, with pauses, a sentence end now and then; segments end anywhere."""
    clock, said, words = draw(st.integers(0, 3000)), list[Segment](), list[Word]()
    spoken = draw(
        st.lists(st.tuples(st.text("abcdefgh", min_size=1, max_size=12), st.sampled_from(ENDINGS)), max_size=60)
    )
    for word, ending in spoken:
        clock += draw(st.sampled_from([0, 0, 0, 0, 40, 200, 600, 3000]))
        end = clock + draw(st.sampled_from([1, 60, 150, 300, 700]))
        words.append(Word(f" {word}{ending}", clock / 1000, end / 1000, 1.0))
        clock = end
        if draw(st.integers(0, 9)) == 0:
            said.append(segment_of(words))
            words = []
    return [*said, segment_of(words)] if words else said


def segment_of(words: Sequence[Word]) -> Segment:
    return Segment(words[0].start, words[-1].end, "".join(word.word for word in words), words=tuple(words))


def shown(cue: ReadableCue) -> list[str]:
    return [text_of(units) for turn in cue.turns for units in turn.lines]


def bare(text: str) -> str:
    return "".join(text.split())


def characters(cue: ReadableCue) -> int:
    return length(cue.units)


# Whatever is said


@calm
@given(said=anything, options=options)
def test_cues_are_in_order_have_a_length_and_never_overlap(said: list[Segment], options: SubtitleOptions) -> None:
    cues = readable(said, options)
    assert all(cue.start < cue.end for cue in cues)
    assert all(one.end <= two.start for one, two in pairwise(cues))
    for read in (read_srt(render("srt", said, options)), read_vtt(render("vtt", said, options))):
        if options != SubtitleOptions():
            assert [(cue.start, cue.end) for cue in read] == [(cue.start, cue.end) for cue in cues]


@calm
@given(said=anything, options=options)
def test_all_text_is_kept_once_and_in_order(said: list[Segment], options: SubtitleOptions) -> None:
    for channel in (None, 0, 1):
        heard = [segment for segment in said if segment.channel == channel]
        text = "".join(segment.text for segment in sorted(heard, key=lambda segment: segment.start))
        turns = [turn for cue in readable(said, options) for turn in cue.turns if turn.channel == channel]
        assert bare("".join(text_of(units) for turn in turns for units in turn.lines)) == bare(text)


@calm
@given(said=anything, options=options)
def test_nothing_in_a_text_reads_as_markup_or_as_a_time_line(said: list[Segment], options: SubtitleOptions) -> None:
    assume(options != SubtitleOptions())
    assert not any("-->" in cue.text for cue in read_srt(render("srt", said, options)))
    for cue in read_vtt(render("vtt", said, options)):
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", re.sub(r"</?v[^>]*>", "", cue.text))


@calm
@given(said=anything, highlights=st.booleans())
def test_words_that_are_marked_are_the_words_of_the_text(said: list[Segment], highlights: bool) -> None:
    """Every word is underlined, or has its time, as long as the times of words leave it any."""
    said = [replace(segment, channel=None) for segment in said]
    options = SubtitleOptions(highlight_words=highlights, word_level=not highlights)
    for cue in read_vtt(render("vtt", said, options)):
        marked = re.findall(r"<u>([^<]*)</u>" if highlights else r"<(\d+:\d\d:\d\d\.\d{3})>", cue.text)
        assert len(marked) <= 1 or (not highlights and marked == sorted(set(marked)))
        assert not re.search(r"[<>]", re.sub(r"</?u>|<[\d:.]+>", "", cue.text))
        words = unescape(re.sub(r"</?u>|<[\d:.]+>", "", cue.text)).split()
        assert not highlights or not marked or any(unescape(marked[0]) in word for word in words)


# Limits


@calm
@given(said=speech(), options=options)
def test_a_cue_keeps_to_its_limits_unless_a_single_word_is_longer(
    said: list[Segment], options: SubtitleOptions
) -> None:
    for cue in readable(said, options):
        for line in shown(cue):
            assert options.max_line_width is None or len(line) <= options.max_line_width or " " not in line
        if options.max_line_count is not None:
            assert len(shown(cue)) <= options.max_line_count
        if options.max_line_width is None:
            assert len(shown(cue)) == 1
        assert options.max_words_per_line is None or len(cue.units) <= options.max_words_per_line
        assert cue.end - cue.start <= round((options.max_cue_seconds or LONGEST_MS / 1000) * 1000)


@calm
@given(said=speech(), options=options)
def test_a_cue_begins_with_its_first_word_and_is_over_before_the_next_one(
    said: list[Segment], options: SubtitleOptions
) -> None:
    starts = [round(word.start * 1000) for segment in said for word in segment.words or ()]
    cues, at = readable(said, options), 0
    for cue, following in zip(cues, [*cues[1:], None], strict=False):
        assert cue.start == starts[at]
        at += len(cue.units)
        assert following is None or cue.end <= starts[at]


@calm
@given(said=speech(), options=options)
def test_a_reader_has_the_time_that_the_sound_allows(said: list[Segment], options: SubtitleOptions) -> None:
    """Where a cue is too short or too fast, it lasts until the next one, or as long as it may."""
    longest_ms = Limits.of(options).longest_ms
    cues = readable(said, options)
    for cue, following in zip(cues, [*cues[1:], None], strict=False):
        room_ms = longest_ms if following is None else min(longest_ms, following.start - cue.start)
        assert cue.end - cue.start >= min(needed_ms(characters(cue)), room_ms)


@calm
@given(said=speech())
def test_a_cue_that_is_too_fast_could_not_share_its_time_with_its_neighbour(said: list[Segment]) -> None:
    cues = readable(said, WIDE)
    starts = [*(cue.start for cue in cues[1:]), None]
    for number, (one, two) in enumerate(pairwise(cues)):
        following = starts[number + 1]
        lacking = max(lacking_ms(one, two.start), lacking_ms(two, following))
        pause_ms = two.start - one.units[-1].end
        if lacking > 50 + 10 * pause_ms / 1000:  # what a join costs
            together = ReadableCue(one.start, two.end, one.turns + two.turns)
            size = len(lines(together.units, WIDE.max_line_width))
            too_long = two.units[-1].end - one.start > LONGEST_MS
            assert size > 2 or too_long or lacking_ms(together, following) > 0


def lacking_ms(cue: ReadableCue, next_start: int | None) -> int:
    room_ms = LONGEST_MS if next_start is None else min(LONGEST_MS, next_start - cue.start)
    return max(0, max(SHORTEST_MS, characters(cue) * 1000 // FASTEST) - room_ms)


@calm
@given(text=st.text("ab ", min_size=1, max_size=120), width=st.integers(10, 60))
def test_lines_are_as_few_as_can_be_and_balanced(text: str, width: int) -> None:
    assume(text.strip())
    units = units_of(Segment(0, 1, text))
    broken = [length(line) for line in lines(units, width)]
    filled, used = 1, 0
    for unit in units:  # by filling one after the other, the fewest there can be
        used += len(unit.text) + (used > 0)
        if used > width and used > len(unit.text):
            filled, used = filled + 1, len(unit.text)
    assert len(broken) == filled
    if filled == 2:
        halves = [(length(units[:n]), length(units[n:])) for n in range(1, len(units))]
        assert max(broken) == min(map(max, halves))
