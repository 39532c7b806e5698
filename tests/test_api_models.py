"""/admin/models: what is loaded where, and orders that workers obey later."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app import create_app
from config import Settings
from jobs import presence
from tests.api_client import rows
from tests.callers import key_of

Row = dict[str, Any]
MOMENT = "2026-01-31T09:30:00+00:00"
COUNTS = {"memory_bytes": 8_000_000, "use_count": 3, "in_use": 1, "loaded_at": MOMENT, "last_used": MOMENT}


def worker_holds(*sizes: str, main_pid: int = 1, children: int = 1, pid: int | None = None) -> None:
    """Signs of life of a worker whose children hold these, or whose engine server does (`pid`)."""
    born = presence.new_birth()
    loaded = [{"size": size, "compute_type": "int8", **COUNTS} for size in sizes]
    for child in range(2, 2 + children):
        stats = {"devices": [{"device": "cpu", "pid": pid or child, "loaded": loaded}]}
        identity = presence.Identity("worker", "host", main_pid, child, ("transcription.high",), born)
        presence.sign_in(identity, stats)


def listed(client: TestClient) -> dict[str, Row]:
    answer = client.get("/admin/models")
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "list"
    return {one["size"]: one for one in answer.json()["data"]}


def order(client: TestClient, method: str, size: str) -> Any:
    return client.request(method, f"/admin/models/{size}")


def test_the_default_model_is_listed_though_nobody_has_loaded_it(client: TestClient) -> None:
    assert listed(client) == {"base": {"size": "base", "is_default": True, "loaded": [], "ordered": None}}


def test_every_model_is_listed_with_each_process_that_holds_it(client: TestClient) -> None:
    worker_holds("demo", "small", children=2)
    worker_holds("small", main_pid=9)
    models = listed(client)
    assert models.keys() == {"base", "demo", "small"}
    assert len(models["demo"]["loaded"]) == 2
    assert len(models["small"]["loaded"]) == 3
    assert len({one["worker"] for one in models["small"]["loaded"]}) == 2
    one = models["demo"]["loaded"][0]
    assert (one["device"], one["process"], one["compute_type"]) == ("cpu", 2, "int8")
    assert (one["memory_bytes"], one["use_count"], one["in_use"]) == (8_000_000, 3, 1)
    assert datetime.fromisoformat(one["last_used"]) == datetime.fromisoformat(MOMENT)


def test_children_of_one_engine_server_hold_one_model_together(client: TestClient) -> None:
    worker_holds("demo", children=4, pid=77)
    assert [one["process"] for one in listed(client)["demo"]["loaded"]] == [77]


@pytest.mark.parametrize(("method", "wanted"), [("POST", "loaded"), ("DELETE", "unloaded")])
def test_an_order_is_taken_down_and_shown(client: TestClient, method: str, wanted: str) -> None:
    before = datetime.now(UTC)
    answer = order(client, method, "small")
    assert (answer.status_code, answer.json()["size"], answer.json()["wanted"]) == (202, "small", wanted)
    assert datetime.fromisoformat(answer.json()["ordered_at"]) >= before
    told = {name: answer.json()[name] for name in ("wanted", "ordered_at")}
    small = listed(client)["small"]
    assert (small["loaded"], small["ordered"]) == ([], told)
    assert rows("SELECT size, wanted FROM model_orders") == [("small", wanted)]


def test_the_last_order_for_a_model_replaces_the_one_before(client: TestClient) -> None:
    orders = [order(client, method, "small").json() for method in ("POST", "DELETE", "DELETE")]
    moments = [one["ordered_at"] for one in orders]
    assert moments == sorted(set(moments)), "an order that is repeated is a new one"
    assert listed(client)["small"]["ordered"] == {"wanted": "unloaded", "ordered_at": moments[-1]}


def test_two_names_of_one_model_are_one_model(client: TestClient) -> None:
    worker_holds("large-v3")
    assert order(client, "POST", "large").json()["size"] == "large-v3"
    model = listed(client)["large-v3"]
    assert (len(model["loaded"]), model["ordered"]["wanted"]) == (1, "loaded")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("size", ["huge", "", "%2Fetc%2Fpasswd", "/models/../etc/mine", "base%00", "%2Fmodels%2F%00"])
def test_a_model_that_no_job_may_ask_for_is_not_found(settings: Settings, method: str, size: str) -> None:
    app = create_app(settings.model_copy(update={"model_allowed_paths": "/models"}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = order(client, method, size)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "expected one of" in answer.json()["detail"]
    assert rows("SELECT * FROM model_orders") == []


def test_a_path_that_jobs_may_name_can_be_ordered_and_is_matched_whole(settings: Settings, tmp_path: Path) -> None:
    app = create_app(settings.model_copy(update={"model_allowed_paths": str(tmp_path)}))
    path = f"{tmp_path}/demo"
    worker_holds(path)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert order(client, "POST", path).json()["size"] == path
        models = listed(client)
    assert models.keys() == {"base", path}
    assert len(models[path]["loaded"]) == 1


def test_models_are_for_admins(client: TestClient, settings: Settings) -> None:
    user, admin = key_of(settings), key_of(settings, "boss", role="admin")
    for method, path in (("GET", ""), ("POST", "/small"), ("DELETE", "/small")):
        assert client.request(method, f"/admin/models{path}").status_code == 401
        assert client.request(method, f"/admin/models{path}", headers=user).status_code == 403
        assert client.request(method, f"/admin/models{path}", headers=admin).status_code in (200, 202)
