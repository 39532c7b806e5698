"""Callers of a running service: they submit, try again while it is away, cancel now and then, and keep books."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 20.0
AGAIN_S = 0.5
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recording:
    path: Path
    said: str | None  # None: poison, which must fail


@dataclass(slots=True)
class Books:
    """What callers were told; several threads write."""

    accepted: dict[str, Recording] = field(default_factory=dict)  # by job id
    cancelled: set[str] = field(default_factory=set)
    unanswered: list[str] = field(default_factory=list)  # names under which a job may exist, or not
    refused: int = 0  # 503: try again


class Api:
    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, Json]:
        """Status and JSON. Raises OSError or HTTPException where no whole answer came."""
        connection = HTTPConnection(self._address, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except ValueError as error:
            raise HTTPException("half an answer") from error
        finally:
            connection.close()

    def submit(self, recording: Recording, name: str, **options: str) -> tuple[int, Json]:
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in options.items()
        ]
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = "".join([*parts, head]).encode() + recording.path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return self.ask("POST", "/transcribe/", body, f"multipart/form-data; boundary={boundary}")


def submit(api: Api, books: Books, recording: Recording, stop: Event, **options: str) -> str | None:
    """Until it is accepted, under a name of its own; None where `stop` came first."""
    name = f"{secrets.token_hex(8)}-{recording.path.name}"
    while True:
        try:
            status, answer = api.submit(recording, name, **options)
        except (OSError, HTTPException):
            books.unanswered.append(name)
        else:
            if status == 202:
                books.accepted[answer["job_id"]] = recording
                return str(answer["job_id"])
            books.refused += 1
            books.unanswered.append(name)  # a COMMIT in doubt is a 503 too
            if status != 503:
                raise AssertionError(f"{status} for {recording.path.name}: {answer}")
        if stop.wait(AGAIN_S):
            return None


class Callers:
    def __init__(self, api: Api, recordings: list[Recording], random: Random, *, count: int, pause_s: float) -> None:
        self.books = Books()
        self.errors: list[BaseException] = []
        self._api, self._recordings, self._pause_s = api, recordings, pause_s
        self._stop = Event()
        seeds = [random.random() for _ in range(count)]
        self._threads = [Thread(target=self._run, args=(Random(seed),), daemon=True) for seed in seeds]

    @contextmanager
    def calling(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _run(self, random: Random) -> None:
        try:
            while not self._stop.wait(random.uniform(0, 2 * self._pause_s)):
                self._call(random)
        except BaseException as error:  # noqa: BLE001 told at the end
            self.errors.append(error)

    def _call(self, random: Random) -> None:
        recording = random.choice(self._recordings)
        priority = "high" if random.random() < 0.2 else "normal"
        job_id = submit(self._api, self.books, recording, self._stop, beam_size="1", priority=priority)
        if job_id is not None and random.random() < 0.08:
            self._cancel(job_id)

    def _cancel(self, job_id: str) -> None:
        """An answer that never came leaves both open."""
        try:
            status, _ = self._api.ask("DELETE", f"/transcribe/{job_id}")
        except (OSError, HTTPException):
            return
        if status == 200:
            self.books.cancelled.add(job_id)
