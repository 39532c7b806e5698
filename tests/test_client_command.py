"""The command `transcribe` without a service: its help, its settings, its exit codes, what it is made of."""

import ast
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from stack.home import free_port
from tests.client_play import Person, hush
from tests.conftest import ROOT

CLIENT = ROOT / "client"
COMMANDS = (
    "submit",
    "watch",
    "status",
    "list",
    "cancel",
    "result",
    "health",
    "config",
    "errors list",
    "errors show",
    "errors replay",
    "errors resolve",
)


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path, f"http://127.0.0.1:{free_port()}")


def configured(person: Person, text: str) -> Path:
    path = person.home / ".config" / "transcribe" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def held(person: Person, *options: str, **environment: str) -> dict[str, str]:
    """Each setting, and where it is from."""
    done = person.runs("config", "--json", *options, environment=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return {name: f"{told[name]['value']} from {told[name]['source']}" for name in ("server", "key")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(person: Person, name: str) -> None:
    done = person.runs(*name.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"$ transcribe {name}" in done.stdout


def test_no_command_is_missing_from_the_help_and_every_exit_code_is_in_it(person: Person) -> None:
    shown = person.runs("--help").stdout
    assert {name.split()[0] for name in COMMANDS} <= set(shown.split())
    readme = (CLIENT / "README.md").read_text()
    for code in ("0", "1", "2", "3", "4", "130"):
        assert f"\n   {code} " in shown
        assert f"| {code} |" in readme


def test_an_option_goes_before_the_environment_that_before_the_file_that_before_the_default(person: Person) -> None:
    nobody = Person(person.home, "")
    assert held(nobody) == {"server": "http://127.0.0.1:8000 from default", "key": " from not set"}
    file = configured(person, 'server = "http://file:1"\nkey = "tk_file567890123456"\n[submit]\nlanguage = "de"\n')
    assert held(nobody) == {"server": f"http://file:1 from {file}", "key": f"tk_…3456 from {file}"}
    told = {"TRANSCRIBE_SERVER": "http://environment:2", "TRANSCRIBE_KEY": "short"}
    assert held(nobody, **told) == {
        "server": "http://environment:2 from TRANSCRIBE_SERVER",
        "key": "… from TRANSCRIBE_KEY",
    }
    options = ("--server", "https://option:3/", "--key", "tk_option890123456xyz")
    assert held(nobody, *options, **told) == {
        "server": "https://option:3 from --server",
        "key": "tk_…6xyz from --key",
    }
    other = person.home / "other.toml"
    other.write_text('server = "http://other:4"')
    assert held(nobody, TRANSCRIBE_CONFIG=str(other))["server"] == f"http://other:4 from {other}"
    assert (
        person.runs("--config", other, "config", environment={"TRANSCRIBE_SERVER": "http://x:5"}).stdout.count(
            "http://x:5"
        )
        == 1
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server = 7", "must be a text in quotes"),
        ('sever = "x"', "'sever' that is unknown"),
        ("[submit]\nmodelsize = 'tiny'", "'modelsize' that is unknown"),
        ("[submit]\nformat = 'docx'", "'docx' is unknown"),
        ("[submit]\nbeam_size = 'wide'", "beam"),
        ("[submit", "cannot be read"),
    ],
)
def test_a_bad_configuration_file_is_refused_with_what_is_wrong(person: Person, text: str, said: str) -> None:
    configured(person, text)
    done = person.runs("submit", hush(person.home / "a.wav"))
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nothing.wav",),
        ("*.wav",),
        (".",),
        ("a.mp3", "--name", "x"),
        ("a.mp3", "--delete-after", "soon"),
        ("a.mp3", "-m", "novalue"),
        ("a.mp3", "-m", "{broken"),
        ("a.mp3", "--beam-size", "11"),
        ("a.mp3", "-f", "docx"),
        ("a.mp3", "-f", "srt", "--max-line-width", "9"),
        ("a.mp3", "-f", "srt", "--max-line-count", "2"),
        ("a.mp3", "-f", "srt", "--max-line-width", "42", "--max-words-per-line", "3"),
        ("a.mp3", "-f", "vtt", "--highlight-words", "--word-level"),
        ("a.mp3", "-f", "srt", "--highlight-words", "--no-word-timestamps"),
        ("a.mp3", "--server", "nonsense"),
    ],
)
def test_what_is_not_understood_is_said_before_the_service_is_asked(person: Person, arguments: tuple[str, ...]) -> None:
    (person.home / "a.mp3").touch()
    done = person.runs("submit", *(arguments if arguments != (".",) else ("empty",)))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr


@pytest.mark.parametrize("command", [("list",), ("submit", "a.wav", "--wait"), ("health",), ("watch", ".")])
def test_where_no_service_is_the_next_step_is_said(person: Person, command: tuple[str, ...]) -> None:
    hush(person.home / "a.wav")
    done = person.runs(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{person.server} cannot be reached" in done.stderr
    assert "Is it running? `make run`" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in person.runs(*command, "--verbose").stderr


def test_a_key_over_plain_http_is_warned_of_except_on_this_machine(person: Person) -> None:
    far, key = "http://192.0.2.1.invalid:1", "tk_secret"
    assert "goes unencrypted" in Person(person.home, far, key).runs("list").stderr
    for server, shown in ((far, ""), ("https://192.0.2.1.invalid:1", key), (person.server, key)):
        assert "unencrypted" not in Person(person.home, server, shown).runs("list").stderr
    assert key not in Person(person.home, far, key).runs("list", "--verbose").stderr


def test_the_version_is_that_of_the_package(person: Person) -> None:
    expected = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["version"]
    assert person.runs("--version").stdout == f"transcribe {expected}\n"


def test_the_shell_completes_jobs_that_this_machine_has_submitted(person: Person) -> None:
    state = person.home / ".local" / "state" / "transcribe" / "jobs.jsonl"
    state.parent.mkdir(parents=True)
    state.write_text('{"key": "k", "job": "6f9619ff-8b86", "name": "a.wav"}\nhalf a li')
    asked = {"_TRANSCRIBE_COMPLETE": "complete_bash", "COMP_WORDS": "transcribe status 6f", "COMP_CWORD": "2"}
    assert person.runs(environment=asked).stdout.strip() == "6f9619ff-8b86"
    assert "complete" in person.runs("--show-completion", "bash").stdout


def test_a_wheel_holds_all_of_it_and_needs_nothing_of_ours(tmp_path: Path) -> None:
    command = ("pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-build-isolation", "--no-deps")
    built = subprocess.run(
        (sys.executable, "-m", *command, "--wheel-dir", tmp_path, CLIENT), capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    sources = sorted((tmp_path / "unpacked" / "transcribe_client").glob("*.py"))
    assert [path.name for path in sources] == sorted(path.name for path in (CLIENT / "transcribe_client").glob("*.py"))
    allowed = {"transcribe_client", "typer", "rich", "httpx", "platformdirs"} | sys.stdlib_module_names
    assert {name for path in sources for name in imported(path)} <= allowed
    help_of_it = (sys.executable, "-c", "from transcribe_client.main import app; app()", "--help")
    done = subprocess.run(
        help_of_it, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "unpacked")}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}
