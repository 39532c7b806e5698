"""Benches measure what they say: sides take turns, a busy machine is told, and each bench runs to its end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import BENCHES, NAMED
from bench.measure import Rounds, compare, core_share, interleave
from bench.models import model
from bench.player import sequential
from bench.sounds import windows
from tests.conftest import ROOT


def run(*arguments: str, within_s: float = 110) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-m", *arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=within_s
    )


def test_sides_take_turns_and_every_other_round_begins_with_the_last() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = interleave({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found.seconds == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}
    assert 0 < found.share <= 1.1


def test_the_ratio_is_the_median_of_ratios_within_rounds() -> None:
    row = compare("x", Rounds({"a": [1.0, 2.0, 10.0], "b": [2.0, 6.0, 10.0]}, 1.0), ("a", "b"), work=60, at_least=1.9)
    assert (row.ratio, row.lowest, row.highest) == (2.0, 1.0, 3.0)
    assert (row.a_value, row.b_value) == (30.0, 10.0)
    assert row.verdict == "ok"


def test_a_busy_machine_is_said_instead_of_a_verdict() -> None:
    row = compare("x", Rounds({"a": [1.0], "b": [2.0]}, 0.5), ("a", "b"), at_least=1.0)
    assert row.is_busy
    assert row.verdict == "busy machine (0.50)"


def test_two_busy_loops_are_timed() -> None:
    assert 0 < core_share() <= 1.1


@pytest.mark.parametrize("bench", [*BENCHES, *NAMED, "gpu", "memory"])
def test_every_bench_says_what_it_takes(bench: str) -> None:
    found = run(f"bench.{bench}", "--help")
    assert found.returncode == 0, found.stderr
    assert f"usage: bench.{bench} " in found.stdout


def test_the_gpu_bench_refuses_where_there_is_no_gpu() -> None:
    found = run("bench.gpu", "--parts", "kernels", "--sizes", "nothing")
    if found.returncode != 2:
        pytest.skip("there is a GPU here")
    assert "Nothing was measured" in found.stderr


def test_a_window_is_decoded_once_and_says_as_many_tokens_as_were_asked_for() -> None:
    """Else stock and ours would do different work on the same sound."""
    folder = model("tiny", length=20)
    assert sequential(str(folder))(windows(1))
    from faster_whisper import WhisperModel

    whisper: Any = WhisperModel(str(folder), device="cpu", compute_type="int8")
    segments, _ = whisper.transcribe(windows(1)[0], language="en", beam_size=1, temperature=0.0)
    (segment,) = segments
    assert 19 <= len(segment.tokens) <= 21


def test_a_bench_runs_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "stages"
    found = run("bench.stages", "--stages", "mel", "decode", "--rounds", "1", "--name", str(path))
    assert found.returncode == 0, found.stderr
    written = json.loads(path.with_suffix(".json").read_text())
    assert {row["a"] for row in written["rows"]} >= {"engines/mel.py", "audio/decode.py"}
    assert all("busy_machine" in row and row["ratio"] > 0 for row in written["rows"])


@pytest.mark.timeout(250)
def test_the_bench_of_waiting_jobs_runs_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "waiting"
    few = ("--jobs", "3000", "--rounds", "1", "--calls", "2", "--letters", "10", "--parts", "relay", "deletes")
    found = run("bench.waiting", *few, "--name", str(path), within_s=240)
    assert found.returncode == 0, found.stderr
    written = json.loads(path.with_suffix(".json").read_text())
    names = {row["name"] for row in written["rows"]}
    assert names == {"tick, 4 children", "tick, 256 children", "delete 100 jobs", "look for old history"}
    (counted,) = (figure for figure in written["figures"] if figure["what"] == "all counted one by one")
    assert counted["jobs"] == counted["estimated"] == 3000
