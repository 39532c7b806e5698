"""Whose jobs are whose: a user sees only its own, whatever it asks; an admin sees all, and alone has /admin."""

from typing import NamedTuple
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from app import create_app
from config import Settings
from jobs import claim
from models import Result
from tests.api_client import WAV, rows
from tests.callers import key_of

Headers = dict[str, str]


class People(NamedTuple):
    alice: Headers
    bob: Headers
    boss: Headers


@pytest.fixture
def people(settings: Settings) -> People:
    names = {"alice": "user", "bob": "user", "boss": "admin"}
    return People(**{name: key_of(settings, name, role=role) for name, role in names.items()})


def submitted(client: TestClient, header: Headers) -> str:
    answer = client.post("/transcribe/", files={"file": ("talk.wav", WAV)}, headers=header)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def completed(client: TestClient, settings: Settings, header: Headers) -> str:
    job_id = submitted(client, header)
    taken = claim.claim(UUID(job_id), claimed_by="host:1:2", settings=settings)
    assert taken is not None
    result = Result(
        job_id=taken.fence.job_id, attempt=taken.fence.attempt, text="secret", language="en", language_probability=0.9,
        duration=3.0, word_count=1, confidence=0.9, processing_s=1.0,
    )  # fmt: skip
    assert claim.finish(taken.fence, result, patience_s=5)
    return job_id


PATHS = [
    ("GET", "/transcribe/{id}"),
    ("GET", "/transcribe/{id}/segments"),
    ("GET", "/transcribe/{id}/result"),
    ("DELETE", "/transcribe/{id}"),
    ("DELETE", "/transcribe/{id}?purge=true"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_job_of_somebody_else_is_not_there(
    client: TestClient, settings: Settings, people: People, method: str, path: str
) -> None:
    """The same answer as for a job that never was: a user cannot even learn which ids exist."""
    job_id = completed(client, settings, people.alice)
    answer = client.request(method, path.format(id=job_id), headers=people.bob)
    never = uuid4()
    unknown = client.request(method, path.format(id=never), headers=people.bob)
    assert (answer.status_code, unknown.status_code) == (404, 404)
    assert answer.json()["detail"] == unknown.json()["detail"]
    assert rows("SELECT status FROM transcription_jobs") == [("completed",)]


@pytest.mark.parametrize("who", ["alice", "boss"])
def test_owner_and_admin_see_a_job_and_may_purge_it(
    client: TestClient, settings: Settings, people: People, who: str
) -> None:
    header = getattr(people, who)
    job_id = completed(client, settings, people.alice)
    for path in ("", "/segments", "/result"):
        assert client.get(f"/transcribe/{job_id}{path}", headers=header).status_code == 200
    assert client.delete(f"/transcribe/{job_id}?purge=true", headers=header).status_code == 204
    assert client.get(f"/transcribe/{job_id}", headers=people.alice).status_code == 404


@pytest.mark.parametrize(("who", "status"), [("alice", 200), ("bob", 404), ("boss", 200)])
def test_owner_and_admin_may_cancel_a_job(client: TestClient, people: People, who: str, status: int) -> None:
    job_id = submitted(client, people.alice)
    assert client.delete(f"/transcribe/{job_id}", headers=getattr(people, who)).status_code == status


def test_a_list_holds_the_callers_own_jobs_and_an_admins_all(client: TestClient, people: People) -> None:
    hers, his = submitted(client, people.alice), submitted(client, people.bob)

    def listed(header: Headers, query: str = "") -> set[str]:
        return {job["job_id"] for job in client.get(f"/jobs/{query}", headers=header).json()["data"]}

    assert listed(people.alice) == {hers}
    assert listed(people.bob) == {his}
    assert listed(people.boss) == {hers, his}
    assert client.get(f"/jobs/?after={hers}", headers=people.bob).status_code == 404  # nor by a page's mark


def test_a_batch_of_somebody_else_is_not_there(client: TestClient, people: People) -> None:
    files = [("files", ("a.wav", WAV)), ("files", ("b.wav", WAV))]
    batch_id = client.post("/transcribe/batch", files=files, headers=people.alice).json()["batch_id"]
    statuses = [client.get(f"/batches/{batch_id}", headers=header).status_code for header in people]
    assert statuses == [200, 404, 200]
    assert client.get(f"/jobs/?batch_id={batch_id}", headers=people.bob).json()["data"] == []


def test_an_idempotency_key_is_its_callers_own(client: TestClient, people: People) -> None:
    ids = [
        client.post(
            "/transcribe/", files={"file": ("a.wav", WAV)}, headers=header | {"Idempotency-Key": "the-same-for-both"}
        ).json()["job_id"]
        for header in (people.alice, people.bob, people.alice)
    ]
    assert ids[0] == ids[2] != ids[1]


def test_a_callers_jobs_bear_its_name_and_its_deadline(client: TestClient, settings: Settings) -> None:
    header = key_of(settings, delete_after_s=60)
    submitted(client, header)
    client.post("/transcribe/", files={"file": ("a.wav", WAV)}, data={"delete_after_seconds": "10"}, headers=header)
    kept = rows("SELECT owner LIKE 'key:%', delete_after_s FROM transcription_jobs ORDER BY delete_after_s")
    assert kept == [(True, 10), (True, 60)]


def test_every_route_below_admin_is_closed_to_users(client: TestClient, settings: Settings, people: People) -> None:
    tried = 0
    for path, operations in create_app(settings).openapi()["paths"].items():
        if not path.startswith("/admin"):
            continue
        for method in operations:
            concrete = path.replace("{error_id}", str(uuid4())).replace("{key_id}", str(uuid4()))
            answer = client.request(method, concrete, headers=people.alice)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
            assert client.request(method, concrete).status_code == 401
            tried += 1
    assert tried >= 8
    assert client.get("/admin/keys", headers=people.boss).status_code == 200


def test_every_route_but_health_and_the_description_needs_a_key(
    client: TestClient, settings: Settings, people: People
) -> None:
    """Also the routes that are still to come: a new one must not be forgotten."""
    opened = {"/health", "/health/live", "/health/ready", "/metrics"}
    for path, operations in create_app(settings).openapi()["paths"].items():
        for method in operations:
            concrete = path
            for name in ("job_id", "batch_id", "error_id", "key_id", "delivery_id"):
                concrete = concrete.replace(f"{{{name}}}", str(uuid4()))
            if path not in opened:
                assert client.request(method, concrete).status_code == 401, (method, path)
