"""PostgreSQL may be restarted at any moment, and a connection cut at any byte: what was answered 202 is there."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from engines.fake import encode_script
from tests.faults.harness import Sent, Service, note_time, scaled
from tests.faults.proxy import Moment, Proxy
from tests.processes import is_gone, until

pytestmark = pytest.mark.timeout(scaled(300, 1200))


def crash(service: Service) -> None:
    """An immediate shutdown: the next start recovers from the log."""
    os.kill(service.postgres.pid, signal.SIGQUIT)
    until(lambda: is_gone(service.postgres.pid))
    service.postgres.kill()


@pytest.mark.parametrize("seed", range(scaled(2, 20)))
def test_fault_8_a_postgresql_that_crashes_at_a_random_moment_keeps_what_it_answered(
    service: Service, seed: int
) -> None:
    random = Random(seed)
    jobs = [service.submit(sleep=random.uniform(0, 1)) for _ in range(6)]
    Event().wait(random.uniform(0, 2))
    crash(service)
    service.restart_postgres()
    back = time.monotonic()
    service.completed(*jobs)
    note_time(8, "PostgreSQL crashed and restarted", time.monotonic() - back)
    assert all(service.counters(job)[1:3] == (0, 0) for job in jobs)  # no fault of theirs


def test_fault_8_a_submit_while_postgresql_is_away_is_refused_and_leaves_no_job(service: Service) -> None:
    crash(service)
    assert service.try_submit() is None
    service.restart_postgres()
    assert service.rows("SELECT id FROM transcription_jobs") == []
    service.completed(service.submit())


FINISH = "SET status='completed'"
CUTS: dict[str, tuple[str, str, dict[str, Any], tuple[int, int, int, int]]] = {
    "claim": ("worker", "SET status='processing'", {}, (1, 0, 0, 0)),
    "checkpoint": ("worker", "INSERT INTO transcript_segments", {}, (1, 0, 0, 0)),
    "finish": ("worker", FINISH, {}, (1, 0, 0, 0)),
    "fail": ("worker", "SET status='pending', failures=1", {"raise_": "value_error"}, (2, 1, 0, 0)),
}


@pytest.mark.parametrize("write", CUTS)
def test_fault_9_a_write_whose_commit_was_not_answered_counts_once(service: Service, write: str) -> None:
    """The connection is cut when the COMMIT has reached the server and before its reply."""
    name, statement, script, expected = CUTS[write]
    with service.proxies[name].trap(statement, Moment.REPLY) as trap:
        job = service.submit_once(**script)
        assert trap.sprung.wait(30)
        cut = time.monotonic()
        service.completed(job)
    note_time(9, f"connection cut after the COMMIT of a {write}", time.monotonic() - cut)
    assert service.counters(job) == expected


def test_fault_9_a_submit_whose_commit_was_not_answered_is_refused_and_whole(service: Service) -> None:
    """503: the caller does not know, and may ask; the job is not half there."""
    with service.proxies["api"].trap("INSERT INTO transcription_jobs", Moment.REPLY) as trap:
        assert service.try_submit() is None
        assert trap.sprung.is_set()
    (row,) = service.rows("SELECT id FROM transcription_jobs")
    service.completed(Sent(row["id"], service.folder))


@pytest.mark.parametrize("api_dies", [False, True])
def test_fault_9_a_submit_with_an_idempotency_key_may_be_sent_again_and_is_the_same_job(
    service: Service, api_dies: bool
) -> None:
    """The connection is cut, or the API killed, between the COMMIT and the reply."""
    recording, key = encode_script({"text": "hello"}, 1), {"Idempotency-Key": uuid4().hex}

    def send() -> httpx.Response:
        files, form = {"file": ("same.wav", recording)}, {"vad_filter": "false", "language": "en"}
        return httpx.post(f"{service.url}/transcribe/", files=files, data=form, headers=key, timeout=30)

    service.in_doubt.add("same.wav")
    moment = Moment.SILENCE if api_dies else Moment.REPLY
    with service.proxies["api"].trap("INSERT INTO idempotency_keys", moment) as trap, ThreadPoolExecutor(1) as caller:
        first = caller.submit(send)
        assert trap.sprung.wait(30)
        if api_dies:
            until(lambda: service.rows("SELECT id FROM transcription_jobs"))
            service.processes["api"].kill()
            service.restart("api")
            assert isinstance(first.exception(30), httpx.TransportError)
        else:
            assert first.result(30).status_code == httpx.codes.SERVICE_UNAVAILABLE
    again = send()
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (202, "true")
    (row,) = service.rows("SELECT id FROM transcription_jobs")
    assert UUID(again.json()["job_id"]) == row["id"]
    service.completed(Sent(row["id"], service.folder))


@pytest.mark.parametrize("seed", range(scaled(1, 10)))
def test_fault_9_a_worker_whose_connections_are_cut_at_random_bytes_loses_nothing(service: Service, seed: int) -> None:
    random = Random(seed)
    jobs = [service.submit(sleep=random.uniform(0, 0.5)) for _ in range(6)]
    end = time.monotonic() + 3
    while time.monotonic() < end:
        with service.proxies["worker"].cutting_after(random.randrange(50, 5000)):
            Event().wait(0.3)
    service.completed(*jobs)
    assert all(service.counters(job)[1:3] == (0, 0) for job in jobs)


@pytest.mark.parametrize("seed", range(scaled(4, 40)))
def test_fault_9_an_upload_that_is_cut_at_a_random_byte_leaves_nothing(service: Service, seed: int) -> None:
    with Proxy(service.api_port) as proxy, httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}") as http:
        proxy.budget = Random(seed).randrange(1, 32_000)  # of about 32,700
        assert service.try_submit(http=http) is None
    until(lambda: not list(service.audio.glob("*/*")), 10)
    assert service.rows("SELECT id FROM transcription_jobs") == []


def test_fault_10_a_finish_that_comes_after_the_lease_is_fenced(service: Service) -> None:
    """A partition swallows it; it arrives while the second attempt runs elsewhere."""
    second = service.restart("worker-2")
    late, in_time = service.proxies["worker"], service.proxies["worker-2"]
    with late.trap(FINISH, Moment.STATEMENT) as first_finish, in_time.trap(FINISH, Moment.HOLD) as second_finish:
        with service.frozen(second.pid):
            job = service.submit()
            assert first_finish.sprung.wait(30)
            swallowed = time.monotonic()
        assert second_finish.sprung.wait(30)
        late.open()
        until(lambda: service.has_said("worker", "attempt.fenced", job))
        assert service.rows("SELECT 1 FROM transcription_results") == []
    row = service.completed(job)
    note_time(10, "a worker cut off from PostgreSQL", time.monotonic() - swallowed)
    assert row["attempt"] == 2
    service.retire("worker-2")
