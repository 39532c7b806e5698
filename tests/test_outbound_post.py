"""A POST ends in time with the status that was answered, however the receiver reads and speaks."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest

from config import VERSION
from errors import FetchFailed
from outbound import Outbound
from tests.far_server import LOOPBACK, Exchange, Play, far_server, fetch, listener, post, say_nothing


@pytest.fixture(scope="module")
def outbound() -> Outbound:
    return Outbound(LOOPBACK, resume_wait_s=0.001)


def test_a_post_brings_its_body_and_headers_and_returns_the_answer(outbound: Outbound) -> None:
    with far_server(lambda exchange: exchange.answer(202, b"thanks", Retry_After="7")) as server:
        answer = outbound.post(
            server.url("/hook?a=b"),
            body=b'{"id": 1}',
            headers={"Content-Type": "application/json", "Webhook-Id": "m1", "Host": "inside", "Content-Length": "1"},
            timeout_s=10,
        )
        seen = server.seen[0]
    assert (answer.status, answer.body_head, answer.headers["retry-after"]) == (202, b"thanks", "7")
    assert (seen.command, seen.path, seen.received) == ("POST", "/hook?a=b", b'{"id": 1}')
    assert seen.headers["Webhook-Id"] == "m1"
    assert seen.headers.get_all("Content-Type") == ["application/json"]
    assert seen.headers.get_all("Host") == [f"127.0.0.1:{server.port}"]
    assert seen.headers["User-Agent"] == f"whisper-queue/{VERSION}"


@pytest.mark.parametrize("status", [200, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503])
def test_a_post_follows_no_redirect_and_any_status_is_an_answer(outbound: Outbound, status: int) -> None:
    with far_server(lambda exchange: exchange.answer(status, Location="/elsewhere")) as server:
        assert post(outbound, server.url()).status == status
        assert len(server.seen) == 1


@contextmanager
def within(seconds: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


def test_no_more_than_the_head_of_an_answer_is_read(outbound: Outbound) -> None:
    def play(exchange: Exchange) -> None:
        exchange.begin(200, 10**9)
        exchange.drip(b"x" * 100_000)

    with far_server(play) as server, within(5):
        assert post(outbound, server.url()).body_head == b"x" * 65_536


def test_a_compressed_answer_to_a_post_is_kept_as_it_came(outbound: Outbound) -> None:
    with far_server(lambda exchange: exchange.answer(200, b"\x1f\x8b", Content_Encoding="gzip")) as server:
        assert post(outbound, server.url()).body_head == b"\x1f\x8b"


def test_a_body_that_drips_takes_no_longer_than_the_timeout_and_the_status_counts(outbound: Outbound) -> None:
    def play(exchange: Exchange) -> None:
        exchange.begin(200, 10**6)
        exchange.drip()

    with far_server(play) as server, within(5):
        answer = post(outbound, server.url(), timeout_s=0.3)
    assert answer.status == 200
    assert set(answer.body_head) == {ord("x")}


def drip_status(exchange: Exchange) -> None:
    exchange.drip(b"H")


def drip_headers(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\n")
    exchange.drip(b"X-A: b\r\n")


def drip_information(exchange: Exchange) -> None:
    exchange.drip(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("play", [drip_status, drip_headers, drip_information, say_nothing])
def test_an_answer_that_never_begins_takes_no_longer_than_the_timeout(outbound: Outbound, play: Play) -> None:
    with far_server(play) as server, within(5):
        with pytest.raises(FetchFailed, match="in time"):
            post(outbound, server.url(), timeout_s=0.3)
        with pytest.raises(FetchFailed, match="in time"):
            fetch(outbound, server.url(), stall_s=0.3)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_reads_nothing_takes_no_longer_than_the_timeout(outbound: Outbound, scheme: str) -> None:
    with listener() as server, within(5):
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(FetchFailed, match="in time"):
            outbound.post(url, body=bytes(32 * 1024 * 1024), headers={}, timeout_s=0.3)


def test_a_server_that_reads_in_drips_takes_no_longer_than_the_timeout(outbound: Outbound) -> None:
    done = threading.Event()

    def sip(server: socket.socket) -> None:
        taken, _ = server.accept()
        with closing(taken):
            while not done.wait(0.01):
                taken.recv(100_000)

    with listener() as server, ThreadPoolExecutor(1) as pool, within(5):
        sipping = pool.submit(sip, server)
        try:
            with pytest.raises(FetchFailed, match="in time"):
                outbound.post(
                    f"http://127.0.0.1:{server.getsockname()[1]}/",
                    body=bytes(128 * 1024 * 1024),
                    headers={},
                    timeout_s=0.5,
                )
        finally:
            done.set()
        sipping.result()


def test_an_answer_before_the_body_was_read_is_heard(outbound: Outbound) -> None:
    def answer_early(server: socket.socket) -> None:
        taken, _ = server.accept()
        with closing(taken):
            taken.recv(1000)
            taken.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            taken.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while taken.recv(1 << 20):
                    pass

    with listener() as server, ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer_early, server)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert outbound.post(url, body=bytes(4 * 1024 * 1024), headers={}, timeout_s=10).status == 413
        answering.result()
