"""The same Idempotency-Key and payload make one job, however often and however closely they come."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from fastapi.testclient import TestClient

from database import transaction
from jobs import cancel, idempotency
from tests.api_client import WAV, files_below, rows, wav_of_silence

KEY = {"Idempotency-Key": "5b1f0c9e-one"}


def post(
    client: TestClient, body: bytes = WAV, *, key: dict[str, str] = KEY, **form: Any
) -> tuple[int, dict[str, str]]:
    answer = client.post("/transcribe/", files={"file": ("a.wav", body)}, data=form, headers=key)
    return answer.status_code, answer.json() | {"replayed": answer.headers.get("idempotent-replayed", "")}


def test_the_same_request_with_the_same_key_is_answered_with_the_same_job(client: TestClient, data_dir: Path) -> None:
    first, again = post(client, language="en"), post(client, language="en")
    assert (first[0], again[0]) == (202, 202)
    assert first[1] | {"replayed": "true"} == again[1]
    assert len(rows("SELECT id FROM transcription_jobs")) == 1
    assert len(files_below(data_dir / "audio")) == 1


def test_without_a_key_or_with_another_one_there_are_as_many_jobs_as_requests(client: TestClient) -> None:
    for key in ({}, {}, {"Idempotency-Key": "1"}, {"Idempotency-Key": "2"}):
        assert post(client, key=key)[0] == 202
    assert len(rows("SELECT id FROM transcription_jobs")) == 4


@pytest.mark.parametrize(
    ("body", "form"), [(wav_of_silence(0.2), {"language": "en"}), (WAV, {"language": "de"}), (WAV, {})]
)
def test_the_same_key_with_another_payload_is_refused_and_stores_nothing(
    client: TestClient, data_dir: Path, body: bytes, form: dict[str, Any]
) -> None:
    post(client, language="en")
    status, problem = post(client, body, **form)
    assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert len(files_below(data_dir / "audio")) == 1


def test_fifty_identical_posts_at_once_make_one_job(client: TestClient, data_dir: Path) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(client), range(50)))
    assert {status for status, _ in answers} == {202}
    assert len({body["job_id"] for _, body in answers}) == 1
    assert sorted(body["replayed"] for _, body in answers) == [""] + 49 * ["true"]
    assert len(rows("SELECT id FROM transcription_jobs")) == 1
    assert len(files_below(data_dir / "audio")) == 1


def test_a_batch_with_the_same_key_is_the_same_batch(client: TestClient, data_dir: Path) -> None:
    parts = [("files", ("a.wav", WAV)), ("files", ("b.txt", b"x" * 500)), ("files", ("c.wav", WAV))]
    first, again = (client.post("/transcribe/batch", files=parts, headers=KEY) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert len(rows("SELECT id FROM transcription_jobs")) == 2
    assert len(files_below(data_dir / "audio")) == 2


def test_one_key_cannot_stand_for_a_recording_and_a_batch(client: TestClient) -> None:
    post(client)
    answer = client.post("/transcribe/batch", files=[("files", ("a.wav", WAV))], headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "x" * 256, "two\twords"])
def test_a_key_that_is_none_is_refused(client: TestClient, key: str) -> None:
    status, problem = post(client, key={"Idempotency-Key": key})
    assert status == 422
    assert problem["errors"][0]["field"] == "Idempotency-Key"  # type: ignore[index]


def test_a_refused_request_does_not_use_up_its_key(client: TestClient) -> None:
    assert post(client, language="klingon")[0] == 422
    assert post(client, language="en")[0] == 202


def test_a_key_is_free_again_after_a_day(client: TestClient) -> None:
    first = post(client)[1]["job_id"]
    with transaction() as session:
        session.connection().exec_driver_sql("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    assert post(client, language="en")[1]["job_id"] != first
    with transaction() as session:
        assert idempotency.forget_old(session) == 0
        session.connection().exec_driver_sql("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
        assert idempotency.forget_old(session) == 1


def test_with_its_job_a_key_is_purged_too(client: TestClient) -> None:
    job_id = post(client)[1]["job_id"]
    client.delete(f"/transcribe/{job_id}")
    with transaction() as session:
        cancel.purge(session, job_id)  # type: ignore[arg-type]
    assert rows("SELECT key FROM idempotency_keys") == []


@pytest.fixture
def held(client: TestClient) -> Iterator[None]:
    """Another request with this key is about to commit, and takes for ever."""
    url = client.app.state.settings.database_url  # type: ignore[attr-defined]
    other = psycopg2.connect(url)
    with other.cursor() as cursor:
        cursor.execute("INSERT INTO idempotency_keys (owner, key, fingerprint) VALUES ('', %s, '')", list(KEY.values()))
        yield
    other.close()


@pytest.mark.usefixtures("held")
def test_a_key_that_is_in_flight_for_too_long_is_a_conflict_that_may_be_tried_again(
    client: TestClient, data_dir: Path
) -> None:
    status, problem = post(client)
    assert (status, problem["code"]) == (409, "in_flight")
    assert files_below(data_dir / "audio") == []
