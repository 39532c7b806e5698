"""Subtitles and tables from a transcript: whatever the engine says, the file can be read."""

import re
from dataclasses import dataclass
from decimal import Decimal
from html import unescape
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import formats
from models import SegmentRow
from tests.checker import calm
from transcript import Segment

CLOCK = r"(\d{2,}):([0-5]\d):([0-5]\d)"
SRT_BLOCK = re.compile(rf"(\d+)\n{CLOCK},(\d{{3}}) --> {CLOCK},(\d{{3}})\n((?:[^\n]+\n)+)")
VTT_BLOCK = re.compile(rf"(){CLOCK}\.(\d{{3}}) --> {CLOCK}\.(\d{{3}})\n((?:[^\n]+\n)+)")
NASTY = (
    "\n",
    "\n\n",
    "\r\n",
    "\u2028",
    "\x85",
    "\t",
    " ",
    "-->",
    "--->",
    "<i>",
    "&amp;",
    "&",
    "1",
    "WEBVTT",
    "NOTE ",
    "é",
)

times = st.floats(0, 1_000_000) | st.integers(0, 5000).map(lambda ms: ms / 1000)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.lists(st.sampled_from(NASTY)).map("".join)
segments = st.lists(st.builds(Segment, start=times, end=times, text=texts), max_size=8)


@dataclass(frozen=True)
class Read:
    number: str
    start: int
    end: int
    text: str


def blocks(pattern: re.Pattern[str], body: str) -> list[Read]:
    """Read `body` strictly: blocks of the pattern, one empty line between two, and nothing else."""
    found: list[Read] = []
    at = 0
    while at < len(body):
        at += bool(found) and body[at] == "\n"
        match = pattern.match(body, at)
        assert match, f"not a cue: {body[at : at + 60]!r}"
        number, *clocks, text = match.groups()
        found.append(Read(number, milliseconds(clocks[:4]), milliseconds(clocks[4:]), text))
        at = match.end()
    return found


def milliseconds(clock: list[str]) -> int:
    hours, minutes, seconds, ms = map(int, clock)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms


def read_srt(text: str) -> list[Read]:
    return blocks(SRT_BLOCK, text)


def read_vtt(text: str) -> list[Read]:
    assert text.startswith("WEBVTT\n\n")
    return blocks(VTT_BLOCK, text.removeprefix("WEBVTT\n\n"))


def spoken(segment: Segment) -> str:
    return " ".join(segment.text.split())


def rounded(seconds: float) -> int:
    """Half up in decimal, written another way than in formats.py: add a half, then cut."""
    return int(Decimal(str(seconds)) * 1000 + Decimal("0.5"))


@calm
@given(said=segments)
def test_cues_are_in_order_have_a_length_and_never_overlap(said: list[Segment]) -> None:
    for cues in (read_srt(formats.render_srt(said)), read_vtt(formats.render_vtt(said))):
        assert all(cue.start < cue.end for cue in cues)
        assert all(one.end <= two.start for one, two in pairwise(cues))
        assert {cue.start for cue in cues} == {rounded(segment.start) for segment in said if spoken(segment)}


@calm
@given(said=segments)
def test_no_word_is_lost_and_none_is_added(said: list[Segment]) -> None:
    in_order = sorted((segment for segment in said if spoken(segment)), key=lambda segment: rounded(segment.start))
    words = " ".join(map(spoken, in_order)).split()
    assert " ".join(unescape(cue.text) for cue in read_vtt(formats.render_vtt(said))).split() == words
    srt = " ".join(cue.text for cue in read_srt(formats.render_srt(said))).split()
    assert srt == [re.sub("-+->", "->", word) for word in words]
    assert formats.render_txt(said).split() == " ".join(map(spoken, said)).split()


@calm
@given(said=segments)
def test_nothing_in_the_text_of_a_cue_reads_as_markup_or_as_a_time_line(said: list[Segment]) -> None:
    assert not any("-->" in cue.text for cue in read_srt(formats.render_srt(said)))
    for cue in read_vtt(formats.render_vtt(said)):
        assert not re.search(r"[<>]|-->|&(?!amp;|lt;|gt;)", cue.text)


@calm
@given(said=segments)
def test_cues_are_numbered_from_one(said: list[Segment]) -> None:
    numbers = [cue.number for cue in read_srt(formats.render_srt(said))]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


@calm
@given(said=segments)
def test_a_table_has_three_columns_and_a_row_for_every_segment(said: list[Segment]) -> None:
    header, *rows = [line.split("\t") for line in formats.render_tsv(said).split("\n")[:-1]]
    assert header == ["start", "end", "text"]
    assert [(int(start), int(end)) for start, end, _ in rows] == [(rounded(s.start), rounded(s.end)) for s in said]
    assert [" ".join(text.split()) for *_, text in rows] == [spoken(segment) for segment in said]


@calm
@given(said=segments)
def test_plain_text_has_a_line_for_every_segment_that_says_something(said: list[Segment]) -> None:
    assert len(formats.render_txt(said).split("\n")[:-1]) == sum(1 for segment in said if spoken(segment))


@calm
@given(said=st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1))
def test_times_that_are_in_order_already_are_kept_to_the_millisecond(said: list[tuple[int, int]]) -> None:
    clock, expected = 0, []
    for pause, length in said:
        expected.append((clock + pause, clock + pause + length))
        clock += pause + length
    rendered = formats.render_srt([Segment(start / 1000, end / 1000, "x") for start, end in expected])
    assert [(cue.start, cue.end) for cue in read_srt(rendered)] == expected


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (0.0, "00:00:00.000"),
        (0.0004, "00:00:00.000"),
        (0.0005, "00:00:00.001"),
        (1.0005, "00:00:01.001"),
        (59.9994, "00:00:59.999"),
        (59.9996, "00:01:00.000"),
        (3599.9995, "01:00:00.000"),
        (360_000.0, "100:00:00.000"),
        (3_600_000.5, "1000:00:00.500"),
        (-0.3, "00:00:00.000"),
    ],
)
def test_times_are_rounded_half_up_to_milliseconds_with_carry(seconds: float, clock: str) -> None:
    assert f"\n{clock} --> " in formats.render_vtt([Segment(seconds, seconds + 1, "x")])


def test_a_cue_is_cut_where_the_next_one_begins() -> None:
    said = [Segment(0, 10, "a"), Segment(2, 3, "b"), Segment(2.5, 4, "c")]
    assert [(cue.start, cue.end) for cue in formats.cues(said)] == [(0, 2000), (2000, 2500), (2500, 4000)]


def test_a_cue_of_no_length_is_given_one_where_there_is_room() -> None:
    said = [Segment(1, 1, "a"), Segment(2, 2, "b"), Segment(2.03, 3, "c")]
    assert [(cue.start, cue.end) for cue in formats.cues(said)] == [(1000, 1100), (2000, 2030), (2030, 3000)]


def test_cues_that_begin_together_become_one() -> None:
    assert formats.cues([Segment(1, 1, "a"), Segment(1.0001, 2, " b ")]) == [formats.Cue(1000, 2000, ("a", "b"))]


def test_subrip_looks_as_players_expect_it() -> None:
    said = [Segment(0, 1.5, " Hello,\n\n world. "), Segment(1.5, 2, "5 --> 6"), Segment(3, 4, "  ")]
    assert formats.render_srt(said) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello,\nworld.\n\n2\n00:00:01,500 --> 00:00:02,000\n5 -> 6\n"
    )


def test_webvtt_looks_as_the_standard_says() -> None:
    said = [Segment(0, 1.5, " AT&T <b>--> x")]
    assert formats.render_vtt(said) == ("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nAT&amp;T &lt;b&gt;--&gt; x\n")


def test_a_table_looks_as_whisper_writes_it() -> None:
    said = [Segment(0, 1.5, " a\tb\n"), Segment(1.2, 1.2, "")]
    assert formats.render_tsv(said) == "start\tend\ttext\n0\t1500\ta b\n1200\t1200\t\n"


@pytest.mark.parametrize(
    ("name", "empty"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("tsv", "start\tend\ttext\n")]
)
def test_a_recording_without_speech_gives_a_valid_empty_file(name: str, empty: str) -> None:
    assert formats.FORMATS[name].render([]) == empty


def test_every_format_says_what_it_is_and_how_its_file_is_called() -> None:
    assert {name: f"{kind.suffix} {kind.media_type}" for name, kind in formats.FORMATS.items()} == {
        "txt": ".txt text/plain; charset=utf-8",
        "srt": ".srt application/x-subrip; charset=utf-8",
        "vtt": ".vtt text/vtt; charset=utf-8",
        "tsv": ".tsv text/tab-separated-values; charset=utf-8",
        "lrc": ".lrc application/x-lrc; charset=utf-8",
    }


def test_rows_of_the_database_are_rendered_like_segments() -> None:
    row = SegmentRow(number=0, start=0.0, end=1.0, text=" a")
    assert formats.render_srt([row]) == formats.render_srt([Segment(0, 1, " a")])
