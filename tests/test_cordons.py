"""A cordoned worker begins no job and lives on; a drained one gives back what it runs (tests/faults/test_drain.py)."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from admin.__main__ import main
from config import Settings
from database import transaction
from jobs import attempt, cordons, presence, sweep
from jobs.routing import HIGH, NORMAL, QUEUES, RETRY, WEBHOOKS
from tests.admin_play import logs_put_back
from tests.checker import job_now, new_job, sign_in
from tests.processes import until
from tests.workplaces import workplace


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    with logs_put_back():
        yield


def rung(settings: Settings) -> list[UUID]:
    with transaction() as session:
        return [one.job_id for one in sweep.choose_waiting(session, settings, dict.fromkeys(QUEUES, 0))]


def test_a_cordoned_worker_is_no_capacity_and_no_illness(client: TestClient) -> None:
    identity = presence.Identity("worker", "host", 1, 2, (HIGH, NORMAL, RETRY))
    presence.sign_in(presence.Identity("relay", "host", 9, 9))
    presence.sign_in(identity)
    (worker,) = client.get("/admin/workers").json()
    assert (worker["worker"], worker["children"], worker["cordon"]) == (identity.worker, 1, None)
    made = client.put(f"/admin/workers/{identity.worker}/cordon")
    assert (made.status_code, made.json()["drains"]) == (200, False)
    watch = cordons.Watch(identity.worker)
    with transaction() as session:
        watch.look(session)
    presence.sign_in(identity, illness=watch.as_illness())
    assert client.get("/admin/workers").json()[0]["cordon"]["ordered_by"] == "anybody"
    health = client.get("/admin/health").json()
    assert (health["workers"]["concurrency"], health["workers"]["ill"]) == (0, [])
    assert health["problems"] == ["every worker is cordoned: none begins a job"]
    (shown,) = health["workers"]["cordoned"]
    assert (shown["worker"], shown["ordered_by"], shown["drains"]) == (identity.worker, "anybody", False)
    assert "whisper_queue_workers_cordoned 1.0" in client.get("/metrics").text
    assert client.delete(f"/admin/workers/{identity.worker}/cordon").status_code == 204
    assert client.delete(f"/admin/workers/{identity.worker}/cordon").status_code == 404
    with transaction() as session:
        watch.look(session)
    assert watch.as_illness() is None
    assert client.put("/admin/workers/nobody:1.a/cordon").status_code == 404
    for method in (client.put, client.delete):
        assert method("/admin/workers/a%00b/cordon").status_code == 404


def test_a_worker_that_only_sends_webhooks_is_not_cordoned(client: TestClient) -> None:
    sign_in("host:1:2", queues=(WEBHOOKS,))
    answer = client.put("/admin/workers/host:1/cordon")
    assert (answer.status_code, "takes no jobs" in answer.text) == (409, True)


def test_a_doorbell_that_a_cordoned_child_holds_is_rung_for_others(database: Settings, tmp_path: Path) -> None:
    work = workplace(database.model_copy(update={"engine": "fake", "data_dir": tmp_path}))
    job_id = new_job()
    assert rung(database) == [job_id]
    sign_in("host:1:2")
    with transaction() as session:
        cordons.cordon(session, "host:1", drains=False, actor="me")
        work.cordon.look(session)
    with ThreadPoolExecutor(1) as child:
        running = child.submit(attempt.run, job_id, work)
        until(lambda: rung(database) == [job_id])
        assert not running.done(), "it draws no other"
        with transaction() as session:
            cordons.uncordon(session, "host:1", actor="me")
            work.cordon.look(session)
        running.result(10)
    assert job_now(job_id).attempt == 0


def test_the_command_line_cordons_too(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    sign_in("host:1.a:2", queues=(HIGH,))
    sign_in("host:2.b:2", queues=(NORMAL,))
    assert main(["workers", "cordon", "host:1.a", "--drain"]) == 0
    capsys.readouterr()
    assert main(["workers", "list", "--json"]) == 0
    told = [(one["worker"], (one["cordon"] or {}).get("drains")) for one in json.loads(capsys.readouterr().out)]
    assert told == [("host:1.a", True), ("host:2.b", None)]
    assert main(["workers", "list"]) == 0
    assert "draining" in capsys.readouterr().out
    assert main(["workers", "uncordon", "host:1.a"]) == 0
    assert main(["workers", "uncordon", "host:1.a"]) == 1


def test_cordons_of_workers_that_are_gone_are_forgotten(database: Settings) -> None:
    for name in ("host:1:2", "host:2:2"):
        sign_in(name)
    with transaction() as session:
        for worker in ("host:1", "host:2"):
            cordons.cordon(session, worker, drains=False, actor="me")
        session.execute(text("UPDATE cordons SET since = now() - interval '2 days'"))
        session.execute(text("UPDATE processes SET seen_at = now() - interval '2 days' WHERE worker = 'host:1'"))
        sweep.forget_processes(session)
        assert [one.worker for one in cordons.cordons(session)] == ["host:2"]
