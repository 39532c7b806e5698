"""A job followed by server-sent events: everything, once, in order, as it happens."""

import socket
import threading
import uuid
from collections.abc import Iterator
from itertools import islice
from random import Random

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

import errors
from api import events, watch
from config import Settings
from database import transaction
from jobs import dead
from models import ErrorLog, JobEvent
from tests.api_client import rows
from tests.followed import (
    WHOLE,
    Life,
    Running,
    Told,
    code_of,
    following,
    key_of,
    serving,
    told,
    websocket,
    without_progress,
)
from tests.processes import until


@pytest.fixture
def api(settings: Settings) -> Iterator[Running]:
    with serving(settings) as running:
        yield running


@pytest.fixture
def http(api: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, timeout=20) as client:
        yield client


def test_events_come_in_order_while_the_job_runs(http: httpx.Client, settings: Settings) -> None:
    job = Life(http, settings)
    with following(http, job) as seen:
        assert [told(next(seen)) for _ in range(2)] == [("status", "pending"), ("progress", 0)]
        job.begin()
        assert [told(next(seen)) for _ in range(2)] == [("status", "processing"), ("progress", 0)]
        for number, text in enumerate(("one", "two")):
            job.save(text)  # it is not final yet, and its text is here
            assert [told(next(seen)) for _ in range(2)] == [("segment", text), ("progress", 10 * (number + 1))]
        job.finish()
        assert [told(one) for one in seen] == [("status", "completed")]


def test_a_final_job_tells_everything_and_ends(http: httpx.Client, settings: Settings) -> None:
    job = Life(http, settings).whole("one", "two")
    with connect_sse(http, "GET", f"/transcribe/{job.id}/events") as source:
        seen = list(source.iter_sse())
    assert [told(one) for one in seen] == WHOLE
    assert [one.retry for one in seen] == [2000, *[None] * 4]
    assert source.response.headers["content-type"].startswith("text/event-stream")
    assert source.response.headers["cache-control"] == "no-store"
    assert source.response.headers["x-accel-buffering"] == "no"
    segment, status = seen[2].json(), seen[-1].json()
    assert segment == http.get(f"/transcribe/{job.id}/segments").json()["segments"][0]
    assert {key: status[key] for key in ("job_id", "attempt", "error")} == {
        "job_id": job.id,
        "attempt": 1,
        "error": None,
    }


def test_a_stream_goes_on_after_any_of_its_events(http: httpx.Client, settings: Settings) -> None:
    job = Life(http, settings).whole("one", "two")
    with following(http, job) as events_:
        seen = list(events_)
    assert len({one.id for one in seen}) == len(WHOLE)
    for position, one in enumerate(seen[:-1], start=1):
        with following(http, job, after=one.id) as rest:
            assert [told(one) for one in rest] == WHOLE[position:]
    answer = http.get(f"/transcribe/{job.id}/events", headers={"Last-Event-ID": seen[-1].id})
    assert (answer.status_code, answer.content) == (204, b"")  # or an EventSource would come back for ever


def test_who_reconnects_after_every_event_misses_none_and_sees_none_twice(
    http: httpx.Client, settings: Settings
) -> None:
    job = Life(http, settings)
    steps = iter([job.begin, lambda: job.save("one"), lambda: job.save("two"), job.finish])
    seen: list[Told] = []
    after = ""
    while seen[-1:] != WHOLE[-1:]:
        with following(http, job, after) as stream:
            event = next(stream)
        seen.append(told(event))
        after = event.id
        if event.event == "progress":  # all that has happened was told
            next(steps)()
    assert without_progress(seen) == WHOLE


def test_who_reconnects_again_and_again_while_a_job_is_fast_sees_each_event_once(
    http: httpx.Client, settings: Settings
) -> None:
    texts = [str(number) for number in range(60)]
    job = Life(http, settings)
    worker = threading.Thread(target=job.whole, args=texts)
    worker.start()
    seen: list[ServerSentEvent] = []
    chance = Random(0)
    while not seen or told(seen[-1]) != WHOLE[-1]:
        with following(http, job, after=seen[-1].id if seen else "") as stream:
            seen += islice(stream, chance.randint(1, 12))
    worker.join()
    assert without_progress([told(one) for one in seen]) == [
        *WHOLE[:2], *(("segment", text) for text in texts), WHOLE[-1]
    ]  # fmt: skip


def test_a_silent_stream_is_kept_alive(
    api: Running, http: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.1)
    job = Life(http, settings)
    with http.stream("GET", f"/transcribe/{job.id}/events") as answer:
        lines = answer.iter_lines()
        assert [line for line in (next(lines) for _ in range(20)) if line.startswith(":")][:2] == [": keep-alive"] * 2
    until(lambda: api.watched == 0)  # who has gone is not watched for


def test_a_client_that_does_not_read_holds_nobody_up(api: Running, http: httpx.Client, settings: Settings) -> None:
    texts = [str(number) + 500_000 * "x" for number in range(20)]  # more than the buffers between them hold
    job = Life(http, settings).begin()
    with socket.socket() as asleep, following(http, job) as seen:
        asleep.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # some systems hold 32 MB for who does not read
        asleep.connect(("127.0.0.1", int(api.url.rpartition(":")[2])))
        asleep.sendall(f"GET /transcribe/{job.id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: api.watched == 2)
        for text in texts:
            job.save(text)
        job.finish()
        assert [told(one)[1] for one in seen if one.event == "segment"] == texts
        assert api.watched == 1  # the other one is still in the middle
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += asleep.recv(1 << 20)
        assert all(text.encode() in received for text in texts)
    until(lambda: api.watched == 0)


def test_unknown_jobs_and_bad_positions_are_problems_before_any_stream(http: httpx.Client, settings: Settings) -> None:
    answer = http.get(f"/transcribe/{uuid.uuid4()}/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"
    job = Life(http, settings).whole("one")
    for bad in ("12", "1.2.3", "-1.2", "a.b", "1." + "9" * 19, "²2.1"):
        answer = http.get(f"/transcribe/{job.id}/events", headers=[(b"Last-Event-ID", bad.encode("latin-1"))])
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option"), bad
        assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


def test_a_job_is_followed_by_its_owner_alone(http: httpx.Client, settings: Settings) -> None:
    mine, yours = key_of("mine", settings), key_of("yours", settings)
    http.headers["X-API-Key"] = mine
    job = Life(http, settings).whole("one", "two")
    with following(http, job) as seen:
        assert [told(one) for one in seen] == WHOLE
    assert http.get(f"/transcribe/{job.id}/events", headers={"X-API-Key": yours}).status_code == 404
    assert http.get(f"/transcribe/{job.id}/events", headers={"X-API-Key": "none"}).status_code == 401
    with websocket(http, job, key=yours) as stream:
        assert code_of(stream) == 4404


def test_a_replayed_job_tells_why_it_failed_and_goes_on(http: httpx.Client, settings: Settings) -> None:
    job = Life(http, settings).begin()
    job.fail()
    with following(http, job) as stream:
        seen = list(stream)
    assert told(seen[-1]) == ("status", "failed")
    assert seen[-1].json()["error"]["code"] == "internal_error"
    with transaction() as session:
        dead.replay(session, session.query(ErrorLog).one().id)
    with following(http, job, after=seen[-1].id) as stream:
        assert [told(next(stream)) for _ in range(2)] == [("status", "pending"), ("progress", 0)]
        job.whole("one")
        assert without_progress([told(one) for one in stream]) == [
            ("status", "processing"), ("segment", "one"), ("status", "completed")
        ]  # fmt: skip


def test_a_job_without_its_history_still_tells_its_end(http: httpx.Client, settings: Settings) -> None:
    job = Life(http, settings).whole("one")
    with transaction() as session:
        session.query(JobEvent).delete()
    with following(http, job) as stream:
        seen = list(stream)
    assert [told(one) for one in seen] == [("segment", "one"), ("status", "completed")]
    with following(http, job, after=seen[0].id) as stream:
        assert [told(one) for one in stream] == [("status", "completed")]
    answer = http.get(f"/transcribe/{job.id}/events", headers={"Last-Event-ID": seen[1].id})
    assert answer.status_code == 204


def test_streams_are_refused_for_a_while_when_the_database_is_away(
    http: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Life(http, settings)

    def away(question: object) -> watch.Changes:
        raise errors.Unavailable("The database is away.")

    monkeypatch.setattr(watch, "_changes", away)
    answer = http.get(f"/transcribe/{job.id}/events")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    with websocket(http, job) as stream:
        assert code_of(stream) == 1013


def test_a_service_that_stops_ends_its_streams_at_once(settings: Settings) -> None:
    with serving(settings) as running, httpx.Client(base_url=running.url, timeout=20) as http:
        job = Life(http, settings)
        with following(http, job) as seen, websocket(http, job) as stream:
            assert [told(next(seen)) for _ in range(2)] == [("status", "pending"), ("progress", 0)]
            stream.recv(timeout=10)
            running.server.should_exit = True
            running.thread.join(5)  # half of what uvicorn would wait for them
            assert not running.thread.is_alive()
            assert list(seen) == []
            assert code_of(stream) == 1012


def test_a_job_that_is_purged_ends_its_streams(
    http: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.2)  # before the first watcher comes
    job = Life(http, settings).begin()
    with following(http, job) as seen, websocket(http, job) as stream:
        assert [told(next(seen))[0] for _ in range(3)] == ["status", "status", "progress"]
        rows(f"DELETE FROM transcription_jobs WHERE id = '{job.id}' RETURNING id")  # noqa: S608
        assert list(seen) == []
        assert code_of(stream) == 1012
        assert http.get(f"/transcribe/{job.id}/events").status_code == 404


def test_the_stream_is_described(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()["paths"]["/transcribe/{job_id}/events"]["get"]
    assert set(described["responses"]) == {"200", "204", "401", "403", "404", "422", "429", "503"}
    assert list(described["responses"]["200"]["content"]) == ["text/event-stream"]
