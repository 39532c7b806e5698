"""Backpressure: what cannot be taken is refused before its body is read, and says when to come back."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from sqlalchemy import update

from api import admission
from app import create_app
from config import Settings
from database import transaction
from jobs.states import Status
from models import Job
from tests.api_client import WAV, files_below, rows
from tests.checker import database_away, finish, job_in, new_job, take

HOUR_S = 3600
Answer = tuple[int, dict[bytes, bytes]]


@pytest.fixture(autouse=True)
def look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LOOK_EVERY_S", 0)


def post(settings: Settings, path: str = "/transcribe/") -> Answer:
    """Status and headers of a POST whose body must not be asked for."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", b"1000")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "root_path": ""}
    asyncio.run(create_app(settings)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def is_refused(settings: Settings, path: str = "/transcribe/", **changes: object) -> bool:
    try:
        status, headers = post(settings.model_copy(update=changes), path)
    except AssertionError:
        return False
    return (status, headers[b"content-type"]) == (503, b"application/problem+json") and int(headers[b"retry-after"]) > 0


@pytest.mark.parametrize("path", ["/transcribe/", "/transcribe/batch"])
def test_above_so_many_waiting_jobs_no_body_is_read(settings: Settings, path: str) -> None:
    new_job()
    assert not is_refused(settings, path, max_waiting_jobs=2)
    waiting = new_job()
    assert is_refused(settings, path, max_waiting_jobs=2)
    assert not is_refused(settings, path, max_waiting_jobs=0), "0 is no limit"
    take(waiting, settings)
    assert not is_refused(settings, path, max_waiting_jobs=2), "what runs does not wait"


def of_bytes(size: int, **columns: object) -> None:
    job_id = new_job()
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(size_bytes=size, **columns))


def test_audio_that_waits_is_estimated_from_its_bytes(settings: Settings) -> None:
    of_bytes(HOUR_S * 16_000)
    assert is_refused(settings, max_waiting_audio_hours=0.99)
    assert not is_refused(settings, max_waiting_audio_hours=1.01)


def test_the_estimate_learns_from_the_last_results(settings: Settings) -> None:
    of_bytes(HOUR_S * 32_000)
    with transaction() as session:  # 1.5 s took 48,000 bytes
        fence = take(new_job(), settings).fence
        session.execute(update(Job).where(Job.id == fence.job_id).values(size_bytes=48_000))
    finish(fence)
    assert is_refused(settings, max_waiting_audio_hours=0.99)
    assert not is_refused(settings, max_waiting_audio_hours=1.01)


def test_audio_that_was_probed_before_counts_as_it_is(settings: Settings) -> None:
    of_bytes(1, audio={"duration": 2.0 * HOUR_S})
    of_bytes(1, audio={"duration": None})
    assert is_refused(settings, max_waiting_audio_hours=1.99)
    assert not is_refused(settings, max_waiting_audio_hours=2.01)


def test_below_the_free_disk_floor_no_body_is_read(settings: Settings) -> None:
    assert not is_refused(settings, min_free_disk_mb=0)
    assert is_refused(settings, min_free_disk_mb=10**9)


def test_without_its_database_no_body_is_read(settings: Settings) -> None:
    with database_away():
        assert is_refused(settings)


def test_operators_see_that_and_why_recordings_are_refused(settings: Settings, client: Client) -> None:
    assert client.get("/admin/health").json()["backlog"] == {
        "jobs": 0, "audio_seconds": 0.0, "accepting": True, "reason": None,
    }  # fmt: skip
    client.app.state.admission._settings = settings.model_copy(update={"max_waiting_jobs": 1})  # type: ignore[attr-defined]
    new_job()
    health = client.get("/admin/health").json()
    assert (health["backlog"]["jobs"], health["backlog"]["accepting"]) == (1, False)
    assert "new recordings are refused: 1 jobs are waiting, as many as are accepted." in health["problems"]


def test_reading_goes_on_while_recordings_are_refused(settings: Settings, client: Client) -> None:
    client.app.state.admission._settings = settings.model_copy(update={"max_waiting_jobs": 1})  # type: ignore[attr-defined]
    job = job_in(Status.PENDING, settings)
    refused = client.post("/transcribe/", files={"file": ("a.wav", WAV)})
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert client.get(f"/transcribe/{job.id}").status_code == 200
    assert client.delete(f"/transcribe/{job.id}").status_code == 200
    assert client.post("/transcribe/", files={"file": ("a.wav", WAV)}).status_code == 202


def disk_full(after_bytes: int) -> Callable[[int, Any], int]:
    """os.write of a disk with room for so many bytes."""
    room, really = [after_bytes], os.write

    def write(fd: int, data: Any) -> int:
        if room[0] < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(data)
        return really(fd, data)

    return write


@pytest.mark.parametrize(("path", "field"), [("/transcribe/", "file"), ("/transcribe/batch", "files")])
def test_a_disk_that_fills_up_under_a_body_is_507_and_leaves_nothing(
    client: Client, data_dir: Path, monkeypatch: pytest.MonkeyPatch, path: str, field: str
) -> None:
    parts = [(field, ("a.wav", WAV)), (field, ("b.wav", WAV))][: 2 if field == "files" else 1]
    monkeypatch.setattr("storage.local.os.write", disk_full(len(WAV) + 10 if field == "files" else 10))
    answer = client.post(path, files=parts)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    monkeypatch.undo()
    assert files_below(data_dir / "audio") == []
    assert rows("SELECT count(*) FROM transcription_jobs") == [(0,)]
    assert client.post(path, files=parts).status_code == 202
