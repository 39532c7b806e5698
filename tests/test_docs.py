"""The documentation: the site builds without a warning and loads nothing from elsewhere; its examples run.

Blocks of one section (`## `) run in their order. A `json` block shows what the one before it printed: the keys are
compared, "…" stands for any others, and an id that it shows is the real one from there on. What a shell block sets, the
next one has. A status of 400 or more must be named in the block. `<!-- not run: why -->` before a block takes it out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import api.openai_schemas  # noqa: F401 its errors count
import errors
from api.schemas import JobQuery, TranscribeOptions
from api.subtitles import SubtitleFields
from config import Settings
from jobs.blame import cause_of
from jobs.retry import Cause
from stack.home import free_port
from stack.running import Stack
from tests.conftest import ROOT

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]
DOCS = ROOT / "docs"
SAMPLES = ROOT / "demo" / "samples"
API = (DOCS / "api.md").read_text()
BLOCK = r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$"
PARTS = re.compile(rf"^## (?P<title>[^\n]+)$|{BLOCK}", re.MULTILINE | re.DOTALL)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ANY = "…"
CURLRC = 'silent\nshow-error\nwrite-out = "%{stderr}\\n%{http_code}\\n"\n'  # each status, where it is in nobody's way
PROGRAMS = {"sh": ("bash", ".sh"), "python": (sys.executable, ".py"), "js": ("node", ".mjs")}
SHELL = "set -euo pipefail\nset -a\n[ ! -f ../variables ] || . ../variables\n{}\ndeclare -px > ../variables\n"
NEVER_TOLD = {"interrupted", "lease_lost", "cancelled", "draining"}  # no fault of a job, and so no error of one


@dataclass
class Block:
    language: str
    text: str
    not_run: str | None
    shows: str | None = None


@dataclass
class Section:
    page: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def sections(page: str) -> list[Section]:
    found = [Section(page, "")]
    for part in PARTS.finditer((DOCS / page).read_text()):
        if part["title"]:
            found.append(Section(page, part["title"]))
        elif part["language"] == "json":
            found[-1].blocks[-1].shows = part["text"]
        elif part["language"] in PROGRAMS:
            found[-1].blocks.append(Block(part["language"], part["text"], part["reason"]))
    return [section for section in found if section.blocks]


SECTIONS = [*sections("index.md"), *sections("api.md")]
NOT_RUN = [block for section in SECTIONS for block in section.blocks if block.not_run]


@dataclass
class Reader:
    """Somebody who follows the pages: a folder with recordings, a service, and the ids that it has given so far."""

    folder: Path
    addresses: dict[str, str]  # as the pages have them: the real ones
    ids: dict[str, str] = field(default_factory=dict)

    def follow(self, block: Block) -> None:
        program, suffix = PROGRAMS[block.language]
        script = self.folder / f"example{suffix}"
        text = block.text
        for told, real in (self.addresses | self.ids).items():
            text = text.replace(told, real)
        script.write_text(SHELL.format(text) if block.language == "sh" else text)
        command, told_as = (program, script), self._environment()
        done = subprocess.run(
            command, cwd=self.folder, env=told_as, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        statuses = re.findall(r"^[045]\d\d$", done.stderr, re.MULTILINE)
        unexpected = [status for status in statuses if status not in block.text]
        assert not unexpected, f"{unexpected}: {block.text}\n{done.stdout}"
        if block.shows is not None:
            self.compare(json.loads(block.shows), json.loads(done.stdout), "")

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        home = str(self.folder.parent)
        return {"PATH": path, "HOME": home, "CURL_HOME": home, "LANG": "C.UTF-8"}

    def compare(self, shown: Any, real: Any, where: str) -> None:
        match shown, real:
            case dict(), dict():
                names = shown.keys() - {ANY}
                assert names <= real.keys() if ANY in shown else names == real.keys(), f"{where}: {list(real)}"
                for name in names:
                    self.compare(shown[name], real[name], f"{where}.{name}")
            case list(), list():
                assert not shown or real, f"{where} is empty"
                for one, other in zip(shown, real, strict=False):
                    self.compare(one, other, f"{where}[]")
            case str(), str():
                if UUID.search(shown) and (whole := UUID.search(real)):
                    self.ids[UUID.findall(shown)[0]] = whole[0]
            case _:
                assert {type(shown), type(real)} <= {int, float} or type(shown) is type(real), f"{where}: {real!r}"


def folder_below(home: Path) -> Path:
    (home / ".curlrc").write_text(CURLRC)
    folder = home / "recordings"
    folder.mkdir()
    for name, sample in {"talk.mp3": "english.wav", "a.mp3": "german.mp3", "b.mp3": "silence.mp3"}.items():
        shutil.copy(SAMPLES / sample, folder / name)
    (folder / "notes.txt").write_text("no sound")
    (folder / "broken.mp3").write_bytes(b"not a recording " * 64)
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The server of somebody else, with the same recordings."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def running(folder: Path) -> Stack:
    return Stack(folder, whisper_model_size="demo", outbound_allow="127.0.0.0/8", celery_concurrency=1)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    home = tmp_path_factory.mktemp("reader")
    folder = folder_below(home)
    with serving(folder) as far, running(home / "stack") as stack:
        ports = {"http://127.0.0.1:8000": stack.url, "https://example.com": far, "9000": str(free_port())}
        yield Reader(folder, ports)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: f"{section.page}: {section.title}")
def test_the_examples_of_a_section_run(reader: Reader, section: Section) -> None:
    needed = {"sh": ("curl", "jq"), "js": ("node",), "python": ()}
    for block in section.blocks:
        if block.not_run:
            continue
        if missing := [name for name in needed[block.language] if shutil.which(name) is None]:
            pytest.skip(f"{missing[0]} is not installed: what follows in this section was not run")
        reader.follow(block)


def test_few_examples_are_taken_out_and_each_says_why() -> None:
    assert len(NOT_RUN) <= 2, [block.text for block in NOT_RUN]
    assert all(len(block.not_run or "") > 20 for block in NOT_RUN)
    assert {block.language for section in SECTIONS for block in section.blocks} == PROGRAMS.keys()


@pytest.mark.parametrize(
    ("shown", "real"),
    [({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 1}), ({"a": [{"b": ""}]}, {"a": []}), ({"a": 1}, {"a": None})],
)
def test_an_answer_with_other_keys_than_the_page_shows_is_seen(shown: Any, real: Any) -> None:
    with pytest.raises(AssertionError):
        Reader(Path(), {}).compare(shown, real, "")


def test_an_example_that_fails_is_seen_and_what_one_sets_the_next_one_has(tmp_path: Path) -> None:
    folder = folder_below(tmp_path)
    with serving(folder) as far:
        reader = Reader(folder, {"https://example.com": far})
        for text in ("false", "curl https://example.com/none", "false | cat", "unknown-program"):
            with pytest.raises(AssertionError):
                reader.follow(Block("sh", text, None))
        reader.follow(Block("sh", "FOUND=$(curl https://example.com/notes.txt)", None))
        reader.follow(Block("sh", 'test "$FOUND" = "no sound"; curl https://example.com/none  # 404', None))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does, in strict mode."""
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder)
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Assets(HTMLParser):
    """What a browser fetches for a page without being asked to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") != "canonical":
            self.found.append(given.get("href") or "")
        self.found += [given[name] or "" for name in ("src", "srcset", "poster", "data") if name in given]


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assets = Assets(page.read_text()).found
        assert assets
        foreign = [asset for asset in assets if re.match(r"(https?:)?//", asset)]
        assert not foreign, f"{page.name}: {foreign}"
        assert "mermaid" not in page.read_text(), "the theme fetches what draws it from elsewhere"
    sheets = "".join(sheet.read_text() for sheet in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", sheets)


def test_what_a_page_would_load_from_another_host_is_seen() -> None:
    page = '<script src="//cdn.example.com/a.js"></script><link rel="stylesheet" href="https://example.com/a.css">'
    assert Assets(page).found == ["//cdn.example.com/a.js", "https://example.com/a.css"]


def test_page_and_site_have_one_colour_and_one_icon(site: Path) -> None:
    day, night = re.findall(r"--accent: light-dark\((#\w+), (#\w+)\)", (ROOT / "ui/static/style.css").read_text())[0]
    sheet = (site / "style.css").read_text()
    assert set(re.findall(r"#\w{6}\b", sheet)) == {day, night}
    assert (site / "images" / "icon.svg").read_bytes() == (ROOT / "ui/static/icon.svg").read_bytes()
    assert 'href="images/icon.svg"' in (site / "index.html").read_text()


def test_the_site_has_the_pages_that_lie_elsewhere_in_the_repository(site: Path) -> None:
    for page, words in {"changelog": "Unreleased", "benchmarks": "How to read a row", "command-line": "Ctrl-C"}.items():
        assert words in (site / f"{page}.html").read_text()


def test_every_route_is_on_the_page() -> None:
    paths = json.loads((DOCS / "openapi.json").read_text())["paths"]
    assert [path for path in (*paths, "/metrics", "/ws/jobs/{job_id}") if f"`{path}`" not in API] == []


def tree_of(error: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    yield error
    for kind in error.__subclasses__():
        yield from tree_of(kind)


def rows_of(table: str) -> dict[str, str]:
    """The second cell of each row, by each name in the first cell, of the table with these heads."""
    lines = API.split(f"| {table} |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return {name: second for first, second, *_ in cells for name in re.findall(r"`(\w+)`", first)}


def test_every_error_is_on_the_page_with_its_status_and_whether_it_is_tried_again() -> None:
    answers, of_jobs = rows_of("code | status | what to do"), rows_of("code | tried again | what")
    for error in tree_of(errors.ServiceError):
        if error.code in NEVER_TOLD:
            continue
        told = answers.get(error.code) or of_jobs.get(error.code)
        is_openais = error.__module__ == "api.openai_schemas" and f"`{error.code}`" in API
        is_workers = cause_of(error.__new__(error)) is Cause.WORKER
        again = "by another worker" if is_workers else "yes" if error.retryable else "no"
        assert is_openais or told in {str(error.status), again}, error


def test_every_option_and_filter_is_on_the_page() -> None:
    known = {*TranscribeOptions.model_fields, *JobQuery.model_fields}
    assert [name for name in sorted(known) if f"`{name}`" not in API] == []
    assert set(rows_of("option | default | what")) == {*TranscribeOptions.model_fields}
    assert set(rows_of("option | values | what")) == {*SubtitleFields.model_fields}


@pytest.mark.parametrize(
    "page", ["api.md", "index.md", "security.md", "web-page.md", "troubleshooting.md", "comparison.md", "upgrading.md"]
)
def test_every_file_test_and_setting_that_a_page_names_exists(page: str) -> None:
    text = (DOCS / page).read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in re.findall(r"`(test_\w+)`", text) if f"def {name}(" not in tests] == []
    assert [path for path in re.findall(r"`([a-z]\w*/[\w/]*(?:\.py)?)`", text) if not (ROOT / path).exists()] == []
    settings = re.findall(r"`([A-Z]+_[A-Z_]+)(?:=[^`]*)?`", text)
    assert [name for name in settings if name.lower() not in Settings.model_fields] == []
