"""Subtitles that people can read: whatever was said, cues keep their limits, lose nothing and give time to read."""
# ruff: noqa: RUF001 punctuation of other scripts

import re
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from formats import SubtitleOptions, render
from formats.breaking import FASTEST, LONGEST_MS, SHORTEST_MS, Limits, lines, needed_ms
from formats.readable import ReadableCue, readable
from formats.scripts import clusters, ends_sentence
from formats.units import length, text_of, units_of
from tests.checker import calm
from tests.test_formats import read_srt, read_vtt, texts, times
from transcript import Segment, Word

WIDE = SubtitleOptions(max_line_width=42, max_line_count=2)
ENDINGS = ("", "", "", "", ",", ".", "?")

anything = st.lists(
    st.builds(
        Segment,
        start=times,
        end=times,
        text=texts,
        words=st.none() | st.lists(st.builds(Word, word=texts, start=times, end=times, probability=st.just(1.0))),
        language=st.sampled_from([None, "en", "de"]),
        channel=st.sampled_from([None, 0, 1]),
    ),
    max_size=6,
)
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


def spoken_at(start: float, text: str, *, each: float = 0.3, pauses: dict[str, float] | None = None) -> Segment:
    """Each word takes 0.3 s; `pauses`: seconds of silence after a word."""
    words = []
    for word in text.split():
        words.append(Word(f" {word}", round(start, 3), round(start + each, 3), 1.0))
        start += each + (pauses or {}).get(word, 0.0)
    return segment_of(words)


def shown(cue: ReadableCue) -> list[str]:
    return [text_of(units) for turn in cue.turns for units in turn.lines]


def texts_of(segments: Sequence[Segment], options: SubtitleOptions = WIDE) -> list[str]:
    return [" / ".join(shown(cue)) for cue in readable(segments, options)]


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


# Where cues break


def test_a_cue_ends_with_its_sentence_though_the_next_one_had_room() -> None:
    said = [spoken_at(0, "Hello there, my old friend. How are you today?")]
    assert texts_of(said) == ["Hello there, my old friend.", "How are you today?"]


def test_a_cue_ends_at_a_pause() -> None:
    said = [spoken_at(0, "we went to the sea and swam there", pauses={"sea": 0.6})]
    assert texts_of(said) == ["we went to the sea", "and swam there"]


def test_text_flows_over_segments_where_a_cue_has_a_size_and_not_elsewhere() -> None:
    said = [spoken_at(0, "we went to the"), spoken_at(1.2, "sea and swam there")]
    assert texts_of(said) == ["we went to the sea and swam there"]
    assert texts_of(said, SubtitleOptions(max_line_width=42)) == ["we went to the", "sea and swam there"]


def test_a_long_sentence_is_broken_at_its_commas_into_about_equal_parts() -> None:
    text = (
        "When I was young my father, who had seen much of the world, told me stories of the sea and of the ships on it."
    )
    assert texts_of([spoken_at(0, text)]) == [
        "When I was young my father, / who had seen much of the world,",
        "told me stories of the sea / and of the ships on it.",
    ]


def test_an_abbreviation_ends_no_sentence() -> None:
    for text in ("Dr. Smith", "J. Smith", "U.S. troops", "etc. and so on", "3.5 of"):
        assert not ends_sentence(*text.split(maxsplit=1))
    for text in ("Yes. No", "“Yes.” No", "3. Then", "好。 今", "ja? Ja"):
        assert ends_sentence(*text.split(maxsplit=1))


def test_a_short_answer_does_not_flash_by() -> None:
    said = [spoken_at(0, "Yes. I know that very well.", each=0.25)]
    assert texts_of(said) == ["Yes. I know that very well."]
    with_room = [spoken_at(0, "Yes. I know that very well.", each=0.25, pauses={"Yes.": 1.0})]
    assert [(cue.start, cue.end) for cue in readable(with_room, WIDE)] == [(0, 800), (1250, 2500)]


def test_fast_speech_gets_the_silence_that_follows() -> None:
    (cue,) = readable([spoken_at(0, "this was said much too fast to read it", each=0.05)], WIDE)
    assert cue.end - cue.start == characters(cue) * 1000 // FASTEST


def test_another_language_begins_a_new_cue() -> None:
    said = [
        replace(spoken_at(0, "and he said", each=0.2), language="en"),
        replace(spoken_at(0.6, "ja", each=0.2), language="de"),
    ]
    assert texts_of(said) == ["and he said", "ja"]


def test_channels_have_cues_of_their_own_with_their_names() -> None:
    said = [
        replace(spoken_at(0, "How are you today?"), channel=0),
        replace(spoken_at(1.2, "I am fine, thank you."), channel=1),
    ]
    assert [cue.text for cue in read_srt(render("srt", said, WIDE))] == [
        "Channel 1: How are you today?\n",
        "Channel 2: I am fine, thank you.\n",
    ]
    assert [cue.text for cue in read_vtt(render("vtt", said, WIDE))] == [
        "<v Channel 1>How are you today?</v>\n",
        "<v Channel 2>I am fine, thank you.</v>\n",
    ]
    assert render("srt", said).count("Channel 1: How are you today?\n") == 1
    assert render("vtt", said).count("<v Channel 2>I am fine, thank you.</v>\n") == 1


def test_channels_that_speak_at_the_same_time_share_a_cue_that_has_room() -> None:
    said = [replace(spoken_at(0, "so I went home again"), channel=0), replace(spoken_at(0.6, "yes"), channel=1)]
    (cue,) = readable(said, WIDE)
    assert (cue.start, cue.end, shown(cue)) == (0, 1500, ["so I went home again", "yes"])


# Words without times


def test_without_times_of_words_a_segment_is_broken_by_its_characters() -> None:
    said = [Segment(0, 6, "Hello there, my old friend. How are you doing today?")]
    assert [(cue.start, cue.end, shown(cue)) for cue in readable(said, WIDE)] == [
        (0, 3209, ["Hello there, my old friend."]),
        (3209, 6000, ["How are you doing today?"]),
    ]


def test_words_that_are_not_those_of_the_text_are_not_used() -> None:
    said = [Segment(0, 1, "corrected text", words=(Word(" other", 5, 6, 1.0),))]
    assert [(cue.start, shown(cue)) for cue in readable(said, WIDE)] == [(0, ["corrected text"])]


def test_text_without_spaces_is_broken_by_characters_but_not_before_a_closing_mark() -> None:
    said = [Segment(0, 6, "今日は、いい天気ですね。明日も「晴れる」と思いますか？")]
    assert texts_of(said, SubtitleOptions(max_line_width=10, max_line_count=2)) == [
        "今日は、いい / 天気ですね。",
        "明日も「晴れる」 / と思いますか？",
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("東京です。", ["東", "京", "で", "す。"]),
        ("「東京」へ", ["「東", "京」", "へ"]),
        ("GPUを2台", ["GPU", "を", "2", "台"]),
        ("don't", ["don't"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("เมือง", ["เมื", "อ", "ง"]),
    ],
)
def test_what_belongs_together_is_not_torn(text: str, parts: list[str]) -> None:
    assert clusters(text) == parts


def test_lines_of_japanese_segments_are_joined_without_a_space() -> None:
    assert texts_of([Segment(0, 1, "今日は"), Segment(1, 2, "いい天気")]) == ["今日はいい天気"]


# Words with times


def test_a_highlighted_word_is_underlined_while_it_is_spoken() -> None:
    said = [spoken_at(0, "so <I> went", pauses={"<I>": 0.6})]
    options = SubtitleOptions(highlight_words=True, max_line_width=10)
    assert render("srt", said, options) == (
        "1\n00:00:00,000 --> 00:00:00,300\n<u>so</u> <I>\n\n"
        "2\n00:00:00,300 --> 00:00:00,800\nso <u><I></u>\n\n"
        "3\n00:00:01,200 --> 00:00:01,500\n<u>went</u>\n\n"
        "4\n00:00:01,500 --> 00:00:02,000\nwent\n"
    )
    assert "<u>&lt;I&gt;</u>" in render("vtt", said, options)


def test_a_pause_within_a_cue_highlights_nothing() -> None:
    said = [spoken_at(0, "a b", each=0.1, pauses={"a": 0.55})]
    starts = [(cue.start, cue.text) for cue in read_srt(render("srt", said, SubtitleOptions(highlight_words=True)))]
    assert starts == [(0, "<u>a</u> b\n"), (100, "a b\n"), (650, "a <u>b</u>\n")]


def test_word_level_cues_have_the_time_of_each_word() -> None:
    said = [spoken_at(1, "one two & three")]
    assert render("vtt", said, SubtitleOptions(word_level=True)) == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.200\none <00:00:01.300>two <00:00:01.600>&amp; <00:00:01.900>three\n"
    )


# LRC


def test_lrc_has_a_line_for_each_segment_and_clears_the_screen_in_silence() -> None:
    said = [Segment(0, 1.5, " one\ntwo "), Segment(1.5, 2, "[0:05] x"), Segment(4, 6000.129, "late")]
    assert render("lrc", said) == ("[00:00.00]one two\n[00:01.50](0:05] x\n[00:02.00]\n[00:04.00]late\n[100:00.12]\n")


def test_word_level_lrc_has_the_time_of_each_word() -> None:
    said = [spoken_at(1, "one two three")]
    assert render("lrc", said, SubtitleOptions(word_level=True)) == (
        "[00:01.00]<00:01.00>one <00:01.30>two <00:01.60>three\n[00:01.90]\n"
    )


@calm
@given(said=anything)
def test_lines_of_lrc_have_a_time_each_and_no_other(said: list[Segment]) -> None:
    for line in render("lrc", said).split("\n")[:-1]:
        assert re.fullmatch(r"\[\d{2,}:[0-5]\d\.\d\d\](?!.*[\[<]\d+:\d).*", line)


# Without options


def test_without_options_nothing_has_changed() -> None:
    """Byte for byte what 0.1.0 wrote."""
    said = [
        spoken_at(0.0005, "Hello there, my old friend. How are you today? I hope that all is well."),
        Segment(6.2, 6.2, " AT&T <b>--> x\n\n y "),
        Segment(6.25, 30, "今日は、いい天気ですね。"),
    ]
    assert render("srt", said) == (
        "1\n00:00:00,001 --> 00:00:04,500\nHello there, my old friend. How are you today? I hope that all is well.\n\n"
        "2\n00:00:06,200 --> 00:00:06,250\nAT&T <b>-> x\ny\n\n"
        "3\n00:00:06,250 --> 00:00:30,000\n今日は、いい天気ですね。\n"
    )
    assert render("vtt", said) == (
        "WEBVTT\n\n00:00:00.001 --> 00:00:04.500\n"
        "Hello there, my old friend. How are you today? I hope that all is well.\n\n"
        "00:00:06.200 --> 00:00:06.250\nAT&amp;T &lt;b&gt;--&gt; x\ny\n\n"
        "00:00:06.250 --> 00:00:30.000\n今日は、いい天気ですね。\n"
    )
    assert render("tsv", said).endswith("6200\t6200\tAT&T <b>--> x y\n6250\t30000\t今日は、いい天気ですね。\n")
    assert render("txt", said).split("\n")[1] == "AT&T <b>--> x y"


def test_options_of_one_format_leave_another_as_it_is() -> None:
    said = [spoken_at(0, "Hello there. How are you?")]
    assert render("srt", said, SubtitleOptions(word_level=True)) == render("srt", said)
    for name in ("txt", "tsv", "lrc"):
        assert render(name, said, WIDE) == render(name, said)
