"""The bench of accuracy counts what it says: every number here was counted by hand."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.accuracy import cache as stock_cache
from bench.accuracy import groups as by_group
from bench.accuracy import report
from bench.accuracy.__main__ import pairs
from bench.accuracy.cache import Asked, StockCache
from bench.accuracy.manifest import Recording, is_digits, read
from bench.accuracy.scoring import (
    Score,
    marked,
    score,
    script,
    segment_starts,
    time_errors,
    units,
    word_starts,
    words_of,
)
from tests.conftest import ROOT
from tests.media import tone, write_media

SAMPLES = ROOT / "demo" / "samples"


def recording(text: str | None, language: str = "en", **changes: Any) -> Recording:
    known: dict[str, Any] = {"id": "a", "path": Path("a.wav"), "group": "talks", "kind": "speech", "seconds": 6.0}
    return Recording(language=language, text=text, digits=is_digits(text or ""), **known | changes)


def answer(text: str, language: str | None = "en", segments: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"text": text, "language": language, "segments": segments or []}


def segment(start: float, *words: tuple[str, float]) -> dict[str, Any]:
    timed = [{"word": f" {word}", "start": begins, "end": begins + 0.2} for word, begins in words]
    return {"start": start, "end": start + 1, "text": "".join(f" {word}" for word, _ in words), "words": timed}


# --- what is compared


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        ("The cat sat on the mat.", "the cat sat on the mat", (6, 0, 0, 0)),
        ("The cat sat on the mat.", "the cat sat on a mat today", (6, 1, 0, 1)),
        ("The cat sat on the mat.", "cat on mat", (6, 0, 3, 0)),
        ("The cat sat on the mat.", "", (6, 0, 6, 0)),
        ("Mr. Smith won't pay 20 dollars", "mister smith will not pay twenty dollars", (6, 0, 0, 0)),  # $20 is one
        ("um so the colour", "uh, so the color", (3, 0, 0, 0)),  # fillers and spellings are no errors
    ],
)
def test_english_words_are_compared_as_whisper_does(said: str, heard: str, expected: tuple[int, ...]) -> None:
    assert score(recording(said), heard) == Score(*expected)


@pytest.mark.parametrize(
    ("language", "said", "heard", "expected"),
    [
        ("de", "Viele Grüße, Jürgen!", "viele grüsse jürgen", (3, 1, 0, 0)),
        ("ja", "今日は、いい天気です。", "今日はいい電気です", (9, 1, 0, 0)),
        ("zh", "数据 模型", "数据模型", (4, 0, 0, 0)),
        ("zh", "数据模型", "數據模型", (4, 2, 0, 0)),  # the other script is another character
        ("ko", "사용자 지정 음성", "사용자 지정 음", (7, 0, 1, 0)),
    ],
)
def test_other_languages_keep_their_letters_and_some_are_counted_by_character(
    language: str, said: str, heard: str, expected: tuple[int, ...]
) -> None:
    assert score(recording(said, language), heard) == Score(*expected)


@pytest.mark.parametrize("heard", ["1 0 9 2", "1092", "1-0-9-2.", "One, zero, nine, two!", "one O nine 2"])
def test_a_string_of_digits_is_compared_digit_by_digit(heard: str) -> None:
    spoken = recording("one oh nine two")
    assert units(spoken, heard) == ["1", "0", "9", "2"]
    assert score(spoken, heard) == Score(4, 0, 0, 0)


def test_digits_within_an_english_text_are_compared_one_by_one() -> None:
    spoken = recording("extension 1234 and no one else")
    assert score(spoken, "Extension 1, 2, 3, 4 and no one else.") == Score(9, 0, 0, 0)
    assert score(spoken, "extension one two three four, and no one else") == Score(9, 0, 0, 0)
    assert score(spoken, "extension 12.4 and no one else").errors > 0


@pytest.mark.parametrize(
    ("language", "said", "heard"),
    [
        ("ru", "нажмите 2 или 9", "Нажмите два, или девять."),
        ("de", "drücken Sie 5", "Drücken Sie fünf"),
        ("fr", "appuyez sur 2", "appuyez sur deux"),
    ],
)
def test_a_digit_may_be_written_as_a_word_in_other_languages_too(language: str, said: str, heard: str) -> None:
    assert score(recording(said, language), heard).errors == 0
    assert score(recording(said, language), said).errors == 0


def test_a_digit_that_is_missing_is_one_error_and_not_a_number_that_is_wrong() -> None:
    assert score(recording("one oh nine two"), "192") == Score(4, 0, 1, 0)


def test_a_text_with_other_words_is_no_string_of_digits() -> None:
    assert not is_digits("ten of clubs")
    assert not is_digits("one")
    assert not is_digits("")


def test_rates_are_of_all_words_and_not_a_mean_of_rates() -> None:
    total = Score(90, 1, 1, 1) + Score(10, 2, 3, 2)
    assert (total.words, total.errors, total.rate) == (100, 10, 10.0)
    assert Score().rate == 0


def test_differences_are_marked_where_they_stand() -> None:
    spoken = recording("the cat sat on the mat")
    assert marked(spoken, "the cat sat on a mat today") == "the cat sat on [-the-]{+a+} mat {+today+}"
    assert marked(recording("数据模型", "zh"), "数模型") == "数[-据-]模型"


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), (" ... ♪♪ ", 0), ("[Music]", 1), ("Thank you. I\u2019m here", 4), ("Спасибо", 1)]
)
def test_whatever_stands_in_a_text_of_nothing_is_invented(text: str, count: int) -> None:
    assert len(words_of(text)) == count


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("数据、模型、测试", "simplified"),
        ("數據、模型、測試", "traditional"),
        ("数据测试和測試數據", "mixed"),
        ("人口", ""),
    ],
)
def test_the_script_of_a_chinese_text_is_told(text: str, found: str) -> None:
    assert script(text) == found


# --- times


def test_starts_are_compared_of_words_that_both_have() -> None:
    ours = answer(
        "", segments=[segment(0.4, ("Good", 0.5), ("morning", 1.0)), segment(2.0, ("old", 2.0), ("friend", 2.5))]
    )
    stock = answer("", segments=[segment(0.0, ("good", 0.4), ("morning,", 1.2), ("my", 1.9), ("friend", 2.4))])
    spoken = recording("good morning my friend")
    assert time_errors(word_starts(spoken, ours), word_starts(spoken, stock)) == pytest.approx([0.1, 0.2, 0.1])
    # of segments only the first pair begins with the same word
    assert time_errors(segment_starts(spoken, ours), segment_starts(spoken, stock)) == pytest.approx([0.4])


def test_the_median_and_what_95_percent_do_not_exceed() -> None:
    words = [f"w{number}" for number in range(20)]
    stock = {"a": answer("", segments=[segment(0, *((word, float(at)) for at, word in enumerate(words)))])}
    ours = {"a": answer("", segments=[segment(0, *((word, at + at / 100) for at, word in enumerate(words)))])}
    assert by_group.times([recording("x")], ours, stock)["words"] == {"compared": 20, "median": 0.095, "p95": 0.19}


# --- groups and bounds


def heard(ours: str, stock: str, **more: Any) -> dict[str, dict[str, Any]]:
    return {"ours": {"a": answer(ours, **more)}, "sequential": {"a": answer(stock)}}


def test_a_recording_is_counted_in_every_group_it_belongs_to() -> None:
    recordings = [
        recording("one big cat", id="a", seconds=10.0),
        recording("ein Hund", "de", id="b", seconds=30.0, group="tales"),
        recording("数据", "zh", id="c", seconds=30.1, group="tales"),
        recording(None, id="d"),
        recording("", id="e", kind="nospeech"),
    ]
    said = {"a": answer("one cat"), "b": answer("ein Hund"), "c": answer("数学"), "d": answer("x"), "e": answer("")}
    found = {(one.section, one.name): one for one in by_group.groups(recordings, {"ours": said})}
    assert {name: group.scores["ours"].words for (_, name), group in found.items()} == {
        "pooled": 7, "words": 5, "characters": 2, "up to 10 s": 3, "10-30 s": 2, "above 30 s": 2, "talks": 3,
        "tales": 4, "en": 3, "de": 2, "zh": 2, "speech": 7,
    }  # fmt: skip
    assert found["pooled", "pooled"].scores["ours"] == Score(7, 1, 1, 0)
    assert [name for _, name in found][:6] == ["pooled", "words", "characters", "up to 10 s", "10-30 s", "above 30 s"]


def test_words_invented_are_counted_by_the_minute() -> None:
    silent = [recording("", id=name, group="noise", seconds=45.0) for name in "ab"]
    said = {"ours": {"a": answer("thanks for watching"), "b": answer("...")}}
    (found,) = by_group.invented(silent, said)
    assert (found["minutes"], found["words"], found["words_per_minute"]) == (1.5, {"ours": 3}, {"ours": 2.0})


def test_languages_and_empty_texts_are_listed_by_name() -> None:
    recordings = [recording("hola amigo", "es", id="a"), recording(None, id="b"), recording("", id="c")]
    said = {"a": answer("Χόλα", "el"), "b": answer("", None), "c": answer("", None)}
    assert by_group.wrong_languages(recordings, said) == [{"id": "a", "language": "es", "found": "el"}]
    assert by_group.without_text(recordings, said) == ["b"]


LONG = " ".join(f"word{chr(97 + number // 10)}{chr(97 + number % 10)}" for number in range(100))


def without(count: int) -> str:
    return " ".join(LONG.split()[count:])


@pytest.mark.parametrize(
    ("missing", "at_stock", "complaints"),
    [
        (19, 20, 0),  # exactly 0.95 of stock's
        (20, 20, 1),  # as good as stock is not good enough, pooled
        (23, 20, 4),  # and three more is too much for a length, a group and a language
        (22, 20, 1),  # two errors more are allowed
    ],
)
def test_bounds_are_those_of_the_project(missing: int, at_stock: int, complaints: int) -> None:
    found = report.findings([recording(LONG)], heard(without(missing), without(at_stock)))
    assert len(found["broken"]) == complaints, found["broken"]


def test_each_other_broken_bound_is_a_sentence() -> None:
    recordings = [
        recording("", id="n", group="noise"),
        recording("hola amigo", "es", id="s"),
        recording("数据模型测试", "zh", id="z"),
        recording("gone", id="f"),
    ]
    said = {
        "n": answer("Thank you."), "s": answer("hola amigo", "pt"), "z": answer("数据模型测试測試據", "zh"),
        "f": answer("", None) | {"error": {"code": "x"}},
    }  # fmt: skip
    assert report.findings(recordings, {"ours": said})["broken"] == [
        "noise: 2 words invented where nobody speaks",
        "s: es taken for pt",
        "z: simplified and traditional characters in one text",
        "f: the job failed",
    ]


def test_the_worst_against_stock_is_shown_first() -> None:
    recordings = [recording("one big cat", id="a"), recording("two old dogs", id="b"), recording("same", id="c")]
    ours = {"a": answer("one cat"), "b": answer("dogs"), "c": answer("same")}
    stock = {"a": answer("big cat"), "b": answer("two old dogs"), "c": answer("Same.")}
    texts = report.side_by_side(recordings, {"ours": ours, "sequential": stock})
    assert [text.split()[0] for text in texts] == ["b", "a"]
    assert "2 errors: [-2 old-] dogs" in texts[0]


# --- manifests


GOOD = {"id": "a", "file": "a.wav", "language": "en", "group": "g", "kind": "speech", "seconds": 1, "text": "hi"}


def written(folder: Path, content: str) -> Path:
    (folder / "a.wav").touch()
    (folder / "manifest.json").write_text(content)
    return folder


def test_a_manifest_is_read(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path, json.dumps([GOOD])))
    assert (found.id, found.path, found.text, found.length) == ("a", tmp_path / "a.wav", "hi", "up to 10 s")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[", "no JSON"),
        ("{}", "must be a list"),
        ("[]", "must be a list"),
        ("[3]", "Entry 1"),
        (json.dumps([GOOD | {"language": None}]), "Recording a of the manifest: 'language'"),
        (json.dumps([{"id": "b"}]), "Recording b of the manifest: 'file'"),
        (json.dumps([GOOD | {"text": 5}]), "'text' must be"),
        (json.dumps([GOOD | {"file": "b.wav"}]), "no file b.wav"),
        (json.dumps([GOOD, GOOD]), "ids twice: a"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(SystemExit, match=complaint):
        read(written(tmp_path, content))


def test_a_folder_without_a_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There is no manifest"):
        read(tmp_path)


def test_settings_are_named_and_valued() -> None:
    assert pairs(["short_windows=true", "A=b=c"]) == {"SHORT_WINDOWS": "true", "A": "b=c"}
    with pytest.raises(SystemExit, match="NAME=VALUE, not as x"):
        pairs(["x"])


# --- the whole bench


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """Two recordings for the bundled model: one of speech, one of nothing."""
    folder = tmp_path / "talks"
    folder.mkdir()
    shutil.copy(SAMPLES / "english.wav", folder)
    write_media(folder / "tone.wav", tone(3, volume=0.01))
    entries = [
        GOOD | {"id": "seven", "file": "english.wav", "text": "one two three four five six seven", "seconds": 3.1},
        GOOD | {"id": "tone", "file": "tone.wav", "text": "", "kind": "nospeech", "group": "noise", "seconds": 3},
    ]
    (folder / "manifest.json").write_text(json.dumps(entries))
    return folder


def bench(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, "-m", "bench.accuracy", *map(str, arguments))
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.timeout(300)
def test_the_whole_bench_hears_all_sides_and_holds_ours_against_its_bounds(talks: Path, tmp_path: Path) -> None:
    path = tmp_path / "found"
    told = ("--model", "demo", "--cache", tmp_path / "cache", "--name", path, "--words", "--assert")
    found = bench(talks, *told)
    assert found.returncode == 0, found.stdout + found.stderr
    written = json.loads(path.with_suffix(".json").read_text())
    pooled = written["groups"][0]
    assert (pooled["group"], pooled["scores"]["ours"]["words"]) == ("pooled", 7)
    assert {side: one["wer"] for side, one in pooled["scores"].items()} == dict.fromkeys(
        ("ours", "sequential", "batched"), 0.0
    )
    assert written["invented"][0]["words"] == {"ours": 0, "sequential": 0, "batched": 0}
    assert written["sides"]["ours"]["starts"]["words"]["compared"] == 7
    assert written["sides"]["ours"]["starts"]["words"]["p95"] < 0.5
    assert "seven" not in path.with_name("found-texts.txt").read_text()  # nothing differs


def test_stock_hears_each_recording_once_here(talks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recordings, model = read(talks), ROOT / "demo" / "model"
    empty = StockCache(tmp_path, model, Asked())
    assert not any(empty.has("sequential", one, given=True) for one in recordings)
    first = empty.hear("sequential", recordings, given=True)
    assert "2 of 2 recordings to hear" in capfd.readouterr().out
    assert StockCache(tmp_path, model, Asked()).hear("sequential", recordings, given=True) == first
    assert "to hear" not in capfd.readouterr().out
    assert all(empty.has("sequential", one, given=True) for one in recordings)
    assert not any(empty.has("batched", one, given=True) for one in recordings)
    assert first["seven"]["text"].lower().startswith("one two three")
    other = StockCache(tmp_path, model, Asked(beam_size=1))
    places = {stock._place(kind, one, given=given)
        for stock in (other, StockCache(tmp_path, model, Asked()))
        for kind in ("sequential", "batched")
        for one in recordings
        for given in (True, False)
    }  # fmt: skip
    assert len(places) == 16  # everything that may change a text is part of the name
    assert stock_cache.LIBRARIES[:2] == ("faster-whisper", "ctranslate2")
