"""Who asks again: answered when something has changed (wait), not sent what they have (ETag), or its head alone."""

import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from api import measured
from api.patience import _patience
from config import Settings
from database import transaction
from jobs import cancel
from jobs.states import tell_watchers
from models import Job
from tests.api_client import WAV, rows
from tests.checker import take
from tests.openai_service import Service, newest, running
from tests.processes import until
from tests.test_api_read import claimed, complete, submitted

KEPT = "private, no-cache"


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    with running(settings) as service:
        yield service


# Wait


@pytest.fixture
def job(service: Service) -> str:
    answer = httpx.post(f"{service.url}/transcribe/", files={"file": ("a.wav", WAV)}, timeout=30)
    return f"{service.url}{answer.json()['status_url']}"


def waiting(service: Service, url: str, **options: Any) -> "Future[httpx.Response]":
    answer = service.clients.submit(httpx.get, url, timeout=90, **options)
    until(lambda: service.waiting() or answer.done(), 10)
    assert not answer.done()
    return answer


def test_a_status_that_changes_is_an_answer_long_before_the_time_is_over(service: Service, job: str) -> None:
    answer = waiting(service, job, params={"wait": 60})
    fence = take(newest(), service.settings).fence
    assert answer.result(timeout=15).json()["status"] == "processing"
    answer = waiting(service, job, headers={"Prefer": "respond-async, wait=45"})
    with transaction() as session:
        cancel.cancel(session, fence.job_id)
    told = answer.result(timeout=15)
    assert told.json()["status"] == "cancelled"
    assert told.headers["preference-applied"] == "wait=45"


def test_progress_alone_is_no_answer(service: Service, job: str) -> None:
    fence = take(newest(), service.settings).fence
    answer = waiting(service, job, params={"wait": 60})
    with transaction() as session:
        session.execute(update(Job).where(Job.id == fence.job_id).values(progress=50.0))
        tell_watchers(session, fence.job_id)
    with pytest.raises(TimeoutError):
        answer.result(timeout=1.0)
    with transaction() as session:
        cancel.cancel(session, fence.job_id)
    assert answer.result(timeout=15).json()["progress"] == 50


def test_a_job_that_is_final_answers_at_once_and_nothing_goes_on_waiting(service: Service, job: str) -> None:
    with transaction() as session:
        cancel.cancel(session, newest())
    answer = httpx.get(job, params={"wait": 60}, timeout=15)
    assert answer.json()["status"] == "cancelled"
    until(lambda: service.waiting() == 0, 10)


def test_a_status_that_stays_is_told_when_the_time_is_over(service: Service, job: str) -> None:
    first = httpx.get(job)
    answer = httpx.get(job, params={"wait": 1}, headers={"If-None-Match": first.headers["etag"]}, timeout=30)
    assert answer.status_code == 304
    assert answer.elapsed > timedelta(seconds=0.9)
    assert answer.headers["preference-applied"] == "wait=1"


def test_many_who_wait_hold_no_connection(service: Service, job: str) -> None:
    """More than there are connections to the database and threads."""
    with httpx.Client(limits=httpx.Limits(max_connections=None), timeout=60) as client:
        several = [service.clients.submit(client.get, job, params={"wait": 60}) for _ in range(16)]
        until(lambda: service.waiting() == 16, 20)
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
        until(lambda: rows(idle) == [(1,)], 10)  # that which counts
        with transaction() as session:
            cancel.cancel(session, newest())
        assert {one.result(timeout=20).json()["status"] for one in several} == {"cancelled"}


def test_a_job_that_is_not_there_is_not_waited_for(service: Service) -> None:
    assert httpx.get(f"{service.url}/transcribe/{uuid.uuid4()}", params={"wait": 60}, timeout=15).status_code == 404


@pytest.mark.parametrize("wait", ["61", "-1", "soon"])
def test_more_than_a_minute_is_refused_as_a_parameter(client: httpx.Client, wait: str) -> None:
    assert client.get(f"/transcribe/{submitted(client)}", params={"wait": wait}).status_code == 422


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=30", 30),
        ("Wait = 30", 30),
        ('wait="30"', 30),
        ("respond-async,wait=30;foo", 30),
        ("wait=100000", 60),
        ("wait=", None),
        ("waiter=30", None),
        ("wait=soon", None),
        ("return=minimal", None),
        (None, None),
    ],
)
def test_a_preference_is_met_as_far_as_it_can_be(header: str | None, seconds: int | None) -> None:
    assert _patience(None, header) == seconds
    assert _patience(7, header) == 7


# ETag


def conditional(client: httpx.Client, path: str, tag: str) -> int:
    answer = client.get(path, headers={"If-None-Match": tag})
    if answer.status_code == 304:
        assert (answer.content, answer.headers["etag"], answer.headers["cache-control"]) == (
            b"",
            tag if tag.startswith(("W/", '"')) else answer.headers["etag"],
            KEPT,
        )
    return answer.status_code


def tag_of(client: httpx.Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == KEPT
    tag: str = answer.headers["etag"]
    assert conditional(client, path, tag) == 304
    return tag


def test_a_job_has_another_tag_whenever_it_has_changed(client: httpx.Client, settings: Settings) -> None:
    path = f"/transcribe/{submitted(client)}"
    tags = [tag_of(client, path)]
    assert tags[0].startswith("W/")
    ahead = submitted(client, priority="high")
    tags.append(tag_of(client, path))  # its place in the queue
    complete(ahead, settings)
    complete(path.rpartition("/")[2], settings, "one", "two")
    tags.append(tag_of(client, path))
    client.patch(f"{path}/segments/0", json={"text": "One!"})
    tags.append(tag_of(client, path))
    assert len(set(tags)) == 4
    assert [conditional(client, path, tag) for tag in tags] == [200, 200, 200, 304]
    client.patch(f"{path}/segments/0", json={"text": None})
    assert conditional(client, path, tags[2]) == 304


def test_a_result_has_a_tag_for_each_format_until_somebody_corrects_it(
    client: httpx.Client, settings: Settings
) -> None:
    job_id = submitted(client)
    complete(job_id, settings, "one", "two")
    paths = [
        f"/transcribe/{job_id}/result?format={name}{more}"
        for name in ("json", "txt", "srt", "vtt", "tsv")
        for more in ("", "&corrected=true")
    ]
    before = [tag_of(client, path) for path in paths]
    assert len(set(before)) == len(paths)
    assert all(tag.startswith('"') for tag in before)
    client.patch(f"/transcribe/{job_id}/segments/1", json={"text": "Two?"})
    assert [conditional(client, path, tag) for path, tag in zip(paths, before, strict=True)] == [200] * len(paths)


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {} , "y"', '"a,b",W/{}', "*"])
def test_a_tag_is_found_among_others_weak_or_strong(client: httpx.Client, settings: Settings, form: str) -> None:
    job_id = submitted(client)
    complete(job_id, settings, "one")
    path = f"/transcribe/{job_id}/result?format=txt"
    asked = form.format(client.get(path).headers["etag"])
    assert client.get(path, headers={"If-None-Match": asked}).status_code == 304


@pytest.mark.parametrize("form", ['"other"', "other", "", '"', "W/"])
def test_another_tag_is_sent_the_text(client: httpx.Client, settings: Settings, form: str) -> None:
    job_id = submitted(client)
    complete(job_id, settings, "one")
    assert client.get(f"/transcribe/{job_id}/result", headers={"If-None-Match": form}).status_code == 200


def test_a_tag_opens_no_door(client: httpx.Client, settings: Settings) -> None:
    """Neither to what is not there yet, nor to what is gone."""
    job_id = submitted(client)
    path = f"/transcribe/{job_id}/result"
    assert client.get(path, headers={"If-None-Match": "*"}).status_code == 409
    complete(job_id, settings, "one")
    tag = tag_of(client, path)
    client.delete(f"/transcribe/{job_id}?purge=true")
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 404
    assert client.get(f"/transcribe/{job_id}", headers={"If-None-Match": "*"}).status_code == 404


# HEAD


def test_where_there_is_get_there_is_head(client: httpx.Client, settings: Settings) -> None:
    job_id = submitted(client)
    complete(job_id, settings, "one", "two")
    paths = (
        "/health /health/live /health/ready /jobs/ /jobs/?status=completed /transcribe/{} /transcribe/{}/result "
        "/transcribe/{}/result?format=srt /transcribe/{}/segments /transcribe/{}/audio /v1/models /v1/models/tiny "
        "/status /admin/health /admin/errors /webhooks/deliveries /metrics /openapi.json /ui/ /nowhere /v1/models/none"
    )
    for path in paths.format(*[job_id] * 5).split():
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path
        sizes = int(head.headers["content-length"]), int(got.headers["content-length"])
        assert sizes[0] == sizes[1] or path in ("/metrics", "/admin/health", "/nowhere"), path  # those count on
    assert client.head("/transcribe/").status_code == 405
    assert client.head(f"/transcribe/{job_id}", headers={"If-None-Match": "*"}).status_code == 304
    ranged = client.head(f"/transcribe/{job_id}/audio", headers={"Range": "bytes=0-9"})
    assert (ranged.status_code, ranged.headers["content-length"]) == (206, "10")


def test_the_head_of_a_stream_without_end_ends(service: Service, job: str) -> None:
    claimed(str(newest()), service.settings)
    answer = httpx.head(f"{job}/events", timeout=15)
    assert answer.headers["content-type"].startswith("text/event-stream")
    until(lambda: service.waiting() == 0, 10)
    assert "content-length" not in answer.headers


def test_the_head_of_a_large_recording_is_read_no_further(service: Service) -> None:
    wav = WAV + bytes(5_000_000)
    sent = httpx.post(f"{service.url}/transcribe/", files={"file": ("a.wav", wav)}, timeout=30).json()
    answer = httpx.head(f"{service.url}{sent['status_url']}/audio", timeout=15)
    assert int(answer.headers["content-length"]) == len(wav)


def test_a_head_is_counted_by_its_route(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    monkeypatch.setattr(measured, "count", lambda _, **labels: counted.append((labels["method"], labels["route"])))
    client.head(f"/transcribe/{submitted(client)}")
    assert counted[-1] == ("HEAD", "/transcribe/{job_id}")
