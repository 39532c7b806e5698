"""Operators: dead letters, health of every part, keys, and what the OpenAPI document says."""

import uuid
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from httpx import Client

import errors
from app import create_app
from config import Settings
from database import transaction
from jobs import claim, presence
from jobs.retry import Cause
from jobs.routing import HIGH, NORMAL, RETRY
from tests.api_client import WAV, rows
from tests.processes import until

TRANSCRIBES = (HIGH, NORMAL, RETRY)
ASKED = (
    "SELECT model_size, language, task, priority, options, metadata, storage_key, sha256, filename"
    " FROM transcription_jobs"
)


def dead_job(client: Client, settings: Settings, **options: str) -> str:
    job_id = client.post("/transcribe/", files={"file": ("talk.wav", WAV)}, data=options).json()["job_id"]
    taken = claim.claim(uuid.UUID(job_id), claimed_by="host:1:2", settings=settings)
    assert taken is not None
    error = errors.UndecodableAudio("The file is not audio.")
    assert claim.fail(taken.fence, error, settings, cause=Cause.FAILURE, worker="host:1:2")
    return str(job_id)


def test_a_failed_job_has_a_dead_letter_that_says_why(client: Client, settings: Settings) -> None:
    job_id = dead_job(client, settings)
    job = client.get(f"/transcribe/{job_id}").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "undecodable_audio")
    (letter,) = client.get("/admin/errors").json()["data"]
    assert (letter["job_id"], letter["error_type"]) == (job_id, "undecodable_audio")
    detail = client.get(f"/admin/errors/{letter['id']}").json()
    assert "UndecodableAudio" in detail["stack_trace"]
    assert detail["job"]["job_id"] == job_id


def test_a_replay_asks_for_all_that_was_asked_for(client: Client, settings: Settings) -> None:
    wanted = {"model_size": "small", "language": "de", "priority": "high", "beam_size": "3", "hotwords": "Wort"}
    job_id = dead_job(client, settings, **wanted)
    before = rows(ASKED)
    (letter,) = client.get("/admin/errors").json()["data"]
    answer = client.post(f"/admin/errors/{letter['id']}/replay")
    assert (answer.status_code, answer.json()["job_id"]) == (202, job_id)
    assert rows(ASKED) == before
    assert client.get(f"/transcribe/{job_id}").json()["status"] == "pending"
    assert client.get("/admin/errors", params={"resolved": False}).json()["data"] == []
    assert client.post(f"/admin/errors/{letter['id']}/replay").status_code == 409


def test_dead_letters_are_replayed_by_type(client: Client, settings: Settings) -> None:
    ids = {dead_job(client, settings) for _ in range(3)}
    assert client.post("/admin/errors/replay", params={"error_type": "lost"}).json()["job_ids"] == []
    answer = client.post("/admin/errors/replay", params={"error_type": "undecodable_audio"})
    assert set(answer.json()["job_ids"]) == ids


def test_a_dead_letter_is_resolved_without_a_replay(client: Client, settings: Settings) -> None:
    job_id = dead_job(client, settings)
    (letter,) = client.get("/admin/errors").json()["data"]
    assert client.post(f"/admin/errors/{letter['id']}/resolve").json()["resolution"] == "dismissed"
    assert client.get("/admin/errors", params={"resolved": True}).json()["data"]
    assert client.get(f"/transcribe/{job_id}").json()["status"] == "failed"
    assert client.post(f"/admin/errors/{uuid.uuid4()}/resolve").status_code == 404


def test_health_names_what_is_missing(client: Client) -> None:
    answer = client.get("/admin/health")
    assert answer.status_code == 503
    assert answer.json()["problems"] == ["relay is away", "no worker is alive"]


def test_health_adds_up_the_pools_of_all_children(client: Client) -> None:
    born = presence.new_birth()
    for pid, hits in ((2, 30), (3, 8)):
        counts = {"hits": hits, "misses": 1, "evictions": 0, "oom_fallbacks": 0}
        pool = {"devices": [{**counts, "device": "cpu", "pid": pid, "loaded": [{"size": "demo"}]}]}
        presence.sign_in(presence.Identity("worker", "host", 1, pid, TRANSCRIBES, born), pool)
    presence.sign_in(presence.Identity("relay", "host", 9, 9))
    answer = client.get("/admin/health")
    assert (answer.status_code, answer.json()["problems"]) == (200, [])
    health = answer.json()
    assert (health["model_pool"]["hits"], health["model_pool"]["hit_rate"]) == (38, 0.95)
    assert len(health["model_pool"]["loaded"]) == 2
    assert [(one["device"], one["pid"]) for one in health["devices"]] == [("cpu", 2), ("cpu", 3)]
    by_queue = dict.fromkeys(TRANSCRIBES, 2)
    assert health["workers"] == {
        "alive": 1,
        "concurrency": 2,
        "busy": 0,
        "by_queue": by_queue,
        "ill": [],
        "cordoned": [],
    }
    assert health["queues"]["transcription.dlq"] == 0
    assert health["redis"]["used_memory_bytes"] > 0
    assert health["database"]["pool"]["size"] > 0


def test_health_says_which_worker_is_ill_and_why_and_counts_it_nowhere(client: Client) -> None:
    ill = {"code": "storage_away", "message": "The storage is away.", "since": datetime.now(UTC)}
    presence.sign_in(presence.Identity("relay", "host", 9, 9))
    presence.sign_in(presence.Identity("worker", "well", 1, 2, TRANSCRIBES))
    presence.sign_in(presence.Identity("worker", "sick", 1, 3, TRANSCRIBES), illness=ill)
    answer = client.get("/admin/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "degraded")
    assert answer.json()["problems"] == ["1 of 2 worker children are ill: The storage is away."]
    workers = answer.json()["workers"]
    assert (workers["alive"], workers["concurrency"]) == (2, 1)
    ((name, code, since),) = ((one["worker"], one["code"], one["since"]) for one in workers["ill"])
    assert (name.partition(":")[0], code, datetime.fromisoformat(since)) == ("sick", "storage_away", ill["since"])
    assert 'whisper_queue_workers_ill{code="storage_away"} 1.0' in client.get("/metrics").text
    assert "whisper_queue_slots 1.0" in client.get("/metrics").text


def test_while_the_storage_is_away_health_and_metrics_say_so_and_uploads_are_refused(
    client: TestClient, settings: Settings
) -> None:
    away = settings.storage_dir.with_name("away")
    settings.storage_dir.rename(away)
    settings.storage_dir.mkdir()
    health = client.get("/admin/health")
    assert (health.status_code, health.json()["storage"]["ok"]) == (503, False)
    assert "storage is away" in health.json()["problems"]
    assert health.json()["backlog"]["accepting"] is False
    assert 'whisper_queue_up{part="storage"} 0.0' in client.get("/metrics").text
    refused = client.post("/transcribe/", files={"file": ("a.wav", WAV)})
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_away")
    settings.storage_dir.rmdir()
    away.rename(settings.storage_dir)
    until(lambda: client.post("/transcribe/", files={"file": ("a.wav", WAV)}).status_code == 202)


def test_health_names_a_queue_that_nobody_draws_from(client: Client) -> None:
    presence.sign_in(presence.Identity("relay", "host", 9, 9))
    presence.sign_in(presence.Identity("worker", "host", 1, 2, TRANSCRIBES[:2]))
    assert client.get("/admin/health").json()["problems"] == ["no worker that is well draws from transcription.retry"]


def test_children_of_one_engine_server_count_its_pool_once(client: Client) -> None:
    born = presence.new_birth()
    pool = {"devices": [{"hits": 9, "misses": 1, "device": "cuda:0", "pid": 77, "loaded": [{"size": "small"}]}]}
    for pid in (2, 3, 4):
        presence.sign_in(presence.Identity("worker", "host", 1, pid, ("transcription.high",), born), pool)
    health = client.get("/admin/health").json()
    assert (health["model_pool"]["hits"], len(health["model_pool"]["loaded"]), len(health["devices"])) == (9, 1, 1)


def test_readiness_wants_database_migrations_and_redis(client: Client) -> None:
    assert client.get("/health/ready").json() == {
        "status": "ready", "database": True, "redis": True, "migrations": True,
    }  # fmt: skip
    with transaction() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["migrations"]) == (503, False)
    assert client.get("/health/live").status_code == 200


KEY = "a-key-for-the-tests-only"


@pytest.mark.parametrize("header", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_with_a_key_set_every_route_but_health_needs_it(settings: Settings, header: dict[str, str]) -> None:
    app = create_app(settings.model_copy(update={"api_key": Settings(api_key=KEY).api_key}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/jobs/", headers=header).status_code == 200
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}, {"Authorization": KEY}):
            refused = client.get("/jobs/", headers=wrong)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/transcribe/", files={"file": ("a.wav", WAV)}).status_code == 401
        assert client.get("/admin/errors").status_code == 401
        assert client.get("/health").status_code == 200


def test_every_route_is_described_with_an_example(client: Client) -> None:
    document = client.get("/openapi.json").json()
    for name, schema in document["components"]["schemas"].items():
        described = [p for p in schema.get("properties", {}).values() if "examples" in p or "description" in p]
        refers = [p for p in schema.get("properties", {}).values() if "$ref" in str(p) or "enum" in str(p)]
        assert described or refers or name in ("HTTPValidationError", "ValidationError", "FieldProblem"), name
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("description") or operation.get("summary"), path
