"""What comes in: a slow store holds up nobody else, and slow or many clients cannot fill the memory."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event
from time import monotonic

import httpx
import pytest

from api import intake
from app import create_app
from config import Settings
from storage.local import FileWriter, LocalStorage
from tests.api_client import WAV, files_below
from tests.followed import Life, Running, serving
from tests.processes import until

HEAD = "POST /transcribe/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"


@contextmanager
def api_of(settings: Settings) -> Iterator[tuple[Running, httpx.Client]]:
    with serving(settings) as running, httpx.Client(base_url=running.url, timeout=30) as http:
        yield running, http


def upload(running: Running) -> int:
    """The status of the answer."""
    return httpx.post(f"{running.url}/transcribe/", files={"file": ("a.wav", WAV)}, timeout=60).status_code


def everything(client: socket.socket) -> bytes:
    """Until the server closes the connection."""
    client.settimeout(20)
    return b"".join(iter(lambda: client.recv(65536), b""))


@dataclass
class Store:
    is_slow: bool = False
    writing: int = 0
    mended: Event = field(default_factory=Event)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """While it is slow each write waits until it is mended."""
    store, write = Store(), FileWriter.write

    def wait(self: FileWriter, data: bytes) -> None:
        if store.is_slow:
            store.writing += 1
            store.mended.wait(60)
        write(self, data)

    monkeypatch.setattr(FileWriter, "write", wait)
    yield store
    store.mended.set()


def test_ten_uploads_into_a_slow_store_hold_up_no_poll_and_no_health_check(settings: Settings, store: Store) -> None:
    small = settings.model_copy(update={"db_pool_size": 4})
    with api_of(small) as (running, http), ThreadPoolExecutor(10) as callers:
        job, store.is_slow = Life(http, settings), True
        uploads = [callers.submit(upload, running) for _ in range(10)]
        until(lambda: store.writing == 10)
        for path, wanted in ((f"/transcribe/{job.id}", 200), ("/health/ready", 200), ("/jobs/", 200)):
            started = monotonic()
            answer = http.get(path, timeout=10)
            assert (answer.status_code, monotonic() - started < 3) == (wanted, True), path
        assert not any(one.done() for one in uploads)
        store.mended.set()
        assert {one.result() for one in uploads} == {202}


def test_a_store_that_hangs_while_its_room_is_looked_at_holds_up_one_upload_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, end = Event(), Event()
    free_bytes = LocalStorage.free_bytes

    def hang(self: LocalStorage) -> int:
        looking.set()
        end.wait(30)
        return free_bytes(self)

    with api_of(settings) as (running, _), ThreadPoolExecutor(1) as callers:
        assert upload(running) == 202
        monkeypatch.setattr(LocalStorage, "free_bytes", hang)
        monkeypatch.setattr("api.admission.LOOK_EVERY_S", 0)
        held = callers.submit(upload, running)
        assert looking.wait(10)
        assert upload(running) == 202
        end.set()
        assert held.result(30) == 202


@contextmanager
def begun_upload(running: Running, length: int) -> Iterator[socket.socket]:
    """The headers, and the first bytes of a body of that length."""
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=20) as client:
        client.sendall(f"{HEAD}Content-Length: {length}\r\n\r\n--b\r\n".encode())
        yield client


def test_beyond_the_most_uploads_at_once_a_body_is_refused_before_it_is_read(settings: Settings) -> None:
    few = settings.model_copy(update={"max_uploads_at_once": 3})
    with api_of(few) as (running, _):
        with ExitStack() as under_way:
            for _ in range(3):
                under_way.enter_context(begun_upload(running, 1000))
            until(lambda: intake_of(running)._count == 3)
            with begun_upload(running, 10**9) as refused:
                answer = everything(refused).decode()
            assert answer.startswith("HTTP/1.1 503")
            assert "retry-after: 30" in answer.lower()
            assert '"code":"overloaded"' in answer
        until(lambda: intake_of(running)._count == 0)
        assert upload(running) == 202


def intake_of(running: Running) -> intake.Intake:
    found: intake.Intake = running.server.config.app.state.intake  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("door", ["/transcribe/", "/transcribe/batch", "/v1/audio/transcriptions", "/asr"])
def test_every_door_for_recordings_counts(settings: Settings, door: str) -> None:
    few = settings.model_copy(update={"max_uploads_at_once": 1})
    with api_of(few) as (running, http), begun_upload(running, 1000):
        until(lambda: intake_of(running)._count == 1)
        name = {"/transcribe/batch": "files", "/asr": "audio_file"}.get(door, "file")
        answer = http.post(door, files={name: ("a.wav", WAV)}, data={"model": "whisper-1"})
        assert answer.status_code == 503


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LOOK_EVERY_S", 0.3)


def drip(client: socket.socket) -> bytes:
    """A byte now and then, until something comes back."""
    client.settimeout(0.05)
    while True:
        try:
            return client.recv(4096)
        except TimeoutError:
            client.sendall(b"x")


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_body_that_comes_too_slowly_is_dropped_and_leaves_nothing(
    settings: Settings, quick: None, is_silent: bool
) -> None:
    with api_of(settings.model_copy(update={"min_upload_bytes_per_second": 1000})) as (running, _):
        with begun_upload(running, 10**6) as client:
            client.sendall(b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + WAV[:100])
            answer = (b"" if is_silent else drip(client)) + everything(client)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code":"upload_too_slow"' in answer
        assert files_below(settings.storage_dir) == []
        assert intake_of(running)._count == 0


def test_a_client_that_drips_on_after_its_body_was_dropped_loses_its_connection(
    settings: Settings, quick: None
) -> None:
    least = settings.model_copy(update={"min_upload_bytes_per_second": 1000})
    with api_of(least) as (running, _), begun_upload(running, 10**6) as client:
        answer = drip(client)
        assert b"connection: close" in answer.lower()
        assert is_closed_to(client)


def is_closed_to(client: socket.socket, within_s: float = 10) -> bool:
    """Whether the server closes the connection although bytes keep coming."""
    client.settimeout(0.05)
    end = monotonic() + within_s
    while monotonic() < end:
        try:
            if client.recv(4096) == b"":
                return True
            client.sendall(b"x")
        except TimeoutError:
            client.sendall(b"x")
        except ConnectionError:
            return True
    return False


def test_the_document_says_that_every_door_for_recordings_drops_slow_bodies(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    doors = ("/transcribe/", "/transcribe/batch", "/v1/audio/transcriptions", "/v1/audio/translations", "/asr")
    for door in (*doors, "/detect-language"):
        assert "408" in paths[door]["post"]["responses"], door


def test_a_body_that_comes_fast_enough_may_take_its_time(settings: Settings, quick: None) -> None:
    with api_of(settings.model_copy(update={"min_upload_bytes_per_second": 10})) as (running, _):
        part = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + WAV + b"\r\n--b--\r\n"
        with begun_upload(running, len(part) + 5) as client:
            for start in range(0, len(part), 500):
                client.sendall(part[start : start + 500])
                Event().wait(0.1)
            assert client.recv(4096).startswith(b"HTTP/1.1 202")


def test_without_a_least_rate_a_silent_body_is_waited_for(settings: Settings, quick: None) -> None:
    with (
        api_of(settings.model_copy(update={"min_upload_bytes_per_second": 0})) as (running, _),
        begun_upload(running, 10**6) as client,
    ):
        client.settimeout(1.5)
        with pytest.raises(TimeoutError):
            client.recv(4096)
        assert intake_of(running)._count == 1
