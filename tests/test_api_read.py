"""Reading jobs, results, segments, lists and batches; cancelling and purging."""

import uuid
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Client

from config import Settings
from database import transaction
from jobs import claim
from models import Result, SegmentRow
from tests.api_client import WAV, files_below, rows


def submitted(client: Client, **options: str) -> str:
    answer = client.post("/transcribe/", files={"file": ("talk.wav", WAV)}, data=options)
    return str(answer.json()["job_id"])


def claimed(job_id: str, settings: Settings) -> claim.Claim:
    taken = claim.claim(uuid.UUID(job_id), claimed_by="host:1:2", settings=settings)
    assert taken is not None
    return taken


def add_segments(job_id: str, *texts: str) -> None:
    with transaction() as session:
        for number, text in enumerate(texts):
            session.add(
                SegmentRow(
                    job_id=uuid.UUID(job_id), number=number, start=number, end=number + 0.9,
                    text=f" {text}", avg_logprob=-0.1, no_speech_prob=0.01, compression_ratio=1.0,
                    temperature=0.0, tokens=[], words=None,
                )
            )  # fmt: skip


def complete(job_id: str, settings: Settings, *texts: str) -> None:
    taken = claimed(job_id, settings)
    add_segments(job_id, *texts)
    result = Result(
        job_id=taken.fence.job_id, attempt=taken.fence.attempt, text=" ".join(texts), language="en",
        language_probability=0.9, duration=3.0, word_count=len(texts), confidence=0.9, processing_s=1.0,
    )  # fmt: skip
    assert claim.finish(taken.fence, result, patience_s=5)


def test_a_job_that_is_not_there_is_a_problem_with_advice(client: Client) -> None:
    answer = client.get(f"/transcribe/{uuid.uuid4()}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"
    assert client.get("/transcribe/not-an-id").status_code == 422
    assert client.get("/nowhere").json()["code"] == "not_found"


def test_a_completed_job_shows_its_result(client: Client, settings: Settings) -> None:
    job_id = submitted(client)
    complete(job_id, settings, "one", "two")
    job = client.get(f"/transcribe/{job_id}").json()
    assert (job["status"], job["progress"], job["queue_position"]) == ("completed", 100, None)
    assert job["result"]["text"] == "one two"
    assert [segment["text"] for segment in job["result"]["segments"]] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "media", "start"),
    [
        ("json", "application/json", '{"text":"one two"'),
        ("txt", "text/plain", "one"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:00,900\none"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00.900\none"),
        ("tsv", "text/tab-separated-values", "start\tend\ttext\n0\t900\tone"),
    ],
)
def test_a_result_comes_in_every_format(client: Client, settings: Settings, name: str, media: str, start: str) -> None:
    job_id = submitted(client)
    complete(job_id, settings, "one", "two")
    answer = client.get(f"/transcribe/{job_id}/result", params={"format": name})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media)
    assert f'filename="talk.{name}"' in answer.headers["content-disposition"]
    assert answer.text.startswith(start)


def test_a_result_is_refused_until_there_is_one(client: Client) -> None:
    answer = client.get(f"/transcribe/{submitted(client)}/result")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_segments_are_readable_while_the_job_runs(client: Client, settings: Settings) -> None:
    job_id = submitted(client)
    claimed(job_id, settings)
    add_segments(job_id, "one", "two", "three")
    body = client.get(f"/transcribe/{job_id}/segments", params={"after": 0}).json()
    assert (body["status"], [segment["text"] for segment in body["segments"]]) == ("processing", ["two", "three"])


def test_the_list_is_newest_first_in_pages_that_do_not_overlap(client: Client) -> None:
    ids = [submitted(client, priority="high" if n % 2 else "normal") for n in range(7)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/jobs/", params={"limit": 3, **after}).json()
        seen += [job["job_id"] for job in page["data"]]
        assert page["last_id"] == seen[-1]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert seen == ids[::-1]
    assert len(client.get("/jobs/", params={"priority": "high"}).json()["data"]) == 3
    assert client.get("/jobs/", params={"q": "TALK"}).json()["data"]
    assert not client.get("/jobs/", params={"q": "%"}).json()["data"]
    assert not client.get("/jobs/", params={"status": "failed"}).json()["data"]
    assert client.get("/jobs/", params={"limit": 101}).status_code == 422


def test_a_waiting_job_is_cancelled_and_stays_so(client: Client, settings: Settings) -> None:
    job_id = submitted(client)
    answer = client.delete(f"/transcribe/{job_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert claim.claim(uuid.UUID(job_id), claimed_by="host:1:2", settings=settings) is None
    assert client.delete(f"/transcribe/{job_id}").status_code == 409


def test_a_running_job_is_cancelled_and_its_segments_stay(client: Client, settings: Settings) -> None:
    job_id = submitted(client)
    claimed(job_id, settings)
    add_segments(job_id, "one")
    assert client.delete(f"/transcribe/{job_id}").status_code == 200
    assert client.get(f"/transcribe/{job_id}").json()["status"] == "cancelled"
    assert len(client.get(f"/transcribe/{job_id}/segments").json()["segments"]) == 1


def test_a_purge_removes_audio_text_and_row(client: Client, settings: Settings, data_dir: Path) -> None:
    job_id = submitted(client)
    assert client.delete(f"/transcribe/{job_id}", params={"purge": True}).status_code == 409
    complete(job_id, settings, "one")
    assert client.delete(f"/transcribe/{job_id}", params={"purge": True}).status_code == 204
    assert client.get(f"/transcribe/{job_id}").status_code == 404
    assert files_below(data_dir / "audio") == []
    assert rows(
        "SELECT (SELECT count(*) FROM transcription_jobs), (SELECT count(*) FROM transcription_results),"
        " (SELECT count(*) FROM transcript_segments), (SELECT count(*) FROM job_events)"
    ) == [(0, 0, 0, 0)]


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("2026-01-31T09:30:00Z", 200),
        ("2026-01-31T09:30", 200),
        ("2026-01-31T09:30:00+23:59", 200),
        ("0001-01-01T00:00:00+12:00", 422),
        ("9999-12-31T23:59:59-12:00", 422),
        ("1234567", 422),
        ("yesterday", 422),
    ],
)
def test_a_moment_is_taken_in_any_time_zone_and_nothing_else_for_one(
    client: TestClient, moment: str, status: int
) -> None:
    for name in ("created_after", "created_before"):
        assert client.get("/jobs/", params={name: moment}).status_code == status
