"""A job followed over a WebSocket: the same events as a stream, keys that pages can show, a code for every end."""

import json
import uuid
from collections.abc import Iterator

import httpx
import pytest
from websockets.typing import Origin, Subprotocol

from config import Settings
from tests.followed import (
    WHOLE,
    Life,
    Running,
    code_of,
    following,
    frames,
    key_of,
    serving,
    told_by,
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


def test_a_websocket_tells_the_same_as_a_stream(http: httpx.Client, settings: Settings) -> None:
    job = Life(http, settings)
    with websocket(http, job) as stream:
        first = [json.loads(stream.recv(timeout=10)) for _ in range(2)]
        job.whole("one", "two")
        live = first + frames(stream)
        assert stream.close_code == 1000
    assert without_progress([told_by(one["event"], one["data"]) for one in live]) == WHOLE
    with following(http, job) as seen, websocket(http, job) as stream:
        assert [(one.event, one.id, one.json()) for one in seen] == [
            (one["event"], one["id"], one["data"]) for one in frames(stream)
        ]


def test_a_websocket_goes_on_after_any_of_its_events(http: httpx.Client, settings: Settings) -> None:
    job = Life(http, settings).whole("one", "two")
    with websocket(http, job) as stream:
        whole = frames(stream)
    for position, one in enumerate(whole, start=1):
        with websocket(http, job, query=f"?last_event_id={one['id']}") as stream:
            assert frames(stream) == whole[position:]
            assert stream.close_code == 1000


@pytest.mark.parametrize(
    ("code", "job_id", "options"),
    [
        (4404, str(uuid.UUID(int=1)), {}),
        (4404, "no-id", {}),
        (4401, None, {"key": "wrong"}),
        (4422, None, {"query": "?last_event_id=x"}),
    ],
)
def test_a_websocket_that_is_refused_is_told_why(
    http: httpx.Client, settings: Settings, code: int, job_id: str | None, options: dict[str, str]
) -> None:
    http.headers["X-API-Key"] = key_of("mine", settings)
    with websocket(http, job_id or Life(http, settings), **options) as stream:
        assert code_of(stream) == code
        assert stream.close_reason


def test_opening_a_websocket_counts_against_the_rate_limit(http: httpx.Client, settings: Settings) -> None:
    http.headers["X-API-Key"] = key_of("hasty", settings, rate_limit_per_minute=2)
    job = Life(http, settings).whole("one")
    with websocket(http, job) as stream:
        assert code_of(stream) == 1000
    with websocket(http, job) as stream:
        assert code_of(stream) == 4429
    del http.headers["X-API-Key"]
    with websocket(http, job) as stream:
        assert code_of(stream) == 4401


@pytest.mark.parametrize(
    ("origin", "code"),
    [("https://evil.example", 4403), ("null", 4403), ("https://app.example", 1000), ("SAME", 1000)],
)
def test_only_pages_that_may_call_the_api_may_open_a_websocket(settings: Settings, origin: str, code: int) -> None:
    allowed = settings.model_copy(update={"cors_origins": "https://app.example"})
    with serving(allowed) as running, httpx.Client(base_url=running.url) as http:
        job = Life(http, settings).whole("one")
        given = Origin(running.url if origin == "SAME" else origin)
        with websocket(http, job, origin=given) as stream:
            assert code_of(stream) == code


def test_a_page_shows_its_key_as_a_subprotocol(http: httpx.Client, settings: Settings) -> None:
    key = key_of("page", settings)
    http.headers["X-API-Key"] = key
    job = Life(http, settings).whole("one", "two")
    del http.headers["X-API-Key"]
    with websocket(http, job, subprotocols=[Subprotocol("bearer"), Subprotocol(key)]) as stream:
        assert stream.subprotocol == "bearer"
        assert [told_by(one["event"], one["data"]) for one in frames(stream)] == WHOLE
    with websocket(http, job, subprotocols=[Subprotocol("bearer"), Subprotocol(key[:-1])]) as stream:
        assert code_of(stream) == 4401


def test_a_websocket_whose_client_leaves_is_forgotten(api: Running, http: httpx.Client, settings: Settings) -> None:
    job = Life(http, settings)
    with websocket(http, job) as stream:
        stream.send("what a client says is not listened to")
        stream.recv(timeout=10)
        assert api.watched == 1
    until(lambda: api.watched == 0)
