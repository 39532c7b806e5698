"""Batches to their end: a hundred files in one request, cancelled together, their transcripts in one archive."""

import io
import json
import zipfile
from uuid import UUID

from fastapi.testclient import TestClient

from config import get_settings
from tests.api_client import WAV, rows
from tests.checker import complete, fail, take


def batch_of(client: TestClient, *names: str) -> tuple[str, list[UUID]]:
    answer = client.post("/transcribe/batch", files=[("files", (name, WAV)) for name in names])
    assert answer.status_code == 202, answer.text
    return answer.json()["batch_id"], [UUID(job["job_id"]) for job in answer.json()["jobs"]]


def archive_of(client: TestClient, batch_id: str, query: str = "") -> zipfile.ZipFile:
    answer = client.get(f"/batches/{batch_id}/results{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert "content-length" not in answer.headers, "it is sent while it is made"
    return zipfile.ZipFile(io.BytesIO(answer.content))


def test_a_hundred_files_in_one_request_are_a_hundred_jobs_that_can_be_listed_by_their_batch(
    client: TestClient,
) -> None:
    batch_id, jobs = batch_of(client, *(f"{number}.wav" for number in range(100)))
    batch_of(client, "another.wav")
    listed = client.get("/jobs/", params={"batch_id": batch_id, "limit": 100}).json()
    assert {UUID(job["job_id"]) for job in listed["data"]} == set(jobs)
    too_many = client.post("/transcribe/batch", files=[("files", ("a.wav", WAV))] * 101)
    assert too_many.status_code == 422


def test_the_archive_holds_every_transcript_and_tells_of_those_that_have_none(client: TestClient) -> None:
    settings = get_settings()
    batch_id, (one, two, three, _) = batch_of(client, "talk.wav", "talk.mp3", "broken.wav", "../Ünï.wav")
    complete(one, " hello", settings)
    complete(two, " there", settings)
    fail(take(three, settings).fence, RuntimeError("x"), settings.model_copy(update={"max_failures": 1}))
    with archive_of(client, batch_id) as found:
        names = found.namelist()
        assert found.testzip() is None
        assert found.read("talk.txt").decode() == "hello\n"
        assert "00:00:01,500" in found.read("talk (2).srt").decode()
        assert json.loads(found.read("talk (2).json"))["segments"][0]["text"] == "there"
        index = json.loads(found.read("index.json"))
    assert sorted(names) == sorted(
        ["index.json", *(f"talk{number}.{kind}" for number in ("", " (2)") for kind in ("txt", "srt", "json"))]
    )
    assert [entry["status"] for entry in index] == ["completed", "completed", "failed", "pending"]
    assert index[2]["error"]
    assert index[3]["filename"] == "Ünï.wav"


def test_the_archive_holds_the_formats_that_were_asked_for(client: TestClient) -> None:
    batch_id, (job,) = batch_of(client, "talk.wav")
    complete(job, " hello", get_settings())
    with archive_of(client, batch_id, "?format=vtt&format=tsv&format=vtt") as found:
        assert sorted(found.namelist()) == ["index.json", "talk.tsv", "talk.vtt"]
    assert client.get(f"/batches/{batch_id}/results?format=docx").status_code == 422


def test_there_is_no_archive_before_anything_is_done(client: TestClient) -> None:
    batch_id, _ = batch_of(client, "talk.wav")
    answer = client.get(f"/batches/{batch_id}/results")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_cancelled_batch_ends_what_is_not_final_and_leaves_the_rest(client: TestClient) -> None:
    settings = get_settings()
    batch_id, (done, running, waiting) = batch_of(client, "a.wav", "b.wav", "c.wav")
    complete(done, " hello", settings)
    take(running, settings)
    answer = client.delete(f"/batches/{batch_id}")
    assert answer.status_code == 200
    assert {UUID(job) for job in answer.json()["cancelled"]} == {running, waiting}
    batch = client.get(f"/batches/{batch_id}").json()
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 0, "cancelled": 2}
    assert client.delete(f"/batches/{batch_id}").json()["cancelled"] == []
    assert rows("SELECT count(*) FROM job_events WHERE to_status = 'cancelled'") == [(2,)]


def test_an_unknown_batch_is_not_found(client: TestClient) -> None:
    for answer in (
        client.get(f"/batches/{UUID(int=1)}"),
        client.get(f"/batches/{UUID(int=1)}/results"),
        client.delete(f"/batches/{UUID(int=1)}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
