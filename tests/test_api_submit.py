"""POST /transcribe/ and /transcribe/batch: what is accepted is durable, what is refused leaves nothing behind."""

import hashlib
import json
from pathlib import Path

import pytest
from httpx import Client

from tests.api_client import WAV, files_below, rows


def test_a_recording_is_accepted_with_its_location_and_a_request_id(client: Client) -> None:
    answer = client.post("/transcribe/", files={"file": ("talk.wav", WAV)})
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == body["status_url"] == f"/transcribe/{body['job_id']}"
    assert body["status"] == "pending"
    assert answer.headers["x-request-id"]
    job = client.get(body["status_url"]).json()
    assert (job["status"], job["filename"], job["queue_position"], job["result"]) == ("pending", "talk.wav", 1, None)


def test_the_stored_file_is_the_one_that_was_sent(client: Client, data_dir: Path) -> None:
    client.post("/transcribe/", files={"file": ("talk.wav", WAV)})
    (stored,) = files_below(data_dir / "audio")
    assert stored.read_bytes() == WAV
    ((sha, size),) = rows("SELECT sha256, size_bytes FROM transcription_jobs")
    assert (sha, size) == (hashlib.sha256(WAV).hexdigest(), len(WAV))


def test_every_option_is_kept_with_the_job(client: Client) -> None:
    options = {
        "model_size": "small",
        "language": "German",
        "languages": "",
        "task": "translate",
        "priority": "high",
        "word_timestamps": "true",
        "initial_prompt": "Guten Tag",
        "hotwords": "Kraftwerk",
        "vad_filter": "false",
        "vad_threshold": "0.3",
        "audio_track": "1",
        "channels": "separate",
        "condition_on_previous_text": "true",
        "temperature": "0.2",
        "beam_size": "2",
        "metadata": json.dumps({"customer": 7}),
        "delete_after_seconds": "3600",
    }
    job_id = client.post("/transcribe/", files={"file": ("a.wav", WAV)}, data=options).json()["job_id"]
    job = client.get(f"/transcribe/{job_id}").json()
    assert (job["model_size"], job["language"], job["task"], job["priority"]) == ("small", "de", "translate", "high")
    assert job["metadata"] == {"customer": 7}
    ((kept, delete_after_s),) = rows("SELECT options, delete_after_s FROM transcription_jobs")
    assert delete_after_s == 3600
    assert kept == {
        "word_timestamps": True,
        "initial_prompt": "Guten Tag",
        "hotwords": "Kraftwerk",
        "vad_filter": False,
        "vad_threshold": 0.3,
        "audio_track": "1",
        "channels": "separate",
        "condition_on_previous_text": True,
        "temperature": 0.2,
        "beam_size": 2,
        "languages": [],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_size", "enormous"),
        ("model_size", "/etc/passwd"),
        ("language", "klingon"),
        ("task", "summarise"),
        ("priority", "urgent"),
        ("beam_size", "0"),
        ("beam_size", "many"),
        ("temperature", "2"),
        ("metadata", "not json"),
        ("metadata", "[1]"),
        ("metadata", json.dumps({"x": "y" * 20_000})),
        ("word_timestamp", "true"),
    ],
)
def test_a_bad_option_is_named_and_nothing_is_stored(client: Client, data_dir: Path, name: str, value: str) -> None:
    answer = client.post("/transcribe/", files={"file": ("a.wav", WAV)}, data={name: value})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert [item["field"] for item in problem["errors"]] == [name]
    assert problem["code"] == "invalid_option"
    assert files_below(data_dir / "audio") == []
    assert rows("SELECT count(*) FROM transcription_jobs") == [(0,)]


def test_a_model_that_cannot_translate_refuses_to(client: Client) -> None:
    options = {"model_size": "small.en", "task": "translate", "language": "de"}
    problem = client.post("/transcribe/", files={"file": ("a.wav", WAV)}, data=options).json()
    assert {item["field"] for item in problem["errors"]} == {"task", "language"}


def test_a_file_that_is_no_media_by_name_and_content_is_refused(client: Client, data_dir: Path) -> None:
    answer = client.post("/transcribe/", files={"file": ("notes.docx", b"hello " * 100)})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")
    assert files_below(data_dir / "audio") == []


def test_media_under_a_strange_name_is_accepted_by_its_content(client: Client) -> None:
    assert client.post("/transcribe/", files={"file": ("recording.bin", WAV)}).status_code == 202


def test_an_empty_file_and_a_missing_file_are_refused(client: Client) -> None:
    empty = client.post("/transcribe/", files={"file": ("a.wav", b"")})
    assert (empty.status_code, empty.json()["errors"][0]["field"]) == (422, "file")
    missing = client.post("/transcribe/", files={"recording": ("a.wav", WAV)})
    assert (missing.status_code, missing.json()["errors"][0]["field"]) == (422, "recording")
    nothing = client.post("/transcribe/", content=b"{}", headers={"content-type": "application/json"})
    assert (nothing.status_code, nothing.json()["errors"][0]["field"]) == (422, "file")
    no_form = client.post("/transcribe/", content=b"{}", headers={"content-type": "text/plain"})
    assert (no_form.status_code, no_form.json()["errors"][0]["field"]) == (422, "body")


def test_a_body_that_breaks_off_leaves_nothing(client: Client, data_dir: Path) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post("/transcribe/", content=head + WAV, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    assert files_below(data_dir / "audio") == []


def test_names_from_callers_never_become_paths(client: Client, data_dir: Path) -> None:
    for name in ("../../etc/passwd.wav", "a/b\\c\nd.wav", "x" * 300 + ".wav", "тест 音.wav"):
        answer = client.post("/transcribe/", files={"file": (name, WAV)})
        job = client.get(answer.headers["location"]).json()
        assert "/" not in job["filename"]
        assert "\n" not in job["filename"]
        assert len(job["filename"]) <= 255
    assert len(files_below(data_dir / "audio")) == 4
    assert not list(data_dir.rglob("*.wav"))


def test_one_bad_file_does_not_sink_the_batch(client: Client) -> None:
    parts = [
        ("files", ("a.wav", WAV)),
        ("files", ("notes.docx", b"hello " * 100)),
        ("files", ("empty.wav", b"")),
        ("files", ("b.wav", WAV)),
    ]
    answer = client.post("/transcribe/batch", files=parts, data={"priority": "high"})
    assert answer.status_code == 202
    body = answer.json()
    assert [job["filename"] for job in body["jobs"]] == ["a.wav", "b.wav"]
    assert [(bad["filename"], bad["code"]) for bad in body["errors"]] == [
        ("notes.docx", "unsupported_media"),
        ("empty.wav", "invalid_option"),
    ]
    batch = client.get(answer.headers["location"]).json()
    assert batch["status"] == "processing"
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 0, "cancelled": 0}
    assert {job["priority"] for job in batch["jobs"]} == {"high"}
    assert batch["errors"] == body["errors"]


def test_a_file_over_the_cap_is_refused_and_named(client: Client, data_dir: Path) -> None:
    big = WAV + bytes(1024 * 1024)
    alone = client.post("/transcribe/", files={"file": ("big.wav", big)})
    assert (alone.status_code, alone.json()["code"]) == (413, "too_large")
    parts = [("files", ("big.wav", big)), ("files", ("a.wav", WAV))]
    batch = client.post("/transcribe/batch", files=parts).json()
    assert [bad["code"] for bad in batch["errors"]] == ["too_large"]
    assert len(files_below(data_dir / "audio")) == 1
