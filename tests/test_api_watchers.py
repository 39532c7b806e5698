"""The hub that tells watchers: nothing is lost, whatever is."""

import asyncio
import threading
import uuid
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from fastapi.testclient import TestClient

import errors
from api import watch
from api.watch import Changes, Cursor, Watchers
from app import create_app
from config import Settings
from database import transaction
from jobs import cancel
from tests.api_client import rows
from tests.followed import Life, eventually, run_async

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

    run_async(watched())


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

    run_async(watched())


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

    run_async(watched())


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

    run_async(watched())


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

    run_async(watched())


def test_heartbeats_come_while_nothing_happens(settings: Settings, life: Callable[[], Life]) -> None:
    job = life()

    async def watched() -> None:
        async with Watchers(settings) as watchers:
            stream = watchers.follow(uuid.UUID(job.id), None, heartbeat_s=0.05)
            async with aclosing(stream):
                assert await anext(stream) is not None
                assert [await anext(stream) for _ in range(3)] == [None] * 3
            assert watchers._jobs == {}

    run_async(watched())


def test_who_may_not_see_a_job_is_told_that_there_is_none(settings: Settings, life: Callable[[], Life]) -> None:
    job = life()

    async def watched() -> None:
        async with Watchers(settings) as watchers:
            for job_id, owner in ((uuid.UUID(job.id), "key:other"), (uuid.uuid4(), None)):
                with pytest.raises(errors.NotFound):
                    await anext(watchers.follow(job_id, owner))
            assert watchers._jobs == {}

    run_async(watched())


@pytest.mark.parametrize("steps", range(6))
def test_it_stops_also_at_the_moment_when_it_begins_to_listen(
    settings: Settings, life: Callable[[], Life], monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    async def waits(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(watch, "listen", waits)
    job = life()

    async def watched() -> None:
        async with asyncio.timeout(10), Watchers(settings) as watchers:
            assert await anext(watchers.follow(uuid.UUID(job.id), None))
            watchers._look_now.set()
            for _ in range(steps):
                await asyncio.sleep(0)

    run_async(watched())


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

    run_async(watched())


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

    run_async(watched())


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

    run_async(watched())


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

    run_async(watched())
