"""The files of the page as they are served: with a policy of their own, kept by their ETag, nothing foreign in them."""

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from api.edge import PAGE_HEADERS, POLICY, SECURITY_HEADERS
from app import create_app
from config import Settings
from languages import LANGUAGES
from tests.callers import key_of
from ui import STATIC

FILES = sorted(STATIC.iterdir())
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|\beval\(|new Function"
)
FOREIGN = re.compile(r"""(?:https?:)?//[a-z0-9-]+\.[a-z]""")


@pytest.fixture
def outside(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1", follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("path", ["/ui/", "/ui/app.js", "/ui/worker.js", "/ui/nothing"])
def test_every_file_of_the_page_bears_the_pages_policy(outside: TestClient, path: str) -> None:
    answer = outside.get(path)
    assert answer.status_code == (404 if path == "/ui/nothing" else 200)
    expected = SECURITY_HEADERS | PAGE_HEADERS
    assert expected.items() <= {name: answer.headers.get(name) for name in expected}.items()


def test_the_policy_lets_nothing_foreign_in_and_no_text_become_markup() -> None:
    policy = PAGE_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "require-trusted-types-for 'script'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)


def test_other_paths_keep_the_policy_of_the_api(outside: TestClient) -> None:
    for path in ("/health", "/uix", "/jobs/"):
        answer = outside.get(path)
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["cache-control"] == "no-store"
        assert "permissions-policy" not in answer.headers


def test_a_file_that_the_browser_has_is_not_sent_again(outside: TestClient) -> None:
    first = outside.get("/ui/app.js")
    again = outside.get("/ui/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_browser_at_the_root_is_shown_to_the_page_and_a_program_is_not(outside: TestClient) -> None:
    answer = outside.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["location"]) == (307, "/ui/")
    assert outside.get("/ui").headers["location"].endswith("/ui/")
    program = outside.get("/")
    assert (program.status_code, program.json()["code"]) == (404, "not_found")


def test_the_page_itself_needs_no_key(outside: TestClient, settings: Settings) -> None:
    key_of(settings)
    assert outside.get("/ui/").status_code == 200
    assert outside.get("/jobs/").status_code == 401


def test_no_file_outside_of_the_page_is_served(outside: TestClient) -> None:
    for path in (
        "/ui/../config.py",
        "/ui/%2e%2e/config.py",
        "/ui/..%2f..%2fconfig.py",
        "/ui/__init__.py",
        "/ui//etc/passwd",
    ):
        assert outside.get(path).status_code == 404, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_names_no_other_host_and_makes_no_markup_of_text(path: object) -> None:
    text = (STATIC / str(path)).read_text()
    assert not FOREIGN.search(text.replace("http://www.w3.org/2000/svg", ""))
    assert not MARKUP.search(text)
    assert not re.search(r"<script>|\sstyle=|\son[a-z]+=\"", text)
    assert len(text.splitlines()) <= 400


def test_the_page_knows_every_language_that_the_service_knows() -> None:
    quoted = re.findall(r'"([^"]*)"', (STATIC / "languages.js").read_text().partition("=")[2])
    assert set("".join(quoted).split()) == set(LANGUAGES)
