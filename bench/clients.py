"""Clients of the two services for benches: plain HTTP, the same body for both, no more requests than a person makes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.callers import Api, Recording
from bench.measure import stock_environment
from stack.home import free_port
from stack.plan import answers
from stack.running import Stack
from tests.processes import until

AT_ONCE = 32  # requests in flight; the peer answers when it is done, so it needs as many
POLL_S = 0.2  # of a person who waits; each costs our side some 5 ms of a core
OPTIONS = {"beam_size": "1", "temperature": "0", "language": "en", "vad_filter": "true"}
FINAL = ("completed", "failed", "cancelled")
TIMEOUT_S = 3600.0


@contextmanager
def service(**settings: object) -> Iterator[Stack]:
    """The whole stack as it ships, durable, on data of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL is another user where we are root
        with Stack(Path(folder) / "data", fast=False, **settings) as stack:
            yield stack


@contextmanager
def peer(model: str = "-") -> Iterator[str]:
    """Its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = (sys.executable, "-m", "bench.peer", str(port), model, folder)
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], env=stock_environment())
        try:
            until(lambda: answers(f"{url}/health"), within_s=120)
            yield url
        finally:
            process.kill()
            process.wait()


def through_peer(url: str, paths: Sequence[Path]) -> float:
    """Seconds from the first request until the last answer."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda path: post(url, "/asr", path), paths))
    return time.perf_counter() - begun


def through_ours(url: str, paths: Sequence[Path]) -> float:
    """Seconds from the first request until the last result; each job is looked at until it is final, in their order."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda path: submit(url, path), paths))
    for job in jobs:
        result(url, job)
    return time.perf_counter() - begun


def submit(url: str, path: Path, **options: str) -> str:
    status, answer = Api(url).submit(Recording(path, None), path.name, **(OPTIONS | options))
    if status != 202:
        raise SystemExit(f"Our service refused {path.name}: {status} {answer}")
    return str(answer["job_id"])


def result(url: str, job: str) -> dict[str, Any]:
    api = Api(url)
    while (found := api.ask("GET", f"/transcribe/{job}")[1])["status"] not in FINAL:
        time.sleep(POLL_S)
    if found["status"] != "completed":
        raise SystemExit(f"A job {found['status']}: {found['error']}")
    return found


def post(url: str, route: str, path: Path) -> None:
    """A file as multipart, streamed from disk."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    tail = b"\r\n--b--\r\n"
    length = str(len(head) + path.stat().st_size + len(tail))
    connection = HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": length}
    try:
        connection.request("POST", route, _body(head, path, tail), headers)
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise SystemExit(f"POST {route}: {answer.status} {said[:300]!r}")


def _body(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with path.open("rb") as file:
        while piece := file.read(1 << 18):
            yield piece
    yield tail
