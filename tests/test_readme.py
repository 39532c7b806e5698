"""The README promises nothing that is not there: its targets, routes, options, files and settings exist."""

import re
import tomllib
from pathlib import Path

import pytest

from app import create_app
from config import VERSION, Settings
from formats import FORMATS
from webhooks.outcome import DELAYS_S, MOST_TRIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = "api comparison configuration index operations scale security troubleshooting upgrading web-page".split()
USER_FACING = [Path("README.md"), *(Path("docs") / f"{name}.md" for name in PAGES), Path("deploy/two-hosts/README.md")]
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
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_file_that_the_readme_links_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_setting_of_the_readme_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})(?:=[^`]*)?`", README))
    compose_only = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD"}
    assert {name.lower() for name in named - compose_only} <= set(Settings.model_fields)


def test_every_format_is_in_the_readme() -> None:
    assert [name for name in FORMATS if name not in README] == []


def test_the_first_screen_has_the_promise_the_audience_the_picture_and_what_is_missing() -> None:
    first = README.split("## Run it")[0]
    assert len(first.splitlines()) < 40
    for told in ("whose jobs survive crashes", "For developers and teams", "docs/images/transcript.png", "comparison"):
        assert told in first


@pytest.mark.parametrize("page", USER_FACING, ids=str)
def test_a_page_for_users_has_no_private_word(page: Path) -> None:
    found = re.findall(r"\b(?:doorbells?|signs? of life|poison)\b", (ROOT / page).read_text(), re.IGNORECASE)
    assert not found


def test_the_hours_of_a_webhook_follow_from_its_plan() -> None:
    """Each pause is random between its half and its whole."""
    least, most = sum(DELAYS_S) / 2 / 3600, sum(DELAYS_S) / 3600
    assert (round(least), round(most), MOST_TRIES) == (12, 24, 11)
    for page in ("operations.md", "api.md"):
        assert re.search(r"11 tries[^.;]*12 to 24 hours", (ROOT / "docs" / page).read_text())


def test_one_version_stands_everywhere() -> None:
    for project in ("pyproject.toml", "client/pyproject.toml"):
        assert tomllib.loads((ROOT / project).read_text())["project"]["version"] == VERSION
    assert f"### {VERSION}" in (ROOT / "docs" / "upgrading.md").read_text()
    assert f"| {VERSION.rpartition('.')[0]}.x | yes |" in (ROOT / "SECURITY.md").read_text()


def test_every_package_carries_the_licence() -> None:
    assert (ROOT / "LICENSE").read_text() == (ROOT / "client" / "LICENSE").read_text()
    for project in ("pyproject.toml", "client/pyproject.toml"):
        assert tomllib.loads((ROOT / project).read_text())["project"]["license"] == "MIT"
