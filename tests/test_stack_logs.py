"""Logs stay bounded, and `--verbose` shows each line once, whole."""

from pathlib import Path

import pytest

from stack import process
from stack.mirror import Mirror


@pytest.fixture
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_LIMIT_BYTES", 10)


def test_a_large_log_makes_way_at_the_next_start(tmp_path: Path, small_logs: None) -> None:
    log = tmp_path / "api.log"
    log.write_text("more than ten bytes\n")
    process.rotate(log)
    assert not log.exists()
    assert (tmp_path / "api.log.1").read_text() == "more than ten bytes\n"


def test_a_log_that_is_being_written_is_emptied_in_place(tmp_path: Path, small_logs: None) -> None:
    log = tmp_path / "api.log"
    with log.open("a") as writer:
        writer.write("more than ten bytes\n")
        writer.flush()
        process.rotate_running(log)
        writer.write("next\n")
    assert log.read_text() == "next\n"
    assert (tmp_path / "api.log.1").read_text() == "more than ten bytes\n"


def test_a_small_log_stays(tmp_path: Path, small_logs: None) -> None:
    log = tmp_path / "api.log"
    log.write_text("short\n")
    process.rotate(log)
    process.rotate_running(log)
    assert log.read_text() == "short\n"


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_text("".join(f"{number}\n" for number in range(100_000)))
    assert process.tail(log, 2) == "99998\n99999"


def test_the_mirror_shows_new_whole_lines_once(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "api.log").write_text("from an earlier run\n")
    mirror = Mirror(tmp_path, said.append)
    with (tmp_path / "api.log").open("a") as log:
        log.write("one\ntwo\nhal")
        log.flush()
        mirror()
        mirror()
        log.write("f\n")
        log.flush()
        mirror()
    assert [line.split("|")[1].strip() for line in said] == ["one", "two", "half"]


def test_the_mirror_goes_on_after_a_rotation(tmp_path: Path) -> None:
    said: list[str] = []
    mirror = Mirror(tmp_path, said.append)
    log = tmp_path / "api.log"
    log.write_text("a long line before\n")
    mirror()
    log.write_text("after\n")
    mirror()
    assert [line.split("|")[1].strip() for line in said] == ["a long line before", "after"]
