"""Every dependency has a reason, a pin and a hash; nothing heavy or private slips in."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
LOCKED = {"requirements.lock": [], "requirements-dev.lock": EXTRAS["dev"], "requirements-cuda.lock": EXTRAS["cuda"]}
TOO_HEAVY = {"torch", "transformers", "tensorflow", "jax"}


def pins(lock: str) -> list[tuple[str, str]]:
    """(name, version); a name stands twice where the version depends on the version of Python."""
    return re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)


def pinned(lock: str) -> set[str]:
    return {name for name, _ in pins(lock)}


def asked_for(lock: str) -> set[str]:
    """What the lock itself says came from pyproject.toml."""
    blocks = re.findall(
        r"^([a-z0-9][\w.-]*)==(.*?)(?=^[a-z0-9]|\Z)", (ROOT / lock).read_text(), re.MULTILINE | re.DOTALL
    )
    return {name for name, block in blocks if "whisper-queue (pyproject.toml)" in block}


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def test_every_direct_dependency_has_one_reason() -> None:
    lines = re.findall(r"^\| ([\w-]+) \| (.+) \|$", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    reasons = [name for name, reason in lines if name != "package"]
    direct = names(RUNTIME) | set().union(*map(names, EXTRAS.values()))
    assert sorted(reasons) == sorted(direct)


@pytest.mark.parametrize("lock", LOCKED)
def test_the_lock_is_in_step_with_pyproject(lock: str) -> None:
    requirements = RUNTIME + LOCKED[lock]
    assert asked_for(lock) == names(requirements), "pyproject.toml has changed: make lock"
    allowed = {str(canonicalize_name(requirement.name)): requirement.specifier for requirement in requirements}
    for name, version in pins(lock):
        assert name not in allowed or allowed[name].contains(version, prereleases=True)


@pytest.mark.parametrize("lock", LOCKED)
def test_every_pin_has_a_hash_and_no_index_is_named(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert len(re.findall(r"^[a-z0-9][\w.-]*==.* \\\n    --hash=sha256:", text, re.MULTILINE)) == len(pins(lock))
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links)", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKED)
def test_torch_and_its_like_are_left_to_the_platform(lock: str) -> None:
    assert not TOO_HEAVY & pinned(lock)


@pytest.mark.parametrize("lock", ["requirements-dev.lock", "requirements-cuda.lock"])
def test_the_locks_agree_so_that_the_tests_test_what_runs(lock: str) -> None:
    assert set(pins("requirements.lock")) <= set(pins(lock))


def test_what_the_tests_may_use_is_not_what_the_service_needs() -> None:
    assert not {"pytest", "mypy", "ruff", "hypothesis"} & pinned("requirements.lock")
