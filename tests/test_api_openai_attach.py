"""Equal requests to /v1: one job while it runs, its text for who lost the answer, a new job afterwards."""

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import api.waiting
import errors
from access import keys
from config import Settings
from database import transaction
from jobs import attach, cancel
from jobs.submit import JobRequest
from tests.api_client import WAV, files_below, rows, wav_of_silence
from tests.checker import fail, job_now, move_back, take
from tests.openai_service import PATH, Service, count, newest, refusal, running
from tests.processes import until
from transcript import DecodeOptions


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    with running(settings) as service:
        yield service


def test_equal_requests_at_once_wait_for_one_job_and_keep_one_recording(service: Service, data_dir: Path) -> None:
    waiting = [service.clients.submit(service.post) for _ in range(8)]
    until(lambda: service.waiting() == 8, 20)
    assert count() == 1
    assert len(files_below(data_dir / "audio")) == 1
    service.complete(" one")
    assert {one.result(timeout=20).json()["text"] for one in waiting} == {"one"}


def test_other_bytes_or_options_make_another_job(service: Service) -> None:
    for number, (wav, fields) in enumerate(
        [
            (WAV, {}),
            (wav_of_silence(0.2), {}),
            (WAV, {"model": "base"}),
            (WAV, {"language": "en"}),
            (WAV, {"prompt": "x"}),
        ],
        start=1,
    ):
        service.begin(wav, **fields)
        assert count() == number


def test_another_caller_has_a_job_of_their_own() -> None:
    request = JobRequest("tiny", decode=DecodeOptions(language="en"))
    assert attach.sameness("key:1", "0" * 64, request) == attach.sameness("key:1", "0" * 64, request)
    assert attach.sameness("key:1", "0" * 64, request) != attach.sameness("key:2", "0" * 64, request)


def leave(service: Service) -> None:
    """A client that sends everything and goes away before its answer."""
    head = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b\r\n'
    part = 'Content-Disposition: form-data; name="file"; filename="other-name.wav"\r\n\r\n'
    body = head.encode() + part.encode() + WAV + b"\r\n--b--\r\n"
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"))
    connection.request("POST", PATH, body, {"Content-Type": "multipart/form-data; boundary=b"})
    until(service.waiting, 10)
    connection.close()


def test_a_client_that_comes_back_while_its_job_runs_is_attached_to_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.waiting, "HEARTBEAT_S", 0.05)
    leave(service)
    until(lambda: service.waiting() == 0, 10)
    again = service.begin()
    assert count() == 1
    service.complete(" one")
    assert again.result(timeout=20).json()["text"] == "one"


def left_alone(service: Service) -> None:
    """A job that is completed, and whose client has gone."""
    leave(service)
    service.complete(" one")
    until(lambda: service.waiting() == 0, 10)
    assert job_now(newest()).answered_at is None


def test_a_client_that_comes_back_when_its_job_is_done_gets_the_text(service: Service) -> None:
    left_alone(service)
    assert service.post().json()["text"] == "one"
    assert count() == 1
    assert job_now(newest()).answered_at is not None


def test_a_client_that_comes_back_too_late_begins_anew(service: Service) -> None:
    left_alone(service)
    with transaction() as session:
        move_back(session, newest(), 601, "completed_at")
    assert service.answer_to(" two").json()["text"] == "two"
    assert count() == 2


def test_a_request_after_the_answer_is_a_new_job(service: Service) -> None:
    for number in (1, 2):
        service.answer_to(" one")
        assert count() == number
    for number in (3, 4):
        service.begin(stream="true")
        service.complete(" one")
        until(lambda: job_now(newest()).answered_at is not None, 10)
        assert count() == number


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_request_after_a_failure_is_a_new_job(service: Service, end: str) -> None:
    waiting = service.begin()
    if end == "failed":
        fail(take(newest(), service.settings).fence, errors.NoAudioStream("No sound."), service.settings)
    else:
        with transaction() as session:
            cancel.cancel(session, newest())
    assert waiting.result(timeout=20).is_error
    assert service.answer_to(" one").json()["text"] == "one"
    assert count() == 2


def test_an_idempotency_key_gives_the_same_answer_for_a_day(service: Service) -> None:
    key = {"Idempotency-Key": "k-1"}
    assert service.answer_to(" one", headers=key).json()["text"] == "one"
    assert service.post(headers=key).json()["text"] == "one"
    assert count() == 1
    others: list[Callable[[], httpx.Response]] = [
        lambda: service.answer_to(" two"),
        lambda: service.answer_to(" two", headers={"Idempotency-Key": "k-2"}),
        lambda: service.answer_to(" two", headers=key, language="en"),
    ]
    for number, other in enumerate(others, start=2):
        assert other().json()["text"] == "two"
        assert count() == number
    with transaction() as session:
        for (job_id,) in rows("SELECT id FROM transcription_jobs"):
            move_back(session, job_id, 86_500, "created_at")
    assert service.answer_to(" three", headers=key).json()["text"] == "three"
    assert refusal(service.post(headers={"Idempotency-Key": "x" * 300}), 400)["param"] == "Idempotency-Key"


def test_a_quota_holds_for_new_jobs_and_not_for_coming_back(service: Service) -> None:
    with transaction() as session:
        _, token = keys.create(session, keys.KeyRequest("one", quota_waiting_jobs=1), service.settings)
    mine = {"Authorization": f"Bearer {token}"}
    first, again = service.begin(headers=mine), service.begin(headers=mine)
    error = refusal(service.post(headers=mine, language="en"), 429)
    assert (error["type"], error["code"]) == ("rate_limit_error", "quota_exceeded")
    service.complete(" one")
    assert first.result(timeout=20).json() == again.result(timeout=20).json()
