"""Operators steer: queues and callers are paused, jobs get another priority or time, and each job says why it waits."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

import errors
from admin.__main__ import main
from app import create_app
from config import Settings
from database import transaction
from jobs import claim, cordons, pauses, presence, read, sweep, waiting
from jobs.progress import Fence
from jobs.retry import Cause
from jobs.routing import HIGH, NORMAL, QUEUES, RETRY
from tests.admin_play import logs_put_back
from tests.api_client import WAV, rows
from tests.checker import fail, finish, job_now, many_jobs, new_job, sign_in, take


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Facts about all jobs are looked at each time; logs are as before, whatever a command has made of them."""
    monkeypatch.setattr(waiting, "FRESH_S", -1)
    with logs_put_back():
        yield


def rung(settings: Settings) -> list[UUID]:
    with transaction() as session:
        return [one.job_id for one in sweep.choose_waiting(session, settings, dict.fromkeys(QUEUES, 0))]


def paused(kind: str, name: str) -> None:
    with transaction() as session:
        pauses.pause(session, kind, name, actor="me")


def resumed(kind: str, name: str) -> None:
    with transaction() as session:
        pauses.resume(session, kind, name, actor="me")


def claimed(job_id: UUID, settings: Settings) -> bool:
    return claim.claim(job_id, claimed_by="host:1:2", settings=settings) is not None


# Pauses


@pytest.mark.parametrize(
    ("queue", "changes"), [(HIGH, {"priority": "high"}), (NORMAL, {}), (RETRY, {"retrying": True})]
)
def test_jobs_of_a_paused_queue_are_not_begun_and_go_on_at_once_when_it_is_resumed(
    database: Settings, queue: str, changes: dict[str, Any]
) -> None:
    first, second = many_jobs(2, **changes)
    assert rung(database) == [first, second]
    paused("queue", queue)
    assert not claimed(first, database), "though its doorbell was rung before"
    (third,) = many_jobs(1, waiting_s=2 * database.promote_after_seconds, **changes)
    assert rung(database) == []
    kinds: list[dict[str, Any]] = [{"priority": "high"}, {}]
    others = [many_jobs(1, **one)[0] for one in kinds if one != changes]
    assert set(rung(database)) == set(others), "other queues go on, and nothing of it is promoted to them"
    resumed("queue", queue)
    assert {first, second, third} <= set(rung(database))
    assert claimed(first, database)


def test_jobs_of_a_paused_caller_are_not_begun_and_hold_up_nobody_else(database: Settings) -> None:
    theirs = many_jobs(3, owner="key:one")
    suspect = many_jobs(1, owner="key:one", retrying=True)
    paused("caller", "key:one")
    (other,) = many_jobs(1, owner="key:two")
    assert rung(database) == [other]
    assert not claimed(theirs[0], database)
    resumed("caller", "key:one")
    assert set(rung(database)) == {*theirs, *suspect}


def test_what_runs_goes_on_through_a_pause(database: Settings) -> None:
    taken = take(new_job(), database)
    paused("queue", NORMAL)
    assert job_now(taken.job.id).status == "processing"


def test_a_pause_over_http_is_shown_logged_and_taken_back(client: TestClient) -> None:
    made = client.post("/admin/pauses", json={"queue": NORMAL, "reason": "new driver"})
    again = client.post("/admin/pauses", json={"queue": NORMAL})
    assert (made.status_code, again.json()) == (200, made.json())
    assert client.get("/admin/pauses").json() == [made.json()]
    assert [one["name"] for one in client.get("/admin/health").json()["paused"]] == [NORMAL]
    assert 'whisper_queue_paused{kind="queue"} 1.0' in client.get("/metrics").text
    assert why(client, submitted(client))[0] == "paused"
    assert client.delete("/admin/pauses", params={"queue": NORMAL}).status_code == 204
    assert client.delete("/admin/pauses", params={"queue": NORMAL}).status_code == 404
    log = client.get("/admin/audit", params={"limit": 1}).json()
    assert (log["data"][0]["action"], log["data"][0]["target"], log["has_more"]) == ("queue.resumed", NORMAL, True)
    rest = client.get("/admin/audit", params={"after": log["last_id"]}).json()["data"]
    assert [(one["action"], one["detail"]["reason"]) for one in rest] == [("queue.paused", "new driver")]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"queue": NORMAL, "caller": "a"},
        {"queue": "webhooks"},
        {"queue": "x\0"},
        {"caller": "a\0b"},
        {"caller": "\ud800"},
        {"queue": NORMAL, "reason": "\0"},
        {"queue": NORMAL, "reason": "\ud800"},
        {"queue": NORMAL, "reason": "a" * 201},
    ],
)
def test_a_pause_of_what_cannot_be_paused_is_refused(client: TestClient, wanted: dict[str, str]) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post("/admin/pauses", content=json.dumps(wanted), headers=headers).status_code == 422
    assert client.get("/admin/pauses").json() == []


@pytest.mark.parametrize("params", [{}, {"queue": "x\0"}, {"caller": "a\0b"}])
def test_what_cannot_be_paused_cannot_be_resumed(client: TestClient, params: dict[str, str]) -> None:
    assert client.delete("/admin/pauses", params=params).status_code == 422


def test_the_command_line_pauses_too(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pauses", "add", "--caller", "", "--reason", "flood"]) == 0
    assert main(["pauses", "list"]) == 0
    assert "flood" in capsys.readouterr().out
    assert main(["pauses", "remove", "--caller", ""]) == 0
    assert main(["pauses", "remove", "--caller", ""]) == 1
    assert main(["audit", "--json"]) == 0
    assert '"caller.paused"' in capsys.readouterr().out


# The audit log


def test_what_an_admin_changes_is_logged_with_the_change(client: TestClient, settings: Settings) -> None:
    key = client.post("/admin/keys", json={"name": "boss", "role": "admin"}).json()
    client.headers["X-API-Key"] = key["key"]
    job_id = UUID(submitted(client))
    fail(take(job_id, settings).fence, errors.UndecodableAudio("x"), settings, Cause.FAILURE)
    letter = client.get("/admin/errors").json()["data"][0]["id"]
    assert client.post(f"/admin/errors/{letter}/replay").status_code == 202
    assert client.post("/admin/models/tiny").status_code == 202
    seen = [(one["actor"], one["action"]) for one in client.get("/admin/audit").json()["data"]]
    assert seen == [("boss", "model.loaded"), ("boss", "error.replayed"), ("anybody", "key.created")]


def test_the_log_is_for_admins(client: TestClient) -> None:
    client.post("/admin/keys", json={"name": "boss", "role": "admin"})
    assert client.get("/admin/audit").status_code == 401


# Another priority, another time


def submitted(client: TestClient, **options: str) -> str:
    answer = client.post("/transcribe/", files={"file": ("a.wav", WAV)}, data=options)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def test_a_waiting_job_gets_another_priority(client: TestClient, settings: Settings) -> None:
    job_id = submitted(client)
    rung(settings)
    answer = client.patch(f"/transcribe/{job_id}", json={"priority": "high"})
    assert (answer.status_code, answer.json()["priority"]) == (200, "high")
    with transaction() as session:
        (bell,) = sweep.choose_waiting(session, settings, dict.fromkeys(QUEUES, 0))
    assert (str(bell.job_id), bell.queue) == (job_id, HIGH)


def test_a_job_is_not_begun_before_the_moment_it_was_submitted_for(client: TestClient, settings: Settings) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    job_id = submitted(client, run_at=moment.isoformat())
    assert rung(settings) == []
    assert not claimed(UUID(job_id), settings)
    shown = client.get(f"/transcribe/{job_id}").json()
    assert shown["waiting_for"]["code"] == "scheduled"
    assert datetime.fromisoformat(shown["next_attempt_at"]) == moment
    assert client.patch(f"/transcribe/{job_id}", json={"run_at": None}).status_code == 200
    assert [str(one) for one in rung(settings)] == [job_id]


def test_a_waiting_job_is_put_off_though_its_doorbell_was_rung(client: TestClient, settings: Settings) -> None:
    job_id = submitted(client)
    rung(settings)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert client.patch(f"/transcribe/{job_id}", json={"run_at": later}).status_code == 200
    assert not claimed(UUID(job_id), settings)


@pytest.mark.parametrize("run_at", [None, "2020-01-01T00:00:00Z"])
def test_a_job_that_is_due_keeps_its_place_when_it_is_told_to_run_now(
    client: TestClient, settings: Settings, run_at: str | None
) -> None:
    first, second = submitted(client), submitted(client)
    for job_id in (second, first):
        assert client.patch(f"/transcribe/{job_id}", json={"run_at": run_at}).status_code == 200
    assert [str(one) for one in rung(settings)] == [first, second]


def test_a_moment_may_be_written_in_any_zone(client: TestClient) -> None:
    there = (datetime.now(UTC) + timedelta(hours=25)).replace(tzinfo=None, microsecond=0)
    job_id = submitted(client, run_at=f"{there.isoformat()}+23:00")
    asked = {"run_at": f"{there.isoformat()}+22:00"}
    moments = (client.get(f"/transcribe/{job_id}"), client.patch(f"/transcribe/{job_id}", json=asked))
    left = [datetime.fromisoformat(one.json()["next_attempt_at"]) - there.replace(tzinfo=UTC) for one in moments]
    assert left == [timedelta(hours=-23), timedelta(hours=-22)]


def test_a_moment_that_has_passed_means_now(client: TestClient, settings: Settings) -> None:
    job_id = submitted(client, run_at="2020-01-01T00:00:00Z")
    ((age_s,),) = rows("SELECT extract(epoch FROM now() - run_at) FROM transcription_jobs")
    assert age_s < 60, "it does not overtake those that wait"
    assert [str(one) for one in rung(settings)] == [job_id]


@pytest.mark.parametrize(
    "run_at", ["2099-01-01T00:00:00Z", "2026-12-01T00:00:00", "tomorrow", "3600", "0001-01-01T00:00:00+23:00"]
)
def test_a_moment_that_is_too_far_off_has_no_zone_or_is_none_is_refused(client: TestClient, run_at: str) -> None:
    answer = client.post("/transcribe/", files={"file": ("a.wav", WAV)}, data={"run_at": run_at})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "run_at")
    job_id = submitted(client)
    assert client.patch(f"/transcribe/{job_id}", json={"run_at": run_at}).status_code == 422
    assert client.patch(f"/transcribe/{job_id}", json={"run_at": 3600}).status_code == 422


def test_what_has_begun_cannot_be_rescheduled_nor_what_is_anothers(client: TestClient, settings: Settings) -> None:
    job_id = submitted(client)
    take(UUID(job_id), settings)
    assert client.patch(f"/transcribe/{job_id}", json={"priority": "high"}).status_code == 409
    key = client.post("/admin/keys", json={"name": "other"}).json()["key"]
    answer = client.patch(f"/transcribe/{job_id}", json={"priority": "high"}, headers={"X-API-Key": key})
    assert answer.status_code == 404


# Why a job waits


def why(client: TestClient, job_id: str) -> tuple[str, str]:
    reason = client.get(f"/transcribe/{job_id}").json()["waiting_for"]
    return reason["code"], reason["detail"]


def test_a_job_says_why_it_waits(client: TestClient, settings: Settings) -> None:
    first, second = submitted(client), submitted(client)
    assert why(client, first) == ("no_worker", "It is due, and no worker child takes jobs: none is alive.")
    ill = {"code": "storage_away", "message": "away", "since": datetime.now(UTC)}
    presence.sign_in(presence.Identity("worker", "sick", 1, 2, (HIGH, NORMAL)), illness=ill)
    assert why(client, first) == ("no_worker", "It is due, and no worker child takes jobs: 1 are ill.")
    presence.sign_in(presence.Identity("worker", "calm", 1, 2, (HIGH,)), illness=ill | {"code": cordons.CODE})
    assert why(client, first)[1].endswith("1 are ill and 1 are cordoned.")
    sign_in("host:1:2", queues=(HIGH,))
    assert why(client, first) == ("no_worker", f"It is due, and no worker that is well draws from {NORMAL}.")
    sign_in("host:1:3", queues=(HIGH, NORMAL))
    assert why(client, first) == ("queued", "It is next.")
    assert why(client, second) == ("queued", "Jobs that are taken before it: 1.")
    fail(take(UUID(first), settings).fence, RuntimeError("x"), settings, Cause.FAILURE)
    put_off("1 hour")
    assert why(client, first)[0] == "retry"
    fail(taken_again(first, settings), errors.StorageAway("away"), settings, Cause.WORKER)
    put_off("1 hour")
    assert why(client, first)[0] == "worker_trouble"
    client.delete(f"/transcribe/{first}")
    assert client.get(f"/transcribe/{first}").json()["waiting_for"] is None


def test_a_job_that_a_worker_gave_back_has_not_failed(client: TestClient, settings: Settings) -> None:
    job_id = submitted(client)
    claim.release(take(UUID(job_id), settings).fence, reason="drained", patience_s=5, delay_s=3600)
    assert why(client, job_id)[0] == "retry"
    assert why(client, job_id)[1].startswith("Its worker gave it back; it is tried again at")


def test_each_job_of_a_list_says_why_it_waits(client: TestClient, settings: Settings) -> None:
    sign_in("host:1:2", queues=(HIGH, NORMAL))
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    job_ids = [submitted(client), submitted(client, run_at=later), submitted(client, priority="high")]
    take(UUID(submitted(client)), settings)
    paused("queue", HIGH)
    reasons = {one["job_id"]: one["waiting_for"] for one in client.get("/jobs/").json()["data"]}
    assert [reasons.pop(job_id)["code"] for job_id in job_ids] == ["queued", "scheduled", "paused"]
    assert list(reasons.values()) == [None]


def test_a_job_that_is_to_run_later_is_before_nobody_and_makes_nobody_late(
    client: TestClient, settings: Settings
) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    many_jobs(1, priority="high")
    scheduled = submitted(client, run_at=later)
    many_jobs(1, owner="key:other")
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET run_at = now() + interval '1 hour'"))
        assert read.waiting(session)["oldest_pending_seconds"] is None
    now = client.get(f"/transcribe/{submitted(client)}").json()
    assert now["queue_position"] == 1
    shown = client.get(f"/transcribe/{scheduled}").json()
    assert (shown["queue_position"], shown["eta_seconds"]) == (None, None)


def test_how_long_a_job_takes_is_not_guessed_while_it_is_held_up(client: TestClient, settings: Settings) -> None:
    finish(take(UUID(submitted(client)), settings).fence)
    sign_in("host:1:2", queues=(HIGH, NORMAL))
    job_id = submitted(client)
    assert client.get(f"/transcribe/{job_id}").json()["eta_seconds"] == 2.0
    paused("queue", NORMAL)
    held = client.get(f"/transcribe/{job_id}").json()
    assert (held["queue_position"], held["eta_seconds"]) == (1, None)


def test_the_database_says_what_is_due_though_a_clock_is_off(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = SimpleNamespace(now=lambda zone: datetime.now(zone) - timedelta(minutes=5))
    monkeypatch.setattr(waiting, "datetime", late)
    sign_in("host:1:2", queues=(HIGH, NORMAL))
    assert why(client, submitted(client)) == ("queued", "It is next.")


def put_off(interval: str) -> None:
    with transaction() as session:
        later = "UPDATE transcription_jobs SET run_at = now() + CAST(:interval AS interval) WHERE attempt > 0"
        session.execute(text(later), {"interval": interval})


def taken_again(job_id: str, settings: Settings) -> Fence:
    put_off("-1 s")
    return take(UUID(job_id), settings).fence


def test_a_new_reason_is_a_new_answer_for_who_asks_whether_it_changed(client: TestClient) -> None:
    job_id = submitted(client)
    tag = client.get(f"/transcribe/{job_id}").headers["ETag"]
    assert client.get(f"/transcribe/{job_id}", headers={"If-None-Match": tag}).status_code == 304
    paused("queue", NORMAL)
    assert client.get(f"/transcribe/{job_id}", headers={"If-None-Match": tag}).status_code == 200


def test_facts_about_all_jobs_are_asked_for_once_in_a_while(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "FRESH_S", 60)
    looks, look = list[int](), waiting.look

    def counted(*given: Any, **named: Any) -> waiting.Facts:
        looks.append(1)
        return look(*given, **named)

    monkeypatch.setattr(waiting, "look", counted)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as http:
        job_id = submitted(http)
        for _ in range(5):
            http.get(f"/transcribe/{job_id}")
    assert len(looks) == 1
