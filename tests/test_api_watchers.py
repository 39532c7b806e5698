"""The hub that tells watchers: nothing is lost, whatever is; a thousand of them cost one process next to nothing."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

import errors
from api import watch
from api.watch import Changes, Cursor, Watchers
from app import create_app
from config import Settings
from database import get_engine, transaction
from jobs import cancel
from stack.home import free_port
from stack.plan import answers
from tests.api_client import rows
from tests.conftest import ROOT
from tests.followed import Life
from tests.processes import until

WATCHERS = 1000
LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'api-listen'"


@pytest.fixture
def life(settings: Settings) -> Callable[[], Life]:
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    return lambda: Life(client, settings)


@dataclass(slots=True)
class Seen:
    """By one watcher."""

    statuses: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    heartbeats: int = 0
    job: str = ""

    def note(self, changes: Changes | None) -> None:
        if changes is None:
            self.heartbeats += 1
            return
        self.statuses += [event.to_status for event in changes.events]
        self.texts += [row.text.strip() for row in changes.segments]
        self.job = changes.job.status


async def follow(watchers: Watchers, job: Life, seen: Seen, **options: float) -> Seen:
    async for changes in watchers.follow(uuid.UUID(job.id), None, **options):  # type: ignore[arg-type]
        seen.note(changes)
    return seen


async def eventually(condition: Callable[[], object], within_s: float = 15) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 the database has no asyncio.Event
            await asyncio.sleep(0.01)


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(110):
            await test

    asyncio.run(main())


def test_what_is_there_comes_first_then_each_change_then_the_end(settings: Settings, life: Callable[[], Life]) -> None:
    job = life()

    async def watched() -> None:
        seen = Seen()
        async with Watchers(settings) as watchers:
            task = asyncio.create_task(follow(watchers, job, seen))
            await eventually(lambda: seen.job == "pending")
            await asyncio.to_thread(job.begin)
            await eventually(lambda: seen.job == "processing")
            await asyncio.to_thread(job.save, "one")
            await eventually(lambda: seen.texts == ["one"])
            await asyncio.to_thread(job.finish)
            await task
            assert watchers._jobs == {}
        assert (seen.statuses, seen.texts) == (["pending", "processing", "completed"], ["one"])

    run(watched())


def test_a_lost_connection_loses_nothing(
    settings: Settings, life: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 60)  # so that only the new connection can be why it looks
    job = life().begin()

    async def watched() -> None:
        seen = Seen()
        async with Watchers(settings) as watchers:
            task = asyncio.create_task(follow(watchers, job, seen))
            for number in range(3):
                await eventually(lambda: rows(f"SELECT pid {LISTENERS}"))
                rows(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
                await asyncio.to_thread(job.save, str(number))  # while nobody listens
                await eventually(lambda: len(seen.texts) == number + 1)  # noqa: B023 called at once
            await asyncio.to_thread(job.finish)
            await task
        assert seen.texts == ["0", "1", "2"]

    run(watched())


def test_a_change_right_after_an_empty_notification_is_seen(settings: Settings, life: Callable[[], Life]) -> None:
    job = life().begin()

    async def watched() -> None:
        seen = Seen()
        async with Watchers(settings) as watchers:
            task = asyncio.create_task(follow(watchers, job, seen))
            await eventually(lambda: seen.job and rows(f"SELECT pid {LISTENERS}"))
            watchers._wake(job.id)
            await asyncio.to_thread(job.save, "one")
            await eventually(lambda: seen.texts == ["one"], watch.LOOK_EVERY_S / 2)
            task.cancel()

    run(watched())


def test_a_lost_notification_only_delays(
    settings: Settings, life: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.1)
    job = life().begin()

    async def watched() -> None:
        seen = Seen()
        async with Watchers(settings) as watchers:
            task = asyncio.create_task(follow(watchers, job, seen))
            await eventually(lambda: seen.job)
            for number in range(3):
                await asyncio.to_thread(job.save, str(number), tells=False)
                await eventually(lambda: len(seen.texts) == number + 1)  # noqa: B023 called at once
            await asyncio.to_thread(job.finish)
            await task
        assert seen.texts == ["0", "1", "2"]

    run(watched())


def test_a_database_that_is_away_for_a_while_ends_nothing(
    settings: Settings, life: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.1)
    job = life().begin()
    is_away = threading.Event()
    refused: list[object] = []
    read = watch._changes

    def changes(question: watch._Question) -> Changes:
        if is_away.is_set():
            refused.append(question)
            raise errors.Unavailable("The database is away.")
        return read(question)

    monkeypatch.setattr(watch, "_changes", changes)

    async def watched() -> None:
        seen = Seen()
        async with Watchers(settings) as watchers:
            task = asyncio.create_task(follow(watchers, job, seen, heartbeat_s=0.1))
            await eventually(lambda: seen.job)
            is_away.set()
            await asyncio.to_thread(job.save, "one")
            await eventually(lambda: refused)
            before = seen.heartbeats
            await eventually(lambda: seen.heartbeats > before + 1)
            with pytest.raises(errors.Unavailable):
                await follow(watchers, job, Seen())
            is_away.clear()
            await eventually(lambda: seen.texts == ["one"])
            await asyncio.to_thread(job.finish)
            await task

    run(watched())


def test_heartbeats_come_while_nothing_happens(settings: Settings, life: Callable[[], Life]) -> None:
    job = life()

    async def watched() -> None:
        async with Watchers(settings) as watchers:
            stream = watchers.follow(uuid.UUID(job.id), None, heartbeat_s=0.05)
            async with aclosing(stream):
                assert await anext(stream) is not None
                assert [await anext(stream) for _ in range(3)] == [None] * 3
            assert watchers._jobs == {}

    run(watched())


def test_who_may_not_see_a_job_is_told_that_there_is_none(settings: Settings, life: Callable[[], Life]) -> None:
    job = life()

    async def watched() -> None:
        async with Watchers(settings) as watchers:
            for job_id, owner in ((uuid.UUID(job.id), "key:other"), (uuid.uuid4(), None)):
                with pytest.raises(errors.NotFound):
                    await anext(watchers.follow(job_id, owner))
            assert watchers._jobs == {}

    run(watched())


def test_watchers_of_one_job_share_what_is_read(
    settings: Settings, life: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = life().begin()
    asked: list[Cursor] = []
    read = watch._changes

    def changes(question: watch._Question) -> Changes:
        asked.append(question.cursor)
        return read(question)

    monkeypatch.setattr(watch, "_changes", changes)

    async def watched() -> None:
        async with Watchers(settings) as watchers:
            all_seen = [Seen() for _ in range(100)]
            tasks = [asyncio.create_task(follow(watchers, job, seen)) for seen in all_seen]
            await eventually(lambda: all(seen.job for seen in all_seen) and rows(f"SELECT pid {LISTENERS}"))
            for number in range(20):  # a burst
                await asyncio.to_thread(job.save, str(number))
            await asyncio.to_thread(job.finish)
            await asyncio.gather(*tasks)
        assert all(seen.texts == [str(number) for number in range(20)] for seen in all_seen)
        assert len(asked) < 20

    run(watched())


def test_a_watcher_that_is_slow_holds_nobody_up_and_misses_nothing(
    settings: Settings, life: Callable[[], Life]
) -> None:
    job = life().begin()

    async def watched() -> None:
        seen, late = Seen(), Seen()
        async with Watchers(settings) as watchers:
            slow = watchers.follow(uuid.UUID(job.id), None)
            late.note(await anext(slow))  # and now it does not ask for more
            task = asyncio.create_task(follow(watchers, job, seen))
            for number in range(3):
                await asyncio.to_thread(job.save, str(number))
                await eventually(lambda: len(seen.texts) == number + 1)  # noqa: B023 called at once
            await asyncio.to_thread(job.finish)
            await task
            async for changes in slow:
                late.note(changes)
        assert late == seen

    run(watched())


def test_what_is_followed_ends_when_the_process_stops(settings: Settings, life: Callable[[], Life]) -> None:
    job = life()

    async def watched() -> None:
        seen = Seen()
        async with Watchers(settings) as watchers:
            task = asyncio.create_task(follow(watchers, job, seen))
            await eventually(lambda: seen.job)
            watchers.stop()
            await task
            await follow(watchers, job, seen)  # one that comes late has what is there
        assert seen.statuses == ["pending", "pending"]

    run(watched())


def test_a_job_that_is_cancelled_ends_what_follows_it(settings: Settings, life: Callable[[], Life]) -> None:
    job = life()

    async def watched() -> None:
        seen = Seen()
        async with Watchers(settings) as watchers:
            task = asyncio.create_task(follow(watchers, job, seen))
            await eventually(lambda: seen.job)
            with transaction() as session:
                cancel.cancel(session, uuid.UUID(job.id))
            await task
        assert seen.statuses == ["pending", "cancelled"]

    run(watched())


# A thousand, in a process of its own


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
        run(watched(http, Life(http, settings).begin()))


def connections() -> int:
    """Of the API alone."""
    get_engine().dispose()  # our own
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with transaction() as session:
        return int(session.scalar(text(count)) or 0)
