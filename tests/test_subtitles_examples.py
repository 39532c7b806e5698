"""Subtitles by example: where cues break, text without times or spaces, words that are marked, LRC, no options."""
# ruff: noqa: RUF001 punctuation of other scripts

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given

from formats import SubtitleOptions, render
from formats.breaking import FASTEST
from formats.readable import readable
from formats.scripts import clusters, ends_sentence
from tests.checker import calm
from tests.test_formats import read_srt, read_vtt
from tests.test_subtitles import WIDE, anything, characters, segment_of, shown
from transcript import Segment, Word


def spoken_at(start: float, text: str, *, each: float = 0.3, pauses: dict[str, float] | None = None) -> Segment:
    """Each word takes 0.3 s; `pauses`: seconds of silence after a word."""
    words = []
    for word in text.split():
        words.append(Word(f" {word}", round(start, 3), round(start + each, 3), 1.0))
        start += each + (pauses or {}).get(word, 0.0)
    return segment_of(words)


def texts_of(segments: Sequence[Segment], options: SubtitleOptions = WIDE) -> list[str]:
    return [" / ".join(shown(cue)) for cue in readable(segments, options)]


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
