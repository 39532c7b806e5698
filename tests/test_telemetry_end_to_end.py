"""Metrics and traces from process to process: what was counted outlives who counted, one trace holds a job's way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from stack.home import free_port
from stack.running import Stack
from tests.conftest import ROOT
from tests.far_server import Exchange, far_server
from tests.processes import is_gone, until
from tests.test_metrics import Values, value, values_of
from tests.webhook_play import answers

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(240)]
SAMPLE = ROOT / "demo" / "samples" / "english.wav"
CALLERS_TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{CALLERS_TRACE}-b7ad6b7169203331-01"


@dataclass(frozen=True, slots=True)
class Collector:
    url: str
    bodies: list[bytes]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    bodies: list[bytes] = []

    def take(exchange: Exchange) -> None:
        bodies.append(exchange.received)
        exchange.answer(200)

    with far_server(take) as server:
        yield Collector(server.url(""), bodies)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    told: dict[str, Any] = {"outbound_allow": "127.0.0.0/8", "otel_exporter_otlp_endpoint": collector.url}
    told |= {"worker_queues": "transcription.normal"}
    with Stack(
        tmp_path_factory.mktemp("stack"), whisper_model_size="demo", lease_seconds=4, log_format="json", **told
    ) as started:
        yield started


def transcribed(stack: Stack, **form: str) -> dict[str, Any]:
    with SAMPLE.open("rb") as file:
        headers = {"traceparent": TRACEPARENT}
        answer = httpx.post(f"{stack.url}/transcribe/", files={"file": file}, data=form, headers=headers)
    url = f"{stack.url}{answer.json()['status_url']}"
    until(lambda: httpx.get(url).json()["status"] == "completed", 60)
    job: dict[str, Any] = httpx.get(url).json()
    return job


def scraped(stack: Stack) -> Values:
    return values_of(httpx.get(f"{stack.url}/metrics").text)


def spans(collector: Collector) -> list[tuple[str, Span]]:
    """(service, span) of everything that was sent so far."""
    found = []
    for body in list(collector.bodies):
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            found += [(service, span) for scope in resource.scope_spans for span in scope.spans]
    return found


def test_one_trace_goes_from_the_post_through_the_worker_to_the_webhook(stack: Stack, collector: Collector) -> None:
    with far_server(answers(200)) as receiver:
        transcribed(stack, webhook_url=receiver.url("/hook"))
        until(lambda: receiver.seen)
        sent = receiver.seen[0].headers["traceparent"]

    def ours() -> dict[str, tuple[str, Span]]:
        trace = [(service, span) for service, span in spans(collector) if span.trace_id.hex() == CALLERS_TRACE]
        return {span.name: (service, span) for service, span in trace}

    until(lambda: {"webhook", "transcribe", "POST /transcribe/"} <= ours().keys())
    found = ours()
    services = {name: service for name, (service, _) in found.items()}
    assert services["POST /transcribe/"] == "api"
    assert services["transcribe"] == services["recognise"] == "worker"
    assert services["webhook"] == "worker-webhooks"
    post, work, hook = (found[name][1] for name in ("POST /transcribe/", "transcribe", "webhook"))
    assert post.parent_span_id.hex() == "b7ad6b7169203331", "it goes on under the caller's own"
    assert {work.parent_span_id, hook.parent_span_id} == {post.span_id}
    assert found["recognise"][1].parent_span_id == work.span_id
    assert sent == f"00-{CALLERS_TRACE}-{hook.span_id.hex()}-01", "the receiver can go on under ours"
    assert not [span for _, span in spans(collector) if "health" in span.name]


def test_the_counters_of_children_and_engine_server_outlive_them(stack: Stack) -> None:
    transcribed(stack)
    before = scraped(stack)
    assert value(before, "engine_windows_total") >= 1
    assert value(before, "audio_seconds_total") > 1
    worker = psutil.Process(stack.pid_of("worker"))
    below = worker.children(recursive=True)
    assert len(below) >= 4, "children, the engine server and who keeps it alive"
    for process in below:
        process.send_signal(signal.SIGKILL)
    until(lambda: all(is_gone(process.pid) for process in below))
    for name in ("engine_windows_total", "audio_seconds_total", "pool_load_seconds_count"):
        labels = {"size": "demo"} if name.startswith("pool") else {}
        assert value(scraped(stack), name, **labels) == value(before, name, **labels) > 0
    transcribed(stack)
    after = scraped(stack)
    assert value(after, "audio_seconds_total") > value(before, "audio_seconds_total")
    assert value(after, "workers") >= 1


def test_a_worker_of_its_own_serves_what_its_children_and_engine_server_count(stack: Stack) -> None:
    """As in a pod: nobody has made it a folder."""
    port = free_port()
    servers = dict(
        line.split("=", 1) for line in (stack.data_dir / "secrets" / "servers.env").read_text().splitlines() if line
    )
    told = servers | {"WORKER_QUEUES": "transcription.high", "METRICS_PORT": str(port)}
    told |= {"WHISPER_MODEL_SIZE": "demo", "DATA_DIR": str(stack.data_dir)}
    worker = subprocess.Popen([sys.executable, "worker.py"], cwd=ROOT, env=os.environ | told)

    def seen() -> Values:
        try:
            return values_of(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        except httpx.TransportError:
            return {}

    try:
        transcribed(stack, priority="high")  # the stack's own worker draws no such
        until(lambda: value(seen(), "audio_seconds_total") > 1)
        assert value(seen(), "engine_windows_total") >= 1
        assert not [name for name, _ in seen() if name == "whisper_queue_jobs"], "the state is the API's to tell"
    finally:
        worker.terminate()
        worker.wait(60)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")
