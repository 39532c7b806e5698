"""The recording comes back as it was sent, whole or in ranges; and what the store can hand out itself, it does."""

from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app import create_app
from config import Settings
from jobs.files import TRANSCRIPTS, transcript_key
from storage import open_storage
from tests.api_client import WAV, files_below
from tests.checker import complete
from tests.s3_server import CREDENTIALS, s3_server, use_credentials

SIZE = len(WAV)


def submit(client: TestClient, name: str = "talk.wav") -> UUID:
    return UUID(client.post("/transcribe/", files={"file": (name, WAV)}).json()["job_id"])


def test_the_recording_comes_back_as_it_was_sent(client: TestClient) -> None:
    answer = client.get(f"/transcribe/{submit(client, 'Täglich.wav')}/audio")
    assert (answer.status_code, answer.content) == (200, WAV)
    assert answer.headers["content-type"] in ("audio/x-wav", "audio/wav")
    assert answer.headers["content-length"] == str(SIZE)
    assert "T%C3%A4glich.wav" in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=100-199", (100, 200)),
        (f"bytes={SIZE - 5}-", (SIZE - 5, SIZE)),
        ("bytes=-7", (SIZE - 7, SIZE)),
        (f"bytes=-{SIZE * 2}", (0, SIZE)),
        (f"bytes=10-{SIZE * 9}", (10, SIZE)),
    ],
)
def test_a_range_is_what_was_asked_for(client: TestClient, asked: str, part: tuple[int, int]) -> None:
    answer = client.get(f"/transcribe/{submit(client)}/audio", headers={"Range": asked})
    start, end = part
    assert (answer.status_code, answer.content) == (206, WAV[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0", f"bytes={SIZE * 2}-{SIZE * 3}", "bytes=9-3"])
def test_a_range_outside_is_refused(client: TestClient, asked: str) -> None:
    answer = client.get(f"/transcribe/{submit(client)}/audio", headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "seconds=0-1", "bytes=-", "nonsense"])
def test_a_range_that_we_do_not_know_is_answered_with_everything(client: TestClient, asked: str) -> None:
    answer = client.get(f"/transcribe/{submit(client)}/audio", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, WAV)


def test_local_files_have_no_address_of_their_own(client: TestClient) -> None:
    answer = client.get(f"/transcribe/{submit(client)}/audio", params={"redirect": True}, follow_redirects=False)
    assert (answer.status_code, answer.content) == (200, WAV)


def test_a_recording_that_is_yet_to_be_fetched_is_a_conflict(client: TestClient) -> None:
    job_id = client.post("/transcribe/", data={"url": "https://example.com/a.wav"}).json()["job_id"]
    assert client.get(f"/transcribe/{job_id}/audio").status_code == 409


@pytest.fixture
def in_s3(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    use_credentials(monkeypatch, CREDENTIALS)
    with s3_server() as new_bucket:
        bucket = new_bucket()
        there = {"storage_url": f"s3://{bucket.name}/recordings", "s3_endpoint_url": bucket.endpoint_url}
        with TestClient(
            create_app(settings.model_copy(update=there)), base_url="http://127.0.0.1", follow_redirects=False
        ) as client:
            yield client


def test_with_recordings_in_s3_both_downloads_may_be_redirected_there(in_s3: TestClient, data_dir: Path) -> None:
    job_id = submit(in_s3)
    audio = in_s3.get(f"/transcribe/{job_id}/audio", params={"redirect": True})
    assert audio.status_code == 307
    with urlopen(audio.headers["location"], timeout=10) as stored:
        assert stored.read() == WAV
    complete(job_id, " hello", in_s3.app.state.settings)  # type: ignore[attr-defined]
    result = in_s3.get(f"/transcribe/{job_id}/result", params={"format": "srt", "redirect": True})
    assert result.status_code == 307
    with urlopen(result.headers["location"], timeout=10) as stored:
        assert "hello" in stored.read().decode()
        assert "talk.srt" in stored.headers["content-disposition"]
    assert files_below(data_dir / "audio") == []


def test_a_purge_leaves_neither_recording_nor_transcripts_in_s3(in_s3: TestClient) -> None:
    job_id = submit(in_s3)
    complete(job_id, " hello", in_s3.app.state.settings)  # type: ignore[attr-defined]
    for name in TRANSCRIPTS:
        wanted = f"format={name.removeprefix('corrected.')}&corrected={name.startswith('corrected.')}"
        in_s3.get(f"/transcribe/{job_id}/result?{wanted}&redirect=true")
    storage = open_storage(in_s3.app.state.settings)  # type: ignore[attr-defined]
    assert all(storage.exists(transcript_key(job_id, name)) for name in TRANSCRIPTS)
    assert in_s3.delete(f"/transcribe/{job_id}", params={"purge": True}).status_code == 204
    assert not any(storage.exists(transcript_key(job_id, name)) for name in TRANSCRIPTS)
