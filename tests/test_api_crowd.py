"""A thousand watchers of one job cost an API process next to nothing."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import psutil
import pytest
from sqlalchemy import text

from config import Settings
from database import get_engine, transaction
from stack.home import free_port
from stack.plan import answers
from tests.conftest import ROOT
from tests.followed import Life, eventually, run_async
from tests.processes import until

WATCHERS = 1000


@dataclass(frozen=True, slots=True)
class Api:
    url: str
    process: psutil.Process


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    port = free_port()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * WATCHERS, most), most))
    environment = os.environ | {"PORT": str(port), "LOG_LEVEL": "WARNING"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/health/ready"))
        yield Api(url, psutil.Process(process.pid))
    finally:
        process.terminate()
        assert process.wait(15) in (0, -signal.SIGTERM)


@dataclass(slots=True)
class Crowd:
    """How far its watchers are."""

    connected: int = 0
    saw: dict[str, int] = field(default_factory=dict)
    ended: int = 0

    async def watch(self, port: int, job: Life) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /transcribe/{job.id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        self.connected += 1
        async for line in reader:
            for word in (b"one", b"two", b"completed"):
                if b"data: " in line and word in line:
                    self.saw[word.decode()] = self.saw.get(word.decode(), 0) + 1
            if line == b"0\r\n":
                break
        self.ended += 1
        writer.close()
        await writer.wait_closed()


def test_a_thousand_watchers_hear_everything_at_little_cost(api: Api, settings: Settings) -> None:
    port = int(api.url.rpartition(":")[2])

    async def watched(http: httpx.Client, job: Life) -> None:
        crowd = Crowd()
        times: dict[str, float] = {}
        began, cpu = time.monotonic(), sum(api.process.cpu_times()[:2])
        tasks = [asyncio.create_task(crowd.watch(port, job)) for _ in range(WATCHERS)]
        await eventually(lambda: crowd.connected == WATCHERS, 60)
        times["connected"] = time.monotonic() - began
        assert api.process.num_threads() < 60
        assert connections() <= settings.db_pool_size + 2
        for word in ("one", "two"):
            begun = time.monotonic()
            await asyncio.to_thread(job.save, word)
            answer = await asyncio.to_thread(http.get, f"/transcribe/{job.id}")
            times["answer"] = max(times.get("answer", 0), time.monotonic() - begun)
            assert answer.status_code == 200
            await eventually(lambda: crowd.saw.get(word) == WATCHERS, 30)  # noqa: B023 called at once
            times[word] = time.monotonic() - begun
        begun = time.monotonic()
        await asyncio.to_thread(job.finish)
        await asyncio.gather(*tasks)
        times["end"] = time.monotonic() - begun
        assert crowd.saw == dict.fromkeys(("one", "two", "completed"), WATCHERS)
        assert connections() <= settings.db_pool_size + 2
        times["cpu"] = sum(api.process.cpu_times()[:2]) - cpu
        print({key: round(value, 2) for key, value in times.items()}, api.process.num_threads(), connections())

    with httpx.Client(base_url=api.url, timeout=20) as http:
        run_async(watched(http, Life(http, settings).begin()))


def connections() -> int:
    """Of the API alone."""
    get_engine().dispose()  # our own
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with transaction() as session:
        return int(session.scalar(text(count)) or 0)
