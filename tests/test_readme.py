"""The README promises nothing that is not there: its targets, routes, options, files and settings exist."""

import re
from pathlib import Path

import pytest

from api.schemas import TranscribeOptions
from app import create_app
from config import Settings
from formats import FORMATS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PLACEHOLDERS = {"$JOB": "{job_id}", "$BATCH": "{batch_id}", "$ERROR": "{error_id}"}


def routes_named() -> set[str]:
    found = re.findall(r"http://127\.0\.0\.1:8000(/[^\s\"'?`]*)", README)
    return {re.sub(r"\$[A-Z]+", lambda match: PLACEHOLDERS[match[0]], path) for path in found}


def test_every_route_of_the_readme_exists(settings: Settings) -> None:
    told_otherwise = {"/admin/models/small", "/transcribe/{job_id}/segments/0", "/ui/"}
    known = set(create_app(settings).openapi()["paths"]) | told_otherwise
    assert routes_named() - known == {"/v1"}, "OpenAI's base URL, and nothing else"
    assert len(routes_named()) > 5


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets | {"it"}


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_file_that_the_readme_links_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_setting_of_the_readme_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})(?:=[^`]*)?`", README))
    compose_only = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD"}
    assert {name.lower() for name in named - compose_only} <= set(Settings.model_fields)


def test_every_option_and_format_is_in_the_readme() -> None:
    assert [name for name in TranscribeOptions.model_fields if f"`{name}`" not in README] == []
    assert [name for name in FORMATS if name not in README] == []
