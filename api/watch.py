"""Watchers of jobs: one LISTEN connection for all of them, no thread and no connection each.

A notification only says where to look; what has happened is always read from the tables, once for all who ask the same.
Whatever notification is lost, a look at all watched jobs every few seconds finds it. Never writes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar
from uuid import UUID

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

import errors
from api.listen import listen
from config import Settings
from database import transaction
from jobs import read
from jobs.states import FINAL
from models import Job, JobEvent, SegmentRow

GATHER_S = 0.1  # a job is read no more often than this, however fast it changes
LOOK_EVERY_S = 5.0
Mark = tuple[str, int, float, float]  # of a job, what differs after every checkpoint and every move
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a watcher has seen: numbers of the next segment and of the last event."""

    segment: int = 0
    event: int = 0


EVERYTHING = Cursor(segment=2**31 - 1, event=2**63 - 1)  # of one who wants neither segments nor events


@dataclass(frozen=True, slots=True)
class Changes:
    """A job as it is now (detached), with the segments and events after the cursor that was asked for."""

    job: Job
    cursor: Cursor  # after these
    segments: Sequence[SegmentRow] = field(default=())
    events: Sequence[JobEvent] = field(default=())

    @property
    def is_final(self) -> bool:
        return self.job.status in FINAL

    def has_news_since(self, before: Self) -> bool:
        return bool(self.segments or self.events) or self.mark[:3] != before.mark[:3]

    @property
    def mark(self) -> Mark:
        return self.job.status, self.job.attempt, self.job.progress, self.job.position_s


@dataclass(frozen=True, slots=True)
class _Question:
    job_id: UUID
    owner: str | None
    cursor: Cursor


class _Watched:
    """A job that somebody watches. A turn is a moment since which it may have changed."""

    def __init__(self) -> None:
        self.seen: dict[object, Mark | None] = {}  # by each watcher; None: nothing yet
        self.turn = 0
        self.reads: dict[_Question, asyncio.Task[Changes]] = {}
        self._loop = asyncio.get_running_loop()
        self._turned = asyncio.Event()
        self._turned_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Soon, and once for what comes in a burst."""
        if self._timer is None:
            at = max(self._loop.time(), self._turned_at + GATHER_S)
            self._timer = self._loop.call_at(at, self.turn_now)

    def turn_now(self) -> None:
        self.forget_timer()
        self._turned_at = self._loop.time()
        self.turn += 1
        self.reads.clear()
        self._turned.set()
        self._turned = asyncio.Event()

    def forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def has_turned(self, since: int, *, until: float) -> bool:
        """False: not until then, in the loop's time."""
        if self.turn != since:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._turned.wait()
        return self.turn != since

    async def ask(self, question: _Question, fetch: Callable[[_Question], Coroutine[Any, Any, Changes]]) -> Changes:
        """Who asks the same while an answer is under way, or fresh, shares it: shielded, as others may wait for it."""
        task = self.reads.get(question)
        if task is None:
            task = self.reads[question] = asyncio.create_task(fetch(question))
            task.add_done_callback(lambda done: self._keep_for_a_moment(question, done))
        return await asyncio.shield(task)

    def _keep_for_a_moment(self, question: _Question, done: asyncio.Task[Changes]) -> None:
        if not done.cancelled():
            done.exception()  # seen, also where every watcher has left meanwhile
        self._loop.call_later(GATHER_S, self._forget, question, done)

    def _forget(self, question: _Question, done: asyncio.Task[Changes]) -> None:
        if self.reads.get(question) is done:
            del self.reads[question]


class Watchers:
    """One an API process, in its event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._begin()

    def _begin(self) -> None:
        self._jobs: dict[str, _Watched] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._look_now = asyncio.Event()
        self._reading = asyncio.Semaphore(max(1, self._settings.db_pool_size // 2))  # the rest is for requests

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """Ends every `follow` where it waits: the process is about to stop, and its callers come back to another."""
        self._is_stopping = True
        for job in self._jobs.values():
            job.turn_now()

    async def follow(
        self, job_id: UUID, owner: str | None, cursor: Cursor = Cursor(), *, heartbeat_s: float = 15
    ) -> AsyncGenerator[Changes | None, None]:
        """What happens to a job: first what is after `cursor`, at once; then each change; None after `heartbeat_s`
        without any. Ends after the job is final, or gone, or when the process stops. Raises NotFound where `owner` may
        not see it, and Unavailable where the database is away, both before anything was yielded and never later.
        """
        loop = asyncio.get_running_loop()
        question = _Question(job_id, owner, cursor)
        with self._watched(job_id) as (job, me):
            turn = job.turn  # before the read: what comes during it is read again
            changes = await job.ask(question, self._fetch)
            job.seen[me] = changes.mark
            yield changes
            quiet_until = loop.time() + heartbeat_s
            while not changes.is_final:
                if not (self._is_stopping or await job.has_turned(turn, until=quiet_until)):
                    yield None
                    quiet_until = loop.time() + heartbeat_s
                    continue
                if self._is_stopping:
                    return
                turn = job.turn
                try:
                    now = await job.ask(replace(question, cursor=changes.cursor), self._fetch)
                except errors.NotFound:
                    return
                except errors.Unavailable:
                    continue  # the next look that succeeds finds what was not seen
                job.seen[me] = now.mark
                if now.has_news_since(changes):
                    changes = now
                    yield changes
                    quiet_until = loop.time() + heartbeat_s

    async def moved(self, job_id: UUID, owner: str | None, *, within_s: float) -> None:
        """Until the job has another status than now, is final or gone, or so long. Raises as `follow`."""
        seen = None
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(within_s),
                aclosing(self.follow(job_id, owner, EVERYTHING, heartbeat_s=within_s)) as changes,
            ):
                async for change in changes:
                    if change is not None and seen not in (None, change.job.status):
                        return
                    seen = seen if change is None else change.job.status

    @contextmanager
    def _watched(self, job_id: UUID) -> Iterator[tuple[_Watched, object]]:
        """The job, and under which key to note what was seen of it."""
        self._start()
        name, me = str(job_id), object()
        job = self._jobs.setdefault(name, _Watched())
        job.seen[me] = None
        try:
            yield job, me
        finally:
            del job.seen[me]
            if not job.seen:
                job.forget_timer()
                del self._jobs[name]

    # What is read

    async def _fetch(self, question: _Question) -> Changes:
        return await self._in_thread(lambda: _changes(question))

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        async with self._reading:
            return await run_in_threadpool(work)

    # Who wakes

    def _start(self) -> None:
        """With the first watcher: a service that nobody watches has no connection for it."""
        if not self._tasks:
            works = (listen(self._settings, on_begin=self._look_now.set, on_notice=self._wake), self._look_around())
            self._tasks = [asyncio.create_task(work, context=Context()) for work in works]  # not the request's

    def _wake(self, name: str) -> None:
        if job := self._jobs.get(name):
            job.wake()

    async def _look_around(self) -> None:
        """One query for all jobs that are watched."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):  # wait_for swallows a cancel until Python 3.12
                    await self._look_now.wait()
            self._look_now.clear()
            with suppress(errors.Unavailable):
                await self._look(list(self._jobs))

    async def _look(self, names: list[str]) -> None:
        marks = await self._in_thread(lambda: _marks(names)) if names else {}
        for name in names:
            job, mark = self._jobs.get(name), marks.get(name)
            if job is not None and any(seen not in (None, mark) for seen in job.seen.values()):
                job.wake()


def _changes(question: _Question) -> Changes:
    """In one snapshot: a job that is seen final has its last segment and its last event."""
    cursor = question.cursor
    with transaction() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        job = read.get_job(session, question.job_id, question.owner)
        segments = read.segments(session, job.id, after=cursor.segment - 1)
        is_new = (JobEvent.job_id == job.id, JobEvent.id > cursor.event)
        events = session.scalars(select(JobEvent).where(*is_new).order_by(JobEvent.id)).all()
    after = Cursor(
        segments[-1].number + 1 if segments else cursor.segment,
        events[-1].id if events else cursor.event,
    )
    return Changes(job, after, segments, events)


def _marks(names: list[str]) -> dict[str, Mark]:
    columns = (Job.id, Job.status, Job.attempt, Job.progress, Job.position_s)
    with transaction() as session:
        found = session.execute(select(*columns).where(Job.id.in_([UUID(name) for name in names])))
        return {str(row.id): (row.status, row.attempt, row.progress, row.position_s) for row in found}
