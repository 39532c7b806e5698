"""Webhooks from process to process: relay and worker as the stack starts them, and a receiver that has its moods."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import select
from standardwebhooks import Webhook

from config import Settings, inherited_environment
from database import transaction
from models import Process as ProcessRow
from stack.plan import MAIN_QUEUES, WEBHOOK_QUEUES
from stack.process import Process, ServiceSpec
from stack.running import Stack
from tests.conftest import ROOT
from tests.far_server import Exchange, far_server
from tests.processes import until
from tests.webhook_play import answers, deliveries, delivery, due_now, ended, verified

SAMPLE = ROOT / "demo" / "samples" / "english.wav"
LEASE_S = 2  # twice the timeout
Start = Callable[..., Process]


@pytest.fixture
def start(settings: Settings, configure: Callable[..., Settings]) -> Iterator[Start]:
    """`start("worker")`: of webhooks, unless told otherwise; `start("relay")`. All are killed after the test."""
    configure(
        outbound_allow="127.0.0.0/8", webhook_timeout_seconds=LEASE_S / 2, relay_tick_seconds=0.2, republish_seconds=1
    )
    running: list[Process] = []

    def begin(program: str, queues: str = WEBHOOK_QUEUES) -> Process:
        log = settings.data_dir / "logs" / f"{program}-{len(running)}.log"
        env = inherited_environment() | {"WORKER_QUEUES": queues, "ENGINE": "fake"}
        argv = (sys.executable, str(ROOT / f"{program}.py"))
        process = Process(ServiceSpec(name=program, argv=argv, env=env, ready=lambda: signed_in(process)), log)
        running.append(process.start().wait_ready())
        return process

    yield begin
    for process in running:
        process.kill()


def signed_in(process: Process) -> bool:
    with transaction() as session:
        query = select(ProcessRow.id).where(ProcessRow.worker.contains(f":{process.pid}."))
        return session.scalar(query) is not None


@pytest.mark.parametrize("queues", [WEBHOOK_QUEUES, f"{MAIN_QUEUES},{WEBHOOK_QUEUES}"])
def test_a_receiver_that_fails_twice_gets_the_same_message_until_it_takes_it(
    settings: Settings, start: Start, queues: str
) -> None:
    start("relay")
    start("worker", queues)
    with far_server(answers(500, 503, 200)) as receiver:
        ended(settings, receiver.url("/hook"), metadata={"customer": 7})
        for status in (500, 503):
            until(partial(has_status, status))
            due_now(delivery())
        until(lambda: delivery().state == "delivered")
        seen = receiver.seen
    assert (delivery().tries, delivery().response_status, delivery().error) == (3, 200, None)
    assert len({exchange.headers["webhook-id"] for exchange in seen}) == 1
    assert [verified(exchange, settings) for exchange in seen] == 3 * [delivery().payload]


def has_status(status: int) -> bool:
    return delivery().response_status == status


def test_a_worker_that_is_killed_while_it_sends_costs_no_message(settings: Settings, start: Start) -> None:
    taken = Event()

    def play(exchange: Exchange) -> None:
        if not taken.is_set():
            taken.set()
            exchange.server.closing.wait(1)
        else:
            exchange.answer(200)

    start("relay")
    worker = start("worker")
    with far_server(play) as receiver:
        ended(settings, receiver.url())
        assert taken.wait(20)
        worker.kill()
        assert (delivery().state, delivery().tries) == ("pending", 1)
        start("worker")
        until(lambda: delivery().state == "delivered")
        first, second = receiver.seen
    assert delivery().tries == 2
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert verified(second, settings) == delivery().payload


def test_a_worker_that_is_told_to_stop_finishes_what_it_sends(settings: Settings, start: Start) -> None:
    taken, go_on = Event(), Event()

    def play(exchange: Exchange) -> None:
        taken.set()
        go_on.wait(LEASE_S / 2)
        exchange.answer(200)

    start("relay")
    worker = start("worker")
    with far_server(play) as receiver:
        ended(settings, receiver.url())
        assert taken.wait(20)
        worker.ask_to_stop()
        go_on.set()
        until(lambda: not worker.is_running())
        assert len(receiver.seen) == 1
    assert worker.exit_code == 0
    assert (delivery().state, delivery().tries) == ("delivered", 1)
    assert not signed_in(worker)


def test_many_messages_are_sent_at_once_by_a_worker_without_an_engine(settings: Settings, start: Start) -> None:
    most, now, lock = 0, 0, Lock()

    def play(exchange: Exchange) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        exchange.server.closing.wait(0.05)
        with lock:
            now -= 1
        exchange.answer(200)

    with far_server(play) as receiver:
        for _ in range(60):
            ended(settings, receiver.url())
        start("relay")
        worker = start("worker")
        until(lambda: not deliveries(state="pending"), 60)
        assert len(receiver.seen) == 60
    assert 4 <= most <= settings.webhook_concurrency
    libraries = {Path(area.path).name.partition(".")[0] for area in psutil.Process(worker.pid).memory_maps()}
    assert not {name for name in libraries if name.startswith(("libctranslate2", "_multiarray_umath", "libavcodec"))}


@pytest.mark.xdist_group("stack")
@pytest.mark.timeout(300)
def test_whoever_submits_a_recording_is_called_when_its_text_is_there(tmp_path: Path) -> None:
    """The whole service, the real engine, and nothing but HTTP."""
    stack = Stack(tmp_path, whisper_model_size="demo", outbound_allow="127.0.0.0/8", log_format="json")
    with far_server(answers(500, 200)) as receiver, stack, httpx.Client(base_url=stack.url, timeout=30) as http:
        secret = http.get("/webhooks/secret").json()["secret"]
        wav = SAMPLE.read_bytes()
        parts = [("files", ("a.wav", wav)), ("files", ("b.wav", b"RIFF\0\0\0\0WAVE but nothing more"))]
        form = {"webhook_url": receiver.url("/hook?token=hush"), "metadata": '{"customer": 7}'}
        batch = http.post("/transcribe/batch", files=parts, data=form).json()
        until(lambda: len(told(receiver.seen, secret)) == 3, 90)
        messages = told(receiver.seen, secret)
        by_type = {message["type"]: message["data"] for message in messages.values()}
        assert http.get(f"/transcribe/{by_type['transcription.completed']['job_id']}").json()["result"]["text"]
        listed = until(lambda: all_delivered(http), 60)
        log = (stack.data_dir / "logs" / "worker-webhooks.log").read_text()
    assert by_type.keys() == {"batch.completed", "transcription.completed", "transcription.failed"}
    assert {data["batch_id"] for data in by_type.values()} == {batch["batch_id"]}
    assert {row["webhook_id"] for row in listed} == set(messages)
    assert "webhook.delivered" in log
    assert "hush" not in log


def told(seen: list[Exchange], secret: str) -> dict[str, Any]:
    """The messages by their webhook-id, each verified."""
    whole = [exchange for exchange in seen if hasattr(exchange, "received")]
    return {one.headers["webhook-id"]: Webhook(secret).verify(one.received, dict(one.headers)) for one in whole}


def all_delivered(http: httpx.Client) -> list[dict[str, Any]]:
    """Once they are."""
    rows: list[dict[str, Any]] = http.get("/webhooks/deliveries").json()["data"]
    return rows if all(row["state"] == "delivered" for row in rows) else []
