"""`make` on a bare machine: finds a Python that will do, says what is missing, hands every setting on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAMPS = (".run-installed", ".dev-installed")


def make(folder: Path, *arguments: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    command = ("make", "-f", str(ROOT / "Makefile"), *arguments)
    environment = {"PATH": path, "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for lock in ROOT.glob("requirements*.lock"):
        shutil.copy(lock, tmp_path)
    (tmp_path / "client").mkdir()
    shutil.copy(ROOT / "client" / "pyproject.toml", tmp_path / "client")
    return tmp_path


@pytest.fixture
def installed(clone: Path) -> Path:
    """A clone whose environment is ready, with a Python that tells what it was asked to do."""
    script(clone / ".venv" / "bin" / "python", 'echo "$@"; env')
    for stamp in STAMPS:
        (clone / ".venv" / stamp).touch()
    return clone


def test_every_setting_on_the_command_line_reaches_the_stack(installed: Path) -> None:
    done = make(installed, "run", "PORT=8123", "DATA_DIR=/tmp/x y", "LEASE_SECONDS=3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "-m stack"
    assert {"PORT=8123", "DATA_DIR=/tmp/x y", "LEASE_SECONDS=3"} <= set(lines)


def test_verbose_shows_the_logs(installed: Path) -> None:
    assert make(installed, "run", "VERBOSE=1").stdout.splitlines()[0] == "-m stack --verbose"


def test_a_second_run_installs_nothing(installed: Path) -> None:
    assert "Installing" not in make(installed, "run").stdout


def test_a_changed_lock_is_installed(installed: Path) -> None:
    for lock in installed.glob("requirements*.lock"):
        os.utime(lock, (2**33, 2**33))
    assert "Installing" in make(installed, "run").stdout


@pytest.mark.parametrize("target", ["run", "test"])
def test_a_changed_command_line_is_installed_after_what_it_needs(installed: Path, target: str) -> None:
    os.utime(installed / "client" / "pyproject.toml", (2**33, 2**33))
    installs = [line for line in make(installed, target).stdout.splitlines() if " pip " in line]
    assert [("-r" in line.split(), "-e ./client" in line) for line in installs[:2]] == [(True, False), (False, True)]
    assert {"--no-deps", "--no-build-isolation"} <= set(installs[1].split()), "it would ask the network"


def test_a_python_that_is_too_old_is_refused_with_what_to_do(clone: Path) -> None:
    old = script(clone / "bin" / "python3", "exit 1")
    done = make(clone, "run", f"PYTHON={old}")
    assert done.returncode != 0
    assert "No Python 3.11 or newer found" in done.stderr
    assert "make run PYTHON=" in done.stderr


def test_a_stub_that_only_says_how_to_install_python_is_passed_over(clone: Path) -> None:
    script(clone / "bin" / "python3.13", "echo 'not installed: try another version' >&2; exit 127")
    script(clone / "bin" / "python3.12", 'case "$1" in --version) echo Python 3.12;; -m) echo made by 3.12;; esac')
    done = make(clone, ".venv/bin/python", path=f"{clone / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert "made by 3.12" in done.stdout


def test_a_python_without_venv_is_refused_with_what_to_do(clone: Path) -> None:
    bare = script(clone / "bin" / "python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    done = make(clone, "run", f"PYTHON={bare}")
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr
