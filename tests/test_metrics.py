"""/metrics: every process counts, nothing that was counted is lost with the process, and strangers see nothing."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

import errors
from api import survey
from app import create_app
from config import Settings
from database import transaction
from jobs.states import Status, move
from stack.home import free_port
from telemetry import events, metrics, shared_counters
from tests.conftest import ROOT
from tests.followed import Life, key_of
from tests.processes import until

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]
COUNT = """
    import sys
    from telemetry import metrics
    metrics.start()
    from telemetry.events import count
    for _ in range(int(sys.argv[1])):
        count("pool.hit")
        count("relay.ticked", seconds=0.02, rung=2)
    print("counted", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    metrics.start()
    yield
    events._subscribers.clear()


def values_of(text: str) -> Values:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(values: Values, name: str, **labels: str) -> float:
    return values.get((f"whisper_queue_{name}", frozenset(labels.items())), 0.0)


def scraped(client: TestClient, **headers: str) -> Values:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return values_of(answer.text)


@pytest.fixture
def client(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), base_url="http://127.0.0.1")


def counting(folder: Path, times: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(COUNT), str(times)],
        cwd=ROOT,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def killed(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def of_folder(folder: Path) -> Values:
    return values_of(metrics.expose("", str(folder))[0].decode())


def test_the_counters_of_a_killed_child_are_kept(tmp_path: Path) -> None:
    first, second = counting(tmp_path, 3), counting(tmp_path, 4)
    assert value(of_folder(tmp_path), "pool_hits_total") == 7
    killed(first)
    assert value(of_folder(tmp_path), "pool_hits_total") == 7
    killed(second)
    third = counting(tmp_path, 5)
    seen = of_folder(tmp_path)
    killed(third)
    assert value(seen, "pool_hits_total") == 12
    assert value(seen, "doorbells_total") == 24
    assert value(seen, "relay_tick_seconds_count") == 12
    assert value(seen, "relay_tick_seconds_bucket", le="0.01") == 0
    assert value(seen, "relay_tick_seconds_bucket", le="0.025") == 12


def test_the_files_of_the_dead_are_added_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_counters, "MOST_DEAD", 1)
    for times in (1, 2):
        killed(counting(tmp_path, times))
    living = counting(tmp_path, 4)
    for _ in range(3):
        seen = of_folder(tmp_path)
        assert value(seen, "pool_hits_total") == 7
        assert value(seen, "relay_tick_seconds_bucket", le="0.025") == 7
    killed(living)
    assert {path.name for path in tmp_path.glob("*_0.db")} == {"counter_0.db", "histogram_0.db"}
    assert len(list(tmp_path.glob("*.db"))) == 4, "of the dead, and of the one that lived"
    killed(counting(tmp_path, 1))
    assert value(of_folder(tmp_path), "pool_hits_total") == 8


def test_the_life_of_a_job_is_counted(settings: Settings, client: TestClient) -> None:
    before = scraped(client)
    Life(client, settings).whole("one")
    Life(client, settings).begin().fail()
    cancelled = Life(client, settings)
    waiting = scraped(client)
    client.delete(f"/transcribe/{cancelled.id}")
    after = scraped(client)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("job_moves_total", from_status="", to_status="pending") == 3
    assert more("job_moves_total", from_status="processing", to_status="completed") == 1
    assert more("job_moves_total", from_status="processing", to_status="failed") == 1
    assert more("job_moves_total", from_status="pending", to_status="cancelled") == 1
    assert more("job_wait_seconds_count", priority="normal") == 2
    assert more("job_total_seconds_count", priority="normal") == 1
    assert more("dead_letters_total", code="internal_error") == 1
    assert value(waiting, "jobs", status="pending") == 1
    assert ("whisper_queue_oldest_pending_seconds", frozenset[tuple[str, str]]()) in waiting
    assert value(after, "open_dead_letters") == 1
    assert value(after, "up", part="database") == 1


def test_what_is_rolled_back_was_never_counted(settings: Settings, client: TestClient) -> None:
    job = Life(client, settings)
    before = scraped(client)
    with suppress(InterruptedError), transaction() as session:
        assert move(session, uuid.UUID(job.id), Status.PENDING, Status.CANCELLED, fence=None) is not None
        raise InterruptedError
    labels = {"from_status": "pending", "to_status": "cancelled"}
    assert value(scraped(client), "job_moves_total", **labels) == value(before, "job_moves_total", **labels)


def test_requests_are_counted_by_their_route_never_by_their_address(client: TestClient) -> None:
    before = scraped(client)
    client.get("/transcribe/0b0c3f0e-6f3b-4b8e-9d9e-111111111111")
    client.get("/transcribe/0b0c3f0e-6f3b-4b8e-9d9e-222222222222")
    client.request("BREW", "/tea")
    client.get("/wp-login.php")
    after = scraped(client)
    labels = {"method": "GET", "route": "/transcribe/{job_id}", "status": "404"}
    assert value(after, "http_requests_total", **labels) - value(before, "http_requests_total", **labels) == 2
    assert value(after, "http_requests_total", method="GET", route="other", status="404") >= 1
    assert not [key for key in after if "wp-login" in str(key) or "BREW" in str(key)]


def test_only_an_admin_or_the_token_may_scrape(settings: Settings) -> None:
    secrets = {"api_key": SecretStr("an-operators-secret-41"), "metrics_token": SecretStr("of-prometheus-7d1e55")}
    settings = settings.model_copy(update=secrets)
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    user = key_of("alice", settings)
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/metrics", headers={"X-API-Key": user}).status_code == 403
    assert scraped(client, **{"X-API-Key": "an-operators-secret-41"})
    assert scraped(client, Authorization="Bearer of-prometheus-7d1e55")
    assert client.get("/admin/health", headers={"Authorization": "Bearer of-prometheus-7d1e55"}).status_code == 401


def test_openmetrics_is_spoken_to_who_asks_for_it(client: TestClient) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert answer.text.count("# EOF") == 1


def test_what_waits_is_told_in_seconds_of_audio(settings: Settings, client: TestClient) -> None:
    Life(client, settings)
    until(lambda: value(scraped(client), "waiting_audio_seconds") > 0)


def test_of_what_the_database_would_know_nothing_is_told_while_it_is_away(
    settings: Settings, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> float:
        raise errors.Unavailable("The database is away.")

    assert value(scraped(client), "up", part="database") == 1
    monkeypatch.setattr(survey, "check_db_connection", away)
    seen = scraped(client)
    assert seen["whisper_queue_up", frozenset({("part", "database")})] == 0
    assert not [name for name, _ in seen if name in {"whisper_queue_jobs", "whisper_queue_workers"}], "0 would be a lie"


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"`(whisper_queue_\w+)`", page))
    counted = {family.name for family in REGISTRY.collect() if family.name.startswith(metrics.PREFIX)}
    counted = {name + "_total" if family_is_counter(name) else name for name in counted}
    assert counted <= named, counted - named


def family_is_counter(name: str) -> bool:
    return next(family for family in REGISTRY.collect() if family.name == name).type == "counter"


def test_a_metrics_port_that_is_open_to_others_needs_a_token() -> None:
    with pytest.raises(ValueError, match="METRICS_TOKEN"):
        Settings(host="0.0.0.0", metrics_port=9100)
    Settings(host="0.0.0.0", metrics_port=9100, metrics_token="of-prometheus-7d1e55")


def test_a_relay_serves_its_own_to_who_has_the_token(settings: Settings) -> None:
    port = free_port()
    told = {"METRICS_PORT": str(port), "METRICS_TOKEN": "of-prometheus-7d1e55", "LOG_LEVEL": "WARNING"}
    relay = subprocess.Popen([sys.executable, "relay.py"], cwd=ROOT, env=os.environ | told)
    url, headers = f"http://127.0.0.1:{port}/metrics", {"Authorization": "Bearer of-prometheus-7d1e55"}

    def ticked() -> bool:
        try:
            text = httpx.get(url, headers=headers).text
        except httpx.TransportError:
            return False
        return value(values_of(text), "relay_tick_seconds_count") > 0

    try:
        until(ticked)
        assert httpx.get(url).status_code == 401
        assert httpx.get(url.replace("metrics", ""), headers=headers).status_code == 404
    finally:
        relay.terminate()
        assert relay.wait(15) == 0
