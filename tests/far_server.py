"""A server far away, played by one on loopback: each test says how it answers, and asks what it has seen."""

import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from config import Settings
from outbound import Answer, Fetched, Outbound, networks

CONTENT = os.urandom(300_000)
LOOPBACK = networks(Settings(outbound_allow="127.0.0.0/8"))
Play = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request as the server sees it, and how it answers."""

    protocol_version = "HTTP/1.1"
    server: "FarServer"

    def do_GET(self) -> None:
        self.server.seen.append(self)
        self.received = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.play(self)

    do_POST = do_GET  # noqa: N815 (the library's name)

    def begin(self, status: int, length: int | None = None, **headers: str) -> None:
        """`Content_Type="audio/wav"`; Date is sent as well."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.begin(status, len(body), **headers)
        self.wfile.write(body)

    def drip(self, piece: bytes = b"x") -> None:
        while not self.server.closing.wait(0.02):
            self.wfile.write(piece)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        pass


class FarServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # with the library's 5 the system drops what comes at once, and tries again after a second

    def __init__(self, play: Play, address: tuple[str, int]) -> None:
        self.play, self.seen, self.closing = play, list[Exchange](), threading.Event()
        super().__init__(address, Exchange)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str = "/talk.wav") -> str:
        return f"http://{self.server_address[0]!s}:{self.port}{path}"

    def headers(self, name: str) -> list[str | None]:
        return [exchange.headers[name] for exchange in self.seen]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client leaves in the middle: that is what is tested."""


@contextmanager
def far_server(
    play: Play, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[FarServer]:
    with FarServer(play, (host, port)) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class Sink:
    """What a fetch hands over."""

    def __init__(self) -> None:
        self.content = b""
        self.progress: list[tuple[int, int | None]] = []

    def write(self, piece: bytes) -> None:
        self.content += piece

    def on_progress(self, received: int, total: int | None) -> None:
        self.progress.append((received, total))


def fetch(outbound: Outbound, url: str, sink: Sink | None = None, *, max_bytes: int = 10**6, **more: Any) -> Fetched:
    sink = sink or Sink()
    return outbound.fetch(url, sink.write, max_bytes=max_bytes, on_progress=sink.on_progress, **more)


def post(outbound: Outbound, url: str, timeout_s: float = 10) -> Answer:
    return outbound.post(url, body=b"{}", headers={"Webhook-Id": "1"}, timeout_s=timeout_s)


def serve_content(exchange: Exchange) -> None:
    exchange.answer(200, CONTENT, Content_Type="Audio/WAV; rate=16000")


def breaking(*cuts: int, etag: str | None = '"1"', **more: str) -> Play:
    """Serves CONTENT, ranges too, and breaks off after each of `cuts` more bytes."""
    left = list(cuts)
    headers = ({"ETag": etag} if etag else {}) | more

    def play(exchange: Exchange) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.headers["Range"] or "")
        start = int(asked[1]) if asked else 0
        part = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if asked else {}
        exchange.begin(206 if asked else 200, len(CONTENT) - start, **headers, **part)
        exchange.wfile.write(CONTENT[start : start + left.pop(0) if left else None])
        exchange.close_connection = True

    return play


def redirect(to: str, status: int = 302) -> Play:
    return lambda exchange: exchange.answer(status, Location=to)


def say_nothing(exchange: Exchange) -> None:
    exchange.server.closing.wait()


def name_that_leads_to(*answers: Sequence[str]) -> Callable[[str], Sequence[str]]:
    """Another answer at each look-up; the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def listener() -> Iterator[socket.socket]:
    """Connections are made by the kernel; nobody takes them up."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server
