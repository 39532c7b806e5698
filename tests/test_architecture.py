"""The rules of the house (DESIGN: docs/architecture.md), read from the syntax tree: who may import whom, who owns what.

Each rule yields one complaint a violation; it is tried on code that breaks it before it is believed about ours.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import pytest

ROOT = Path(__file__).parents[1]
NOT_OURS = {"var", "build", "dist", "node_modules"}  # and every hidden folder

ROWS = (  # a row imports only rows below it
    {"app", "worker", "relay", "admin", "migrations"},
    {"api", "ui"},
    {"tasks"},
    {"celery_app"},
    {"jobs"},
    {"webhooks", "access", "search"},
    {"audio", "storage", "engines", "formats", "outbound"},
    {"models", "model_pool"},
    {"database"},
    {"telemetry"},
    {"config", "errors", "languages", "transcript", "parent"},
)
ALONE = {  # these import no more than this of ours, wherever they stand
    "client": set[str](),
    "demo": set[str](),
    "docs": set[str](),
    "stack": {"config"},
    "model_pool": {"errors", "telemetry"},
    "formats": {"transcript", "errors"},
}
ROOMS = set.union(*ROWS, ALONE.keys(), {"bench"})
PACKAGES = {"transcribe_client": "client"}  # a room that is installed under another name
OWNERS = {  # a library, and the only places that import it; demo is a workshop, not the service
    "faster_whisper": {"engines", "demo"},
    "ctranslate2": {"engines", "demo"},
    "boto3": {"storage/s3.py"},
    "celery": {"celery_app.py", "tasks.py", "worker.py"},
    "fastapi": {"app.py", "api", "ui"},
    "httpx": {"outbound", "client"},
    "httpcore": {"outbound"},
    "jwt": {"access"},
    "subprocess": {
        "audio",
        "engines/supervisor.py",
        "engines/package_index.py",
        "telemetry/exporter.py",
        "stack",
        "demo",
    },
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "core", "services", "service", "managers", "manager"}
READS_THE_ENVIRONMENT = {"config.py", "client/transcribe_client/settings.py", "tests", "demo"}
DRAWS_A_TREE = {"errors.py"}  # its docstring is the picture of the tree, which no five lines can hold
LONGEST_DOCSTRING, LONGEST_FILE, LONGEST_FUNCTION = 5, 400, 60  # lines
WRITES_STATUS_IN_SQL = re.compile(r"update\s+transcription_jobs\b.*\bset\b.*\bstatus\s*=", re.IGNORECASE | re.DOTALL)
HEAVY = {"faster_whisper", "ctranslate2", "av", "onnxruntime", "numpy"}


@dataclass(frozen=True)
class Module:
    path: str  # from the root of the repository
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> Self:
        return cls(path, text, ast.parse(text, path))

    @property
    def room(self) -> str:
        return self.path.partition("/")[0].removesuffix(".py")

    def is_in(self, places: set[str]) -> bool:
        return self.path in places or self.room in places

    def imports(self) -> Iterator[str]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or "."


@cache
def our_modules() -> list[Module]:
    files = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    ours = (file for file in files if not any(part in NOT_OURS or part.startswith(".") for part in file.parts))
    return [Module.of(file.as_posix(), (ROOT / file).read_text()) for file in ours]


def imports_only_rows_below(module: Module) -> Iterator[str]:
    if module.room in ("tests", "bench"):  # they measure and try everything; nobody imports them
        return
    if module.room not in ROOMS:
        yield "has no place in the table of rows"
        return
    row = next((number for number, rooms in enumerate(ROWS) if module.room in rooms), len(ROWS))
    below = ALONE.get(module.room, set().union(*ROWS[row + 1 :]))
    for name in module.imports():
        top = name.partition(".")[0]
        room = PACKAGES.get(top, top)
        if room in ROOMS | {"tests"} and room != module.room and room not in below:
            yield f"imports {name}"


def leaves_libraries_to_their_owners(module: Module) -> Iterator[str]:
    if module.room == "bench":
        return
    for name in module.imports():
        owners = OWNERS.get(name.partition(".")[0])
        if owners is not None and not module.is_in(owners | {"tests"}):
            yield f"imports {name}, which only {', '.join(sorted(owners))} may"


def leaves_a_jobs_status_to_states(module: Module) -> Iterator[str]:
    """Assignment, values(status=...), update({...}), Job(status=...), SQL: in every module that knows the tables."""
    knows = any(name.partition(".")[0] in ("models", "sqlalchemy") for name in module.imports())
    if not knows or module.room in ("tests", "bench", "migrations", "models") or module.path == "jobs/states.py":
        return
    for node in ast.walk(module.tree):
        if _writes_status(node):
            yield f"line {node.lineno} writes a status"  # type: ignore[attr-defined]


def _writes_status(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="status", ctx=ast.Store()):
            return True
        case ast.Call(func=ast.Name("setattr"), args=[_, ast.Constant("status"), *_]):
            return True
        case ast.Call(func=ast.Attribute(attr="values" | "update") | ast.Name("Job"), args=args, keywords=keywords):
            keys = [key for arg in args if isinstance(arg, ast.Dict) for key in arg.keys]
            return any(word.arg == "status" for word in keywords) or any(map(_is_status, keys))
        case ast.Constant(str(text)):
            return WRITES_STATUS_IN_SQL.search(text) is not None
    return False


def _is_status(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant | ast.Attribute) and "status" in (
        getattr(key, "value", 0),
        getattr(key, "attr", 0),
    )


def leaves_the_environment_to_config(module: Module) -> Iterator[str]:
    if module.is_in(READS_THE_ENVIRONMENT):
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name("os"), attr="environ" | "environb" | "getenv" | "putenv" as name):
                yield f"line {node.lineno} reads os.{name}"
            case ast.ImportFrom(module="os", names=names) if {"environ", "getenv"} & {alias.name for alias in names}:
                yield f"line {node.lineno} imports the environment"


def has_a_name_that_says_something(module: Module) -> Iterator[str]:
    if module.room == "bench":  # there, a service is what is measured
        return
    yield from (f"is called {part}" for part in module.path.removesuffix(".py").split("/") if part in VAGUE)


def opens_with_what_it_owns(module: Module) -> Iterator[str]:
    if module.room in ("tests", "migrations") or module.path in DRAWS_A_TREE:
        return
    lines = len((ast.get_docstring(module.tree) or "").splitlines())
    if not 0 < lines <= LONGEST_DOCSTRING:
        yield f"has a docstring of {lines} lines, not 1 to {LONGEST_DOCSTRING}"


def is_short(module: Module) -> Iterator[str]:
    if (lines := len(module.text.splitlines())) > LONGEST_FILE:
        yield f"has {lines} lines"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > LONGEST_FUNCTION and module.room != "migrations":
                yield f"{node.name}() has {lines} lines"


def leaves_nothing_to_do(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), start=1):
        if re.search(r"\b(TOD[O]|FIXM[E]|XX[X])\b", line):
            yield f"line {number} leaves something to do"


Rule = Callable[[Module], Iterator[str]]
BROKEN: list[tuple[Rule, str, str]] = [
    (imports_only_rows_below, "jobs/read.py", "from api.schemas import JobView"),
    (imports_only_rows_below, "jobs/read.py", "def f():\n    import tasks"),
    (imports_only_rows_below, "audio/probe.py", "from engines import Engine"),
    (imports_only_rows_below, "app.py", "import worker"),
    (imports_only_rows_below, "client/http.py", "from config import Settings"),
    (imports_only_rows_below, "api/jobs.py", "from transcribe_client.wording import plain"),
    (imports_only_rows_below, "stack/home.py", "import errors"),
    (imports_only_rows_below, "formats.py", "import models"),
    (imports_only_rows_below, "relay.py", "from tests.checker import x"),
    (imports_only_rows_below, "attic.py", "import json"),
    (leaves_libraries_to_their_owners, "audio/vad.py", "from faster_whisper.vad import get_vad_model"),
    (leaves_libraries_to_their_owners, "storage/local.py", "import boto3.session"),
    (leaves_libraries_to_their_owners, "jobs/sweep.py", "from celery import Celery"),
    (leaves_libraries_to_their_owners, "tasks.py", "import subprocess"),
    (leaves_a_jobs_status_to_states, "jobs/read.py", "from models import Job\njob.status = 'failed'"),
    (leaves_a_jobs_status_to_states, "jobs/read.py", "import models\nupdate(Job).where(x).values(status='failed')"),
    (leaves_a_jobs_status_to_states, "jobs/read.py", "import models\nupdate(Job).values({'status': 'failed'})"),
    (leaves_a_jobs_status_to_states, "jobs/read.py", "import models\nupdate(Job).values({Job.status: 'failed'})"),
    (leaves_a_jobs_status_to_states, "jobs/submit.py", "import models\nJob(status='failed')"),
    (leaves_a_jobs_status_to_states, "admin.py", "import sqlalchemy\ntext('UPDATE transcription_jobs SET status = 1')"),
    (leaves_a_jobs_status_to_states, "admin.py", "import models\nsetattr(job, 'status', 1)"),
    (leaves_the_environment_to_config, "relay.py", "import os\nx = os.environ['HOME']"),
    (leaves_the_environment_to_config, "relay.py", "import os\nx = os.getenv('HOME')"),
    (leaves_the_environment_to_config, "relay.py", "from os import environ"),
    (leaves_the_environment_to_config, "client/transcribe_client/api.py", "import os\nx = os.environ['HOME']"),
    (has_a_name_that_says_something, "api/helpers.py", ""),
    (has_a_name_that_says_something, "core/jobs.py", ""),
    (opens_with_what_it_owns, "jobs/read.py", "import os"),
    (opens_with_what_it_owns, "jobs/read.py", '"""1\n2\n3\n4\n5\n6"""'),
    (is_short, "jobs/read.py", "\n" * 401),
    (is_short, "jobs/read.py", "def f():\n" + "    x\n" * 60),
    (leaves_nothing_to_do, "jobs/read.py", "# TOD\x4f: later"),
]
FINE: list[tuple[Rule, str, str]] = [
    (
        imports_only_rows_below,
        "jobs/read.py",
        "from models import Job\nfrom jobs.states import move\nimport errors, json",
    ),
    (imports_only_rows_below, "relay.py", "import tasks"),
    (imports_only_rows_below, "client/transcribe_client/run.py", "from transcribe_client.api import Api\nimport httpx"),
    (leaves_libraries_to_their_owners, "client/transcribe_client/api.py", "import httpx"),
    (leaves_libraries_to_their_owners, "engines/whisper.py", "import faster_whisper"),
    (leaves_a_jobs_status_to_states, "jobs/states.py", "import models\nupdate(Job).values(status=to)"),
    (leaves_a_jobs_status_to_states, "api/jobs.py", "import models\nif job.status == 1: View(status=job.status)"),
    (leaves_a_jobs_status_to_states, "client/http.py", "self.status = 200"),
    (leaves_the_environment_to_config, "config.py", "import os\nos.environ.update(x)"),
    (leaves_the_environment_to_config, "client/transcribe_client/settings.py", "import os\nx = os.environ.get('X')"),
    (opens_with_what_it_owns, "jobs/read.py", '"""1\n2\n3\n4\n5"""'),
    (is_short, "jobs/read.py", "def f():\n" + "    x\n" * 59 + "\n" * 340),
]
RULES = list(dict.fromkeys(rule for rule, _, _ in BROKEN))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module(rule: Rule) -> None:
    complaints = [f"{module.path} {complaint}" for module in our_modules() for complaint in rule(module)]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_a_rule_sees_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Module.of(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), FINE)
def test_a_rule_lets_pass_what_keeps_it(rule: Rule, path: str, text: str) -> None:
    assert not list(rule(Module.of(path, text)))


@pytest.mark.parametrize(("process", "kept_out"), [("app", HEAVY), ("relay", HEAVY), ("worker", {"fastapi"})])
def test_a_process_starts_without_the_libraries_of_others(process: str, kept_out: set[str]) -> None:
    """In a fresh interpreter: this one has loaded everything."""
    if not (ROOT / f"{process}.py").exists():
        pytest.skip(f"{process}.py is not written yet")
    assert loaded_by(f"import {process}", kept_out) == []


def test_the_check_of_what_a_process_loads_sees_a_loaded_library() -> None:
    assert loaded_by("import numpy", {"numpy", "av"}) == ["numpy"]


def loaded_by(statement: str, watched: set[str]) -> list[str]:
    code = f"{statement}; import sys; print(*sorted({watched!r} & sys.modules.keys()))"
    done = subprocess.run(
        (sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
