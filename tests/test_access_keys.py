"""Keys: who is let in, for how long, and that no key can be read anywhere."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg2
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import make_url

import errors
from access import gate as gate_module
from access import secret
from access.gate import Gate
from app import create_app
from config import Settings
from tests.api_client import WAV, rows
from tests.callers import bearer, key_of, make_key, revoke, serving
from tests.processes import until

ROOT = Path(__file__).parents[1]
OPERATORS = "correct-horse-battery"


@pytest.fixture
def admin(client: TestClient, settings: Settings) -> dict[str, str]:
    return key_of(settings, "boss", role="admin")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is remembered: each request is looked up."""
    monkeypatch.setattr(gate_module, "REMEMBERED_S", 0.0)


def status(client: TestClient, header: dict[str, str] | None = None) -> int:
    return client.get("/jobs/", headers=header or {}).status_code


@pytest.mark.usefixtures("at_once")
def test_on_loopback_the_api_is_open_until_the_first_key_is_made(client: TestClient, settings: Settings) -> None:
    assert status(client) == 200
    assert status(client, bearer("sk-left-over-from-another-service")) == 200
    key_id, token = make_key(settings)
    assert status(client) == 401
    assert status(client, bearer("sk-left-over-from-another-service")) == 401
    assert status(client, bearer(token)) == 200
    revoke(key_id)
    assert status(client) == 401  # taking the last key away does not open the door again


def test_a_first_key_made_over_http_closes_the_door_at_once(client: TestClient) -> None:
    assert status(client) == 200
    made = client.post("/admin/keys", json={"name": "first"})
    assert made.status_code == 201
    assert status(client) == 401
    assert status(client, bearer(made.json()["key"])) == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_an_api_that_others_reach_is_never_open(settings: Settings, host: str) -> None:
    with TestClient(create_app(settings.model_copy(update={"host": host}))) as client:
        assert status(client) == 401
        assert status(client, bearer("anything")) == 401


def test_a_refusal_says_how_to_show_a_key(client: TestClient, admin: dict[str, str]) -> None:
    for header in ({}, bearer("wrong"), {"X-API-Key": "wrong"}, {"Authorization": "Basic d3Jvbmc6"}):
        refused = client.get("/jobs/", headers=header)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["code"] == "unauthorized"
    assert "Authorization: Bearer KEY" in client.get("/jobs/").json()["detail"]


def test_a_key_comes_in_either_header_and_in_any_spelling_of_bearer(client: TestClient, admin: dict[str, str]) -> None:
    token = admin["Authorization"].removeprefix("Bearer ")
    for header in ({"X-API-Key": token}, {"authorization": f"bearer {token}"}, {"Authorization": f"BEARER  {token} "}):
        assert status(client, header) == 200


def test_a_tool_that_knows_only_an_address_has_its_key_in_it(client: TestClient, admin: dict[str, str]) -> None:
    token = admin["Authorization"].removeprefix("Bearer ")
    for user, password in (("any", token), (token, ""), ("", token)):
        assert client.get("/jobs/", auth=(user, password)).status_code == 200
    assert client.get("/jobs/", auth=("any", "wrong")).status_code == 401
    assert client.get("/jobs/", auth=("of", "a proxy"), headers={"X-API-Key": token}).status_code == 200
    for broken in ("Basic", "Basic %%%", "Basic /w==", "Basic YQ"):
        assert status(client, {"Authorization": broken}) == 401


@pytest.mark.usefixtures("at_once")
def test_expired_and_revoked_keys_are_refused(client: TestClient, settings: Settings) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    _, expiring = make_key(settings, expires_at=soon)
    revoked_id, revoked = make_key(settings)
    assert (status(client, bearer(expiring)), status(client, bearer(revoked))) == (200, 200)
    revoke(revoked_id)
    assert status(client, bearer(revoked)) == 401
    until(lambda: status(client, bearer(expiring)) == 401, within_s=3)


def test_nobody_is_remembered_beyond_the_end_of_their_key(settings: Settings) -> None:
    _, token = make_key(settings, expires_at=datetime.now(UTC) + timedelta(seconds=0.5))
    gate = Gate(settings)
    assert gate.admit(token).role == "user"
    until(lambda: gate.recall(token) is None, within_s=2)  # REMEMBERED_S is 5
    with pytest.raises(errors.Unauthorized):
        gate.admit(token)


def test_a_revoked_key_is_forgotten_within_the_promised_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "REMEMBERED_S", 0.3)
    key_id, token = make_key(settings)
    gate = Gate(settings)
    gate.admit(token)
    revoke(key_id)
    assert gate.recall(token) is not None  # the price of asking the database once, not with every request
    until(lambda: gate.recall(token) is None, within_s=2)
    with pytest.raises(errors.Unauthorized, match="revoked"):
        gate.admit(token)


def test_a_gate_remembers_a_bounded_number_of_callers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "REMEMBERED_AT_MOST", 3)
    gate = Gate(settings)
    for number in range(10):
        gate.admit(f"sk-{number}")
    assert len(gate._known) == 3


def test_a_gate_holds_no_token_in_memory(settings: Settings) -> None:
    _, token = make_key(settings)
    gate = Gate(settings)
    gate.admit(token)
    assert token not in repr(gate._known)


def test_only_an_hmac_of_a_key_is_stored_anywhere(client: TestClient, settings: Settings, data_dir: Path) -> None:
    _, token = make_key(settings, role="admin")
    client.post("/transcribe/", files={"file": ("talk.wav", WAV)}, headers=bearer(token))
    assert client.get("/admin/keys", headers=bearer(token)).status_code == 200
    dumped = "\n".join(every_row(settings))
    assert token not in dumped
    assert token[10:] not in dumped
    ((hmac, hint),) = rows("SELECT hmac, hint FROM api_keys")
    assert (len(hmac), hint) == (64, token[:8])
    assert not any(token.encode() in path.read_bytes() for path in data_dir.rglob("*") if path.is_file())


def every_row(settings: Settings) -> Iterator[str]:
    url = make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
            tables = [name for (name,) in cursor.fetchall()]
            assert "api_keys" in tables
            for table in tables:
                cursor.execute(f'SELECT t::text FROM "{table}" AS t')  # noqa: S608
                yield from (row for (row,) in cursor.fetchall())
    finally:
        connection.close()


def test_a_key_is_worth_nothing_to_who_has_the_database_but_not_the_secret(settings: Settings) -> None:
    _, token = make_key(settings)
    thief = settings.model_copy(update={"secret_key": Settings(secret_key="another-secret-0123456").secret_key})
    with pytest.raises(errors.Unauthorized):
        Gate(thief).admit(token)


def test_last_used_at_is_kept_to_the_minute(client: TestClient, settings: Settings, admin: dict[str, str]) -> None:
    (before,) = client.get("/admin/keys", headers=admin).json()["data"]
    assert before["last_used_at"] is not None
    for _ in range(3):
        client.app.state.gate.forget()  # type: ignore[attr-defined]
        assert status(client, admin) == 200
    (after,) = client.get("/admin/keys", headers=admin).json()["data"]
    assert after["last_used_at"] == before["last_used_at"]  # not a write a request


def test_the_operators_key_is_an_admin_and_needs_no_database(settings: Settings) -> None:
    with_key = settings.model_copy(update={"api_key": Settings(api_key=OPERATORS).api_key, "host": "0.0.0.0"})
    with TestClient(create_app(with_key), base_url="http://127.0.0.1") as client:
        assert client.get("/admin/keys", headers=bearer(OPERATORS)).status_code == 200
        assert status(client) == 401
        _, token = make_key(settings)
        assert status(client, bearer(token)) == 200
    gate = Gate(with_key)
    caller = gate.recall(OPERATORS)
    assert caller is not None
    assert caller.is_admin
    assert gate.recall(OPERATORS[:-1]) is None


@pytest.mark.parametrize(
    "weak",
    ["short", "a" * 40, "abababababababababab", "password-password-1", "ChangeMe-ChangeMe-1", "my-example-key-2026"],
)
@pytest.mark.parametrize("name", ["api_key", "secret_key"])
def test_a_secret_that_can_be_guessed_is_refused_at_start(name: str, weak: str) -> None:
    values: dict[str, Any] = {name: weak}
    with pytest.raises(ValidationError, match=f"{name.upper()} is too weak"):
        Settings(**values)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "nul\0"}, "name"),
        ({"name": "half \ud800"}, "name"),
        ({"name": "line\nbreak"}, "name"),
        ({"name": "n" * 256}, "name"),
        ({"role": "root"}, "role"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": 10**30}, "expires_at"),
        ({"rate_limit_per_minute": -1}, "rate_limit_per_minute"),
        ({"rate_limit_per_minute": 2**31}, "rate_limit_per_minute"),
        ({"quota_waiting_jobs": 10**30}, "quota_waiting_jobs"),
        ({"quota_audio_hours_per_day": 1e300}, "quota_audio_hours_per_day"),
        ({"quota_audio_hours_per_day": "nan"}, "quota_audio_hours_per_day"),
        ({"delete_after_seconds": 0}, "delete_after_seconds"),
        ({"delete_after_seconds": 10**12}, "delete_after_seconds"),
        ({"key": "my-own"}, "key"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_the_field(client: TestClient, wanted: dict[str, Any], field: str) -> None:
    body = {"name": "somebody"} | wanted
    refused = client.post("/admin/keys", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert refused.status_code == 422
    assert field in [problem["field"] for problem in refused.json()["errors"]]
    assert rows("SELECT count(*) FROM api_keys") == [(0,)]


def test_a_key_carries_its_own_limits_and_life(client: TestClient, admin: dict[str, str]) -> None:
    wanted = {
        "name": "Nachrichten ü", "role": "user", "expires_at": "2099-01-31T00:00:00Z", "rate_limit_per_minute": 0,
        "quota_waiting_jobs": 5, "quota_audio_hours_per_day": 1.5, "delete_after_seconds": 3600,
    }  # fmt: skip
    made = client.post("/admin/keys", json=wanted, headers=admin)
    assert made.status_code == 201
    key = made.json()
    assert {name: key[name] for name in wanted} == wanted
    assert (key["state"], key["key"][:8]) == ("active", key["hint"])
    caller = client.app.state.gate.admit(key["key"])  # type: ignore[attr-defined]
    assert (caller.owner, caller.name) == (f"key:{key['id']}", "Nachrichten ü")
    assert (caller.quota_waiting_jobs, caller.quota_audio_s_per_day, caller.delete_after_s) == (5, 5400, 3600)


def test_what_a_key_leaves_open_the_settings_say(configure: Callable[..., Settings], settings: Settings) -> None:
    limited = configure(rate_limit_per_minute=7, quota_waiting_jobs=8, quota_audio_hours_per_day=2)
    gate = Gate(limited)
    told = gate.admit(make_key(limited)[1])
    assert (told.rate_limit_per_minute, told.quota_waiting_jobs, told.quota_audio_s_per_day) == (7, 8, 7200)
    free = gate.admit(make_key(limited, rate_limit_per_minute=0, quota_waiting_jobs=0)[1])
    assert (free.rate_limit_per_minute, free.quota_waiting_jobs) == (0, 0)


def test_a_list_shows_every_key_but_never_the_key_itself(client: TestClient, admin: dict[str, str]) -> None:
    made = client.post("/admin/keys", json={"name": "second"}, headers=admin).json()
    answer = client.get("/admin/keys", headers=admin)
    assert [key["name"] for key in answer.json()["data"]] == ["second", "boss"]
    assert made["key"] not in answer.text
    assert not {"key", "hmac"} & answer.json()["data"][0].keys()


def test_a_key_is_revoked_over_http_at_once_and_twice_does_no_harm(client: TestClient, admin: dict[str, str]) -> None:
    made = client.post("/admin/keys", json={"name": "leaver"}, headers=admin).json()
    assert status(client, bearer(made["key"])) == 200
    assert client.delete(f"/admin/keys/{made['id']}", headers=admin).status_code == 204
    assert status(client, bearer(made["key"])) == 401
    first = client.get("/admin/keys", headers=admin).json()["data"][0]
    assert client.delete(f"/admin/keys/{made['id']}", headers=admin).status_code == 204
    again = client.get("/admin/keys", headers=admin).json()["data"][0]
    assert (again["state"], again["revoked_at"]) == ("revoked", first["revoked_at"])
    assert client.delete(f"/admin/keys/{uuid4()}", headers=admin).status_code == 404
    assert client.delete("/admin/keys/not-an-id", headers=admin).status_code == 422


def test_without_the_database_a_known_caller_is_known_and_others_hear_503(
    configure: Callable[..., Settings], settings: Settings
) -> None:
    gate = Gate(settings)
    _, token = make_key(settings)
    gate.admit(token)
    configure(database_url="postgresql://postgres@127.0.0.1:1/gone")
    assert gate.recall(token) is not None
    with pytest.raises(errors.Unavailable):
        gate.admit("tk_unknown")


def test_processes_that_start_at_once_share_one_secret(settings: Settings, data_dir: Path) -> None:
    code = "import config; from access.secret import derive; print(derive(config.get_settings(), 'p', 't').hex())"
    started = [
        subprocess.Popen((sys.executable, "-c", code), cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    told = {process.communicate(timeout=30)[0].strip() for process in started}
    assert told == {secret.derive(settings, "p", "t").hex()}
    kept = data_dir / "secrets" / "secret_key"
    assert (kept.stat().st_mode & 0o777, len(kept.read_text())) == (0o600, 64)
    assert [path.name for path in kept.parent.iterdir()] == ["secret_key"]  # no draft is left


def test_a_secret_that_was_emptied_is_not_used(settings: Settings, data_dir: Path) -> None:
    _, token = make_key(settings)
    (data_dir / "secrets" / "secret_key").write_bytes(b"")
    with pytest.raises(errors.Unavailable, match="secret_key is damaged"):
        Gate(settings).admit(token)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_a_secret_that_root_makes_belongs_to_the_owner_of_the_folder(settings: Settings, data_dir: Path) -> None:
    os.chown(data_dir, 4711, 4712)
    secret.derive(settings, "p", "t")
    kept = data_dir / "secrets" / "secret_key"
    assert [(path.stat().st_uid, path.stat().st_gid) for path in (kept, kept.parent)] == [(4711, 4712)] * 2


def test_an_api_that_others_reach_does_not_start_without_a_key(settings: Settings) -> None:
    done = subprocess.run(
        (sys.executable, "app.py"),
        cwd=ROOT,
        env=os.environ | {"HOST": "0.0.0.0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "HOST=0.0.0.0 is open to others" in done.stderr
    assert "python -m admin keys create NAME" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_api_that_others_reach_starts_with_a_key_in_the_database(settings: Settings, data_dir: Path) -> None:
    header = key_of(settings)
    with serving(data_dir / "api.log", host="0.0.0.0") as url:
        assert httpx.get(f"{url}/jobs/", headers=header).status_code == 200
        assert httpx.get(f"{url}/jobs/").status_code == 401


def test_a_key_may_expire_in_any_time_zone(client: TestClient) -> None:
    made = client.post("/admin/keys", json={"name": "x", "expires_at": "2099-01-31T00:00:00+23:59"})
    assert (made.status_code, made.json()["expires_at"]) == (201, "2099-01-30T00:01:00Z")


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Host": "evil.example:8000"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": ""}]
)
def test_without_a_key_no_web_page_reaches_the_service_by_way_of_a_browser_on_its_machine(
    client: TestClient, headers: dict[str, str]
) -> None:
    """Neither across sites nor by a name that leads to this machine (DNS rebinding); with a key it is no matter."""
    answer = client.get("/jobs/", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert client.get("/jobs/", headers={"Authorization": "Bearer any"} | headers).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:9000", "127.0.0.2"])
def test_without_a_key_programs_on_its_machine_are_served(client: TestClient, host: str) -> None:
    assert client.get("/jobs/", headers={"Host": host, "Sec-Fetch-Site": "same-origin"}).status_code == 200
