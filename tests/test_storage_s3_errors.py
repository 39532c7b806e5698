"""Every way in which an S3 server fails becomes an error of ours, soon, that tells neither bucket nor server."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

import pytest

import storage.s3
from errors import FileMissing, StorageError, StorageFull
from storage import new_key
from storage.s3 import S3Storage
from tests.s3_server import CREDENTIALS, Bucket, s3_server, use_credentials

SIZES = (10, 5 * 1024**2 + 10)  # at once, and in parts


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_server() as new_bucket:
        yield new_bucket()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch, CREDENTIALS)


def open_bucket(bucket: Bucket, *, name: str = "") -> S3Storage:
    if not name:
        S3Storage(name or bucket.name, endpoint_url=bucket.endpoint_url, part_bytes=5 * 1024**2).mark()
    return S3Storage(
        name or bucket.name, endpoint_url=bucket.endpoint_url, part_bytes=5 * 1024**2
    )  # without a client yet


def store(storage: S3Storage, content: bytes = b"a recording") -> str:
    key = new_key()
    with storage.create(key) as writer:
        writer.write(content)
        writer.commit()
    return key


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second attempts, no long waits: what boto3 repeats is its own affair."""
    monkeypatch.setitem(storage.s3.OPTIONS, "retries", {"mode": "standard", "total_max_attempts": 1})
    monkeypatch.setitem(storage.s3.OPTIONS, "read_timeout", 0.3)


@contextmanager
def server_of(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[S3Storage]:
    """A server that gives one answer to everything, and a storage that asks it."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is the library's
            pass

    def handle(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        answer(handler)

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", handle)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield S3Storage("hidden-bucket", endpoint_url=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


def refuse(status: int, code: str) -> Callable[[BaseHTTPRequestHandler], None]:
    body = f"<Error><Code>{code}</Code><Message>hidden-bucket</Message></Error>".encode() if code else b""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_without_credentials_it_says_so_and_works_once_there_are_some(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_bucket(bucket)
    use_credentials(monkeypatch, {})
    with pytest.raises(StorageError, match="no credentials"):
        store(storage)
    with pytest.raises(StorageError, match="no credentials"):
        storage.presigned_url(new_key(), filename="a", media_type="text/plain", expires_s=60)
    use_credentials(monkeypatch, CREDENTIALS)
    assert storage.exists(store(storage))


def test_a_server_that_is_away_is_told_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    started = monotonic()
    with pytest.raises(StorageError, match="did not answer") as error:
        S3Storage("bucket", endpoint_url=url).size(new_key())
    assert monotonic() - started < 8
    assert error.value.retryable
    assert "127.0.0.1" not in str(error.value)


@pytest.mark.parametrize("size", SIZES)
def test_a_wrong_bucket_is_not_a_missing_recording(bucket: Bucket, size: int) -> None:
    with pytest.raises(StorageError, match="bucket does not exist") as error:
        store(open_bucket(bucket, name="no-such-bucket"), bytes(size))
    assert not isinstance(error.value, FileMissing)
    assert "no-such-bucket" not in str(error.value)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", StorageError, "must check the credentials"),
        (403, "InvalidAccessKeyId", StorageError, "must check the credentials"),
        (403, "", StorageError, "must check the credentials"),
        (404, "", StorageError, "failed: 404"),
        (404, "NoSuchBucket", StorageError, "bucket does not exist"),
        (503, "SlowDown", StorageError, "overloaded"),
        (503, "", StorageError, "overloaded"),
        (507, "XMinioStorageFull", StorageFull, "no room left"),
        (403, "QuotaExceeded", StorageFull, "no room left"),
        (500, "InternalError", StorageError, "failed: InternalError"),
        (400, "AuthorizationHeaderMalformed", StorageError, "failed: AuthorizationHeaderMalformed"),
        (502, "", StorageError, "failed: 502"),
    ],
)
def test_what_a_server_answers_becomes_an_error_of_ours(
    status: int, code: str, kind: type[StorageError], words: str
) -> None:
    with server_of(refuse(status, code)) as storage:
        for attempt in (store, lambda storage: storage.read(new_key())):
            with pytest.raises(StorageError, match=words) as error:
                attempt(storage)
            assert isinstance(error.value, StorageFull) == (kind is StorageFull)
            assert not isinstance(error.value, FileMissing)
            assert "hidden" not in str(error.value)


def test_a_server_that_failed_once_is_asked_again() -> None:
    answers = iter((refuse(503, ""), refuse(200, "")))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        next(answers)(handler)

    with server_of(answer) as storage:
        assert storage.size(new_key()) == 0


def test_deleting_is_harmless_where_a_server_complains_that_it_is_gone() -> None:
    with server_of(refuse(404, "NoSuchKey")) as storage:
        storage.delete(new_key())


@pytest.mark.usefixtures("impatient")
def test_a_recording_that_breaks_off_is_no_recording() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(bytes(1000))
        handler.close_connection = True

    with server_of(answer) as storage:
        with pytest.raises(StorageError, match="did not answer"), storage.local_path(new_key()):
            pytest.fail("half a recording must not be given out")
        with pytest.raises(StorageError, match="did not answer"):
            list(storage.read(new_key()))


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_silent_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StorageError, match="did not answer"):
            S3Storage("bucket", endpoint_url=url).size(new_key())
