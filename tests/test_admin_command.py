"""`python -m admin`: real processes, as an operator runs them, beside a real API and beside a real stack."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

import config
from access.gate import REMEMBERED_S
from admin.__main__ import main
from config import Settings, adopt_running_stack
from stack.home import Home
from stack.postgres import Postgres
from stack.running import Stack
from tests.api_client import rows
from tests.callers import bearer, serving
from tests.conftest import migrate
from tests.processes import until

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    told = {name.upper(): str(value) for name, value in settings.items()}
    return subprocess.run(
        (sys.executable, "-m", "admin", *arguments),
        cwd=ROOT,
        env=os.environ | told,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def done(*arguments: str, **settings: object) -> str:
    process = run(*arguments, **settings)
    assert (process.returncode, "Traceback" in process.stderr) == (0, False), process.stderr
    return process.stdout


def refused(*arguments: str, code: int = 1, **settings: object) -> str:
    """What it says; one thing, to a person."""
    process = run(*arguments, **settings)
    assert (process.returncode, process.stdout) == (code, ""), process
    assert "Traceback" not in process.stderr
    return process.stderr


def test_a_key_works_over_http_until_it_is_revoked(settings: Settings, data_dir: Path) -> None:
    with serving(data_dir / "api.log") as url:

        def status(header: dict[str, str]) -> int:
            return httpx.get(f"{url}/jobs/", headers=header).status_code

        assert status({}) == 200
        key = done("keys", "create", "newsroom").strip()
        assert (key.startswith("tk_"), status(bearer(key))) == (True, 200)
        until(lambda: status({}) == 401, within_s=REMEMBERED_S + 2)
        (row,) = json.loads(done("keys", "list", "--json"))
        done("keys", "revoke", row["id"])
        until(lambda: status(bearer(key)) == 401, within_s=REMEMBERED_S + 2)


def test_only_the_key_itself_goes_to_stdout(settings: Settings) -> None:
    """For KEY=$(python -m admin keys create NAME)."""
    process = run("keys", "create", "newsroom")
    assert len(process.stdout.splitlines()) == 1
    ((key_id,),) = rows("SELECT id FROM api_keys")
    assert str(key_id) in process.stderr
    assert process.stdout.strip() not in process.stderr


def test_every_limit_can_be_given(settings: Settings) -> None:
    limits = ("--rate-limit", "60", "--waiting-jobs", "5", "--audio-hours", "1.5", "--delete-after", "3600")
    made = json.loads(done("keys", "create", "ada", "--role", "admin", "--expires", "90d", *limits, "--json"))
    assert (made["name"], made["role"], made["state"], made["key"][:8]) == ("ada", "admin", "active", made["hint"])
    assert rows(
        "SELECT rate_limit_per_minute, quota_waiting_jobs, quota_audio_hours_per_day, delete_after_s FROM api_keys"
    ) == [(60, 5, 1.5, 3600)]
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < left < timedelta(days=90)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("2099-01-31", "2099-01-31T00:00:00+00:00"), ("2099-01-31T10:00:00+02:00", "2099-01-31T08:00:00+00:00")],
)
def test_an_expiry_can_be_a_date(settings: Settings, given: str, kept: str) -> None:
    done("keys", "create", "ada", "--expires", given)
    (row,) = json.loads(done("keys", "list", "--json"))
    assert row["expires_at"] == kept


def test_a_list_is_for_people_and_shows_no_key(settings: Settings) -> None:
    key = done("keys", "create", "newsroom").strip()
    shown = done("keys", "list")
    (row,) = json.loads(done("keys", "list", "--json"))
    header, line = shown.splitlines()
    assert header.split()[:5] == ["ID", "NAME", "ROLE", "KEY", "STATE"]
    assert line.split()[:6] == [row["id"], "newsroom", "user", key[:8], "active", "never"]
    assert key not in shown
    done("keys", "revoke", row["id"])
    assert "revoked" in done("keys", "list")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "GROUP"),
        (("keys",), "COMMAND"),
        (("keys", "revoke", "not-an-id"), "invalid UUID value: 'not-an-id'"),
        (("keys", "create"), "NAME"),
        (("keys", "create", "ada", "--role", "root"), "invalid choice: 'root'"),
        (("keys", "create", "ada", "--expires", "soon"), "expected a span such as 90d"),
        (("keys", "create", "ada", "--rate-limit", "many"), "invalid int value: 'many'"),
    ],
)
def test_wrong_arguments_are_code_2_and_the_usage(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert said in told.err
    assert told.err.startswith("usage: python -m admin")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("keys", "revoke", str(uuid4())), "There is no key with this id"),
        (("keys", "create", ""), "name: expected 1 to 255 characters"),
        (("keys", "create", "ada", "--expires", "9999-12-31"), "within the next 100 years"),
        (("keys", "create", "ada", "--audio-hours", "nan"), "quota_audio_hours_per_day: expected 0 to 1000000"),
    ],
)
def test_what_cannot_be_done_is_code_1_and_one_line(settings: Settings, arguments: tuple[str, ...], said: str) -> None:
    told = refused(*arguments)
    assert said in told
    assert len(told.splitlines()) == 1
    assert rows("SELECT count(*) FROM api_keys") == [(0,)]


def test_a_database_that_is_away_is_said_in_one_line(settings: Settings) -> None:
    told = refused("keys", "list", database_url="postgresql://postgres@127.0.0.1:1/gone")
    assert told == "The database is away or too slow. Try again in a few seconds.\n"


def test_a_database_without_tables_is_said_in_one_line(settings: Settings, empty_database_url: str) -> None:
    told = refused("keys", "list", database_url=empty_database_url)
    assert "other tables than this version needs" in told
    assert len(told.splitlines()) == 1


def test_wrong_settings_are_said_in_one_line(settings: Settings) -> None:
    told = refused("keys", "list", secret_key="short")
    assert told.startswith("Settings are wrong:")
    assert "SECRET_KEY is too weak" in told


def test_without_a_stack_and_without_settings_it_says_what_to_do(
    configure: Callable[..., Settings], data_dir: Path
) -> None:
    configure(data_dir=data_dir)
    assert refused("keys", "list") == "DATABASE_URL is not set. Set it, or start everything with `make run`.\n"


def test_only_what_the_settings_leave_open_is_taken_from_the_stack(
    configure: Callable[..., Settings], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Home(data_dir).tell_servers("postgresql://stack/x?a=b", "redis://stack/0")
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.setenv(name, "")  # also put back after this test
    configure(data_dir=data_dir, database_url="postgresql://mine/x", redis_url="")
    adopt_running_stack()
    adopted = config.get_settings()
    assert (adopted.database_url, adopted.redis_url.get_secret_value()) == ("postgresql://mine/x", "redis://stack/0")
    configure(data_dir=data_dir, database_url="", redis_url="redis://mine/0")
    adopt_running_stack()
    adopted = config.get_settings()
    assert (adopted.database_url, adopted.redis_url.get_secret_value()) == (
        "postgresql://stack/x?a=b",
        "redis://mine/0",
    )


def test_the_addresses_are_for_nobody_elses_eyes_and_go_with_the_stack(data_dir: Path) -> None:
    home = Home(data_dir)
    home.tell_servers("postgresql://a", "redis://b")
    told = data_dir / "secrets" / "servers.env"
    assert (told.stat().st_mode & 0o777, told.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    home.forget_servers()
    home.forget_servers()
    assert list(told.parent.iterdir()) == []


def test_beside_an_embedded_database_it_needs_no_setting(
    configure: Callable[..., Settings], data_dir: Path, template: str
) -> None:
    home = Home(data_dir)
    configure(data_dir=data_dir)
    with Postgres(home, durable=False) as server:
        migrate(server.url)
        home.tell_servers(server.url, "")
        key = done("keys", "create", "newsroom").strip()
        (row,) = json.loads(done("keys", "list", "--json"))
    assert row["hint"] == key[:8]


def test_beside_a_whole_stack_it_needs_no_setting_and_has_the_same_secret(
    configure: Callable[..., Settings], data_dir: Path
) -> None:
    """Made on the command line, the key fits the API: both derive with one secret, in the stack's own folder."""
    configure(data_dir=data_dir)
    with Stack(data_dir, engine="fake") as stack:
        key = done("keys", "create", "newsroom").strip()
        until(lambda: httpx.get(f"{stack.url}/jobs/").status_code == 401, within_s=REMEMBERED_S + 2)
        assert httpx.get(f"{stack.url}/jobs/", headers=bearer(key)).status_code == 200
        until(lambda: run("doctor").returncode == 0, within_s=60)  # once every worker has signed in
    assert not (data_dir / "secrets" / "servers.env").exists()
    assert "DATABASE_URL is not set" in refused("keys", "list")
