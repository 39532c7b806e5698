"""`python -m stack` says what is wrong in one line, before it starts anything."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack.process import ROOT
from stack.state import Entry, write_state


def stack(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    told = {name.upper(): value for name, value in settings.items()} | {"DATA_DIR": str(folder)}
    return subprocess.run(
        (sys.executable, "-m", "stack"),
        cwd=ROOT,
        env=os.environ | told,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_second_stack_on_the_same_folder_is_refused_and_told_about_the_first(tmp_path: Path) -> None:
    write_state(tmp_path / "stack.json", [Entry("stack", 4711)])
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        done = stack(tmp_path)
    finally:
        os.close(folder)
    assert done.returncode == 1
    assert done.stderr.strip() == (f"Another stack (pid 4711) runs on {tmp_path}: stop it, or give another DATA_DIR.")
    assert (tmp_path / "stack.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, "HOST=0.0.0.0 lets strangers in"),
        ({"port": "many"}, "Settings are wrong: PORT"),
        ({"api_key": "short"}, "API_KEY is too weak: at least 16 characters"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    done = stack(tmp_path, **settings)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "stack.json").exists()
