"""Who waits for a slow store, a slow Redis or a long transcript holds up nobody else."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Semaphore
from typing import Any
from uuid import UUID

import httpx
import pytest

from access.limits import RateLimiter
from api import openai_answers
from config import Settings
from storage.local import LocalStorage
from tests.api_client import WAV, files_below
from tests.checker import complete, job_now
from tests.followed import Life, Running, key_of, serving
from tests.processes import until

CALLERS = 10  # more than there are threads for the database
AT_ONCE_S = 3.0  # far less than a slow call takes
STANDS_S = 60.0


@dataclass
class Slow:
    """Calls that stand still until they may go on."""

    begun: Semaphore = field(default_factory=lambda: Semaphore(0))
    goes_on: Event = field(default_factory=Event)

    def stand(self) -> None:
        self.begun.release()
        assert self.goes_on.wait(STANDS_S)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*given: Any, **named: Any) -> Any:
            self.stand()
            return call(*given, **named)

        return slowly


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.goes_on.set()


@pytest.fixture
def running(settings: Settings) -> Iterator[Running]:
    with serving(settings.model_copy(update={"db_pool_size": 4})) as running:
        yield running


@pytest.fixture
def http(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=30) as http:
        yield http


@contextmanager
def standing(slow: Slow, count: int, ask: Callable[[], httpx.Response]) -> Iterator[list["Future[httpx.Response]"]]:
    """While the block runs, `count` of the callers stand still; behind it all have their answers."""
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = [pool.submit(ask) for _ in range(CALLERS)]
        try:
            for _ in range(count):
                assert slow.begun.acquire(timeout=20)
            yield answers
            assert not any(answer.done() for answer in answers)
        finally:
            slow.goes_on.set()


def assert_others_are_answered(http: httpx.Client, job_id: str, **headers: str) -> None:
    for path in (f"/transcribe/{job_id}", "/jobs/", "/health/ready"):
        assert http.get(path, headers=headers, timeout=AT_ONCE_S).status_code == 200, path


def test_downloads_from_a_slow_store_hold_up_no_poll_and_no_probe(
    http: httpx.Client, settings: Settings, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Life(http, settings)
    monkeypatch.setattr(LocalStorage, "exists", slow.before(LocalStorage.exists))
    with standing(slow, CALLERS, lambda: httpx.get(f"{http.base_url}/transcribe/{job.id}/audio", timeout=60)) as found:
        assert_others_are_answered(http, job.id)
    assert [answer.result().content for answer in found] == [WAV] * CALLERS


def test_transcripts_that_are_put_into_a_slow_store_hold_up_no_poll_and_no_probe(
    http: httpx.Client, settings: Settings, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Life(http, settings).whole("one")
    url = f"{http.base_url}/transcribe/{job.id}/result?redirect=true"
    monkeypatch.setattr(LocalStorage, "presigned_url", lambda *_, **__: "http://127.0.0.1/there")
    monkeypatch.setattr(LocalStorage, "create", slow.before(LocalStorage.create))
    with standing(slow, CALLERS, lambda: httpx.get(url, timeout=60)) as found:
        assert_others_are_answered(http, job.id)
    assert {answer.result().status_code for answer in found} == {307}


def test_refused_recordings_in_a_slow_store_hold_up_no_poll_and_no_probe(
    http: httpx.Client, settings: Settings, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored before the refusal is deleted again, slowly."""
    job = Life(http, settings)
    before = files_below(settings.storage_dir)
    monkeypatch.setattr(LocalStorage, "delete", slow.before(LocalStorage.delete))

    def refused() -> httpx.Response:
        sent = {"files": {"file": ("a.wav", WAV)}, "data": {"language": "klingon"}}
        return httpx.post(f"{http.base_url}/transcribe/", timeout=60, **sent)  # type: ignore[arg-type]

    with standing(slow, CALLERS, refused) as found:
        assert_others_are_answered(http, job.id)
    assert {answer.result().status_code for answer in found} == {422}
    assert files_below(settings.storage_dir) == before


def test_purges_in_a_slow_store_leave_connections_to_all_others_and_delete_everything(
    http: httpx.Client, settings: Settings, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge deletes while its row is locked, so it holds a connection: no more than two do at once."""
    stays = Life(http, settings)
    kept = files_below(settings.storage_dir)
    waiting = iter([Life(http, settings).whole("one").id for _ in range(CALLERS)])
    monkeypatch.setattr(LocalStorage, "delete", slow.before(LocalStorage.delete))

    def purge() -> httpx.Response:
        return httpx.delete(f"{http.base_url}/transcribe/{next(waiting)}?purge=true", timeout=60)

    with standing(slow, 2, purge) as found:
        assert_others_are_answered(http, stays.id)
    assert {answer.result().status_code for answer in found} == {204}
    assert files_below(settings.storage_dir) == kept


def test_calls_that_redis_counts_hold_up_no_call_that_it_does_not(
    http: httpx.Client, settings: Settings, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Life(http, settings)
    counted = key_of("counted", settings, rate_limit_per_minute=1000)
    free = key_of("free", settings)
    monkeypatch.setattr(RateLimiter, "hit", slow.before(RateLimiter.hit))
    ask = lambda: httpx.get(f"{http.base_url}/jobs/", headers={"X-API-Key": counted}, timeout=60)  # noqa: E731
    with standing(slow, 8, ask) as found:
        assert http.get("/jobs/", headers={"X-API-Key": free}, timeout=AT_ONCE_S).status_code == 200
        assert http.get("/health/ready", timeout=AT_ONCE_S).status_code == 200
        assert job_now(UUID(job.id)).status == "pending"
    assert {answer.result().status_code for answer in found} == {200}


def test_a_transcript_of_hours_is_written_beside_the_answers_to_others(
    http: httpx.Client, settings: Settings, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the event loop, which all requests share."""
    monkeypatch.setattr(openai_answers, "answer", slow.before(openai_answers.answer))

    def transcribe() -> httpx.Response:
        given = {"model": "whisper-1", "response_format": "verbose_json"}
        url = f"{http.base_url}/v1/audio/transcriptions"
        return httpx.post(url, files={"file": ("a.wav", WAV)}, data=given, timeout=60)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(transcribe)
        try:
            until(lambda: http.get("/jobs/").json()["data"])
            complete(UUID(http.get("/jobs/").json()["data"][0]["job_id"]), " one", settings)
            assert slow.begun.acquire(timeout=20)
            assert http.get("/health/live", timeout=AT_ONCE_S).status_code == 200
        finally:
            slow.goes_on.set()
        assert answer.result(30).json()["task"] == "transcribe"
