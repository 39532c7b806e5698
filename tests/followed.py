"""A job that lives as a worker would write it, a real API server in this process, and both ways to follow the job."""

import asyncio
import json
import socket
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi.testclient import TestClient
from httpx_sse import ServerSentEvent, connect_sse
from sqlalchemy import func, update
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from access import keys
from app import Server, create_app
from config import Settings
from database import transaction
from jobs import claim
from jobs.progress import Fence
from jobs.read import get_job
from jobs.retry import Cause
from jobs.states import EVENTS_CHANNEL
from models import Job, Result, SegmentRow
from tests.api_client import WAV
from tests.processes import until

Told = tuple[str, Any]  # kind, and what tells it from the others
WHOLE: list[Told] = [
    ("status", "pending"),
    ("status", "processing"),
    ("segment", "one"),
    ("segment", "two"),
    ("status", "completed"),
]


@dataclass(frozen=True, slots=True)
class Running:
    server: Server
    thread: threading.Thread
    url: str

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(15)
        assert not self.thread.is_alive()

    @property
    def watched(self) -> int:
        """How many streams are open."""
        jobs = self.server.config.app.state.watchers._jobs.values()  # type: ignore[union-attr]
        return sum(len(job.seen) for job in jobs)


@contextmanager
def serving(settings: Settings) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(create_app(settings), log_config=None, timeout_graceful_shutdown=10)
        server = Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: server.started)
        running = Running(server, thread, f"http://127.0.0.1:{listening.getsockname()[1]}")
        try:
            yield running
        finally:
            running.stop()


class Life:
    """Of one job, as its worker would write it."""

    def __init__(self, http: httpx.Client | TestClient, settings: Settings) -> None:
        answer = http.post("/transcribe/", files={"file": ("talk.wav", WAV)})
        self.id = str(answer.json()["job_id"])
        self._settings = settings
        self._fence = Fence(uuid.UUID(self.id), 0)
        self._count = 0

    def begin(self) -> "Life":
        taken = claim.claim(uuid.UUID(self.id), claimed_by="host:1:2", settings=self._settings)
        assert taken is not None
        self._fence = taken.fence
        return self

    def save(self, text: str, *, tells: bool = True) -> None:
        """A checkpoint."""
        number = self._count
        row = SegmentRow(
            job_id=uuid.UUID(self.id), number=number, start=number, end=number + 0.9, text=f" {text}",
            avg_logprob=-0.1, no_speech_prob=0.01, compression_ratio=1.0, temperature=0.0, tokens=[], words=None,
        )  # fmt: skip
        ours = (Job.id == self._fence.job_id, Job.attempt == self._fence.attempt)
        with transaction() as session:
            session.add(row)
            values = {"progress": min(99.0, 10.0 * (number + 1)), "position_s": number + 1.0}
            session.execute(update(Job).where(*ours).values(**values))
            if tells:
                session.execute(func.pg_notify(EVENTS_CHANNEL, self.id).select())
        self._count += 1

    def finish(self) -> None:
        result = Result(
            job_id=self._fence.job_id, attempt=self._fence.attempt, text="one two", language="en",
            language_probability=0.9, duration=3.0, word_count=2, confidence=0.9, processing_s=1.0,
        )  # fmt: skip
        assert claim.finish(self._fence, result, patience_s=5)

    def fail(self) -> None:
        """For good."""
        error = ValueError("broken")
        for _ in range(self._settings.max_failures):
            assert claim.fail(self._fence, error, self._settings, cause=Cause.FAILURE, worker="host:1:2")
            with transaction() as session:
                session.execute(update(Job).where(Job.id == self._fence.job_id).values(run_at=func.now()))
                if get_job(session, self._fence.job_id).status == "failed":
                    return
            self.begin()

    def whole(self, *texts: str) -> "Life":
        self.begin()
        for text in texts:
            self.save(text)
        self.finish()
        return self


@contextmanager
def following(http: httpx.Client, job: Life, after: str = "", **headers: str) -> Iterator[Iterator[ServerSentEvent]]:
    given = headers | ({"Last-Event-ID": after} if after else {})
    with connect_sse(http, "GET", f"/transcribe/{job.id}/events", headers=given) as source:
        yield source.iter_sse()


def told(event: ServerSentEvent) -> Told:
    return told_by(event.event, event.json())


def told_by(kind: str, data: dict[str, Any]) -> Told:
    return kind, data["text"] if kind == "segment" else data["progress" if kind == "progress" else "status"]


def without_progress(seen: list[Told]) -> list[Told]:
    return [one for one in seen if one[0] != "progress"]


def key_of(name: str, settings: Settings, **limits: int) -> str:
    with transaction() as session:
        return keys.create(session, keys.KeyRequest(name, **limits), settings)[1]  # type: ignore[arg-type]


@contextmanager
def websocket(
    http: httpx.Client, job: Life | str, *, query: str = "", key: str = "", **options: Any
) -> Iterator[ClientConnection]:
    job_id = job if isinstance(job, str) else job.id
    url = str(http.base_url.copy_with(scheme="ws")).rstrip("/")
    given = {"X-API-Key": key or http.headers.get("X-API-Key", "")}
    headers = {name: value for name, value in given.items() if value}
    with connect(f"{url}/ws/jobs/{job_id}{query}", additional_headers=headers, **options) as stream:
        yield stream


def frames(stream: ClientConnection) -> list[dict[str, Any]]:
    """Until it is closed well."""
    return [json.loads(message) for message in stream]


def code_of(stream: ClientConnection) -> int:
    """With which it is closed, whatever comes before."""
    with suppress(ConnectionClosed):
        while True:
            stream.recv(timeout=10)
    assert stream.close_code is not None
    return stream.close_code


async def eventually(condition: Callable[[], object], within_s: float = 15) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 the database has no asyncio.Event
            await asyncio.sleep(0.01)


def run_async(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(110):
            await test

    asyncio.run(main())
