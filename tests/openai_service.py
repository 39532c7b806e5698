"""The API as a server in a thread, asked by OpenAI's paths, with the test in the place of the worker."""

from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any
from uuid import UUID

import httpx
import uvicorn
from fastapi import FastAPI

from api.watch import Changes, Watchers
from app import Server, create_app
from config import Settings
from database import transaction
from jobs.states import notify
from models import Job, SegmentRow
from tests.api_client import WAV, rows
from tests.checker import check_invariants, finish, take
from tests.processes import until

PATH = "/v1/audio/transcriptions"
WORDS = [{"word": " one", "start": 0.0, "end": 0.4, "probability": 0.9}]
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """A server with its application, where the test plays the worker."""

    app: FastAPI
    url: str
    settings: Settings
    clients: ThreadPoolExecutor
    following: set[object]

    def post(self, wav: bytes = WAV, path: str = PATH, headers: Fields | None = None, **fields: Any) -> httpx.Response:
        files = {"file": ("a.wav", wav)}
        return httpx.post(
            f"{self.url}{path}", files=files, data={"model": "tiny"} | fields, headers=headers, timeout=30
        )

    def begin(self, *arguments: Any, **fields: Any) -> "Future[httpx.Response]":
        """A request that waits, once it waits."""
        before = self.waiting()
        answer = self.clients.submit(self.post, *arguments, **fields)
        until(lambda: self.waiting() > before or answer.done(), 10)
        return answer

    def waiting(self) -> int:
        """Requests that follow a job."""
        return len(self.following)

    def complete(self, *texts: str) -> None:
        """The newest job."""
        fence = take(newest(), self.settings).fence
        for number, text in enumerate(texts):
            say(fence.job_id, number, text)
        assert finish(fence, "".join(texts).strip())

    def answer_to(self, *texts: str, **fields: Any) -> httpx.Response:
        answer = self.begin(**fields)
        self.complete(*texts)
        return answer.result(timeout=20)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    server = Server(uvicorn.Config(app, port=0, log_config=None, ws="none", timeout_graceful_shutdown=2))
    app.state.server = server
    thread = Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, 20)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def running(settings: Settings) -> Iterator[Service]:
    app = create_app(settings)
    following = count_followers(app.state.watchers)
    with ThreadPoolExecutor(16) as clients, serving(app) as url:
        yield Service(app, url, settings, clients, following)
    with transaction() as session:
        check_invariants(session)


def count_followers(watchers: Watchers) -> set[object]:
    """One entry each, as long as they follow."""
    follow, following = watchers.follow, set[object]()

    async def counted(*arguments: Any, **options: Any) -> AsyncGenerator[Changes | None, None]:
        me = object()
        following.add(me)
        try:
            async with aclosing(follow(*arguments, **options)) as changes:
                async for change in changes:
                    yield change
        finally:
            following.remove(me)

    watchers.follow = counted  # type: ignore[method-assign]
    return following


def say(job_id: UUID, number: int, text: str) -> None:
    """As an attempt saves a group of windows."""
    row = SegmentRow(
        job_id=job_id, number=number, start=number, end=number + 0.5, text=text, avg_logprob=-0.1, no_speech_prob=0.01,
        compression_ratio=1.0, temperature=0.0, tokens=[50364, 472], words=WORDS,
    )  # fmt: skip
    with transaction() as session:
        session.add(row)
        notify(session, session.get_one(Job, job_id), relay=False)


def newest() -> UUID:
    ((job_id,),) = rows("SELECT id FROM transcription_jobs ORDER BY created_at DESC LIMIT 1")
    return UUID(str(job_id))


def count() -> int:
    return int(rows("SELECT count(*) FROM transcription_jobs")[0][0])


def refusal(answer: httpx.Response, status: int) -> Fields:
    """The error, which is all there is, in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert list(answer.json()) == ["error"]
    error: Fields = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"]
    return error
