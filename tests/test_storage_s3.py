"""Recordings in S3: bounded memory, a server that fails in every way, others in the same bucket, and no secret told."""

import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from botocore.exceptions import ReadTimeoutError

import storage.s3
from config import Settings
from errors import StorageError, StorageFull
from storage import new_key, open_storage
from storage.local import LocalStorage
from storage.s3 import S3Storage
from tests.s3_server import CREDENTIALS, Bucket, s3_server, use_credentials

ROOT = Path(__file__).parents[1]
PART = 5 * 1024**2
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def new_bucket() -> Iterator[Callable[[], Bucket]]:
    with s3_server() as new_bucket:
        yield new_bucket


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch, CREDENTIALS)


@pytest.fixture
def bucket(new_bucket: Callable[[], Bucket]) -> Bucket:
    return new_bucket()


def open_bucket(bucket: Bucket, prefix: str = "", *, name: str = "") -> S3Storage:
    if not name:
        S3Storage(name or bucket.name, prefix, endpoint_url=bucket.endpoint_url, part_bytes=PART).mark()
    return S3Storage(
        name or bucket.name, prefix, endpoint_url=bucket.endpoint_url, part_bytes=PART
    )  # without a client yet


def store(storage: S3Storage, content: bytes = b"a recording") -> str:
    key = new_key()
    with storage.create(key) as writer:
        writer.write(content)
        writer.commit()
    return key


def test_settings_say_where_recordings_are(bucket: Bucket) -> None:
    url = f"s3://{bucket.name}/some/folder"
    storage = open_storage(Settings(storage_url=url, s3_endpoint_url=bucket.endpoint_url, s3_region="eu-west-1"))
    storage.mark()
    with storage.create(key := new_key()) as writer:
        writer.write(b"a recording")
        writer.commit()
    assert bucket.objects() == [f"some/folder/{key}"]


@pytest.mark.parametrize(
    "url",
    [
        "s3://", "s3:///prefix", "s3://b", "S3://bucket", "gs://bucket", "http://bucket", "file:///var/audio",
        "/var/audio", "bucket", "s3://key:hidden@bucket/a", "s3://bucket/a//b", "s3://bucket/a?region=x",
        "s3://bucket/a b", " s3://bucket",
    ],
)  # fmt: skip
def test_a_place_that_is_none_is_refused_at_start(url: str) -> None:
    with pytest.raises(ValueError, match="STORAGE_URL must be") as error:
        open_storage(Settings(storage_url=url))
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("url", ["minio:9000", "https://", "ftp://minio", "https://key:hidden@minio", "http://a b"])
def test_a_server_that_is_none_is_refused_at_start(url: str) -> None:
    with pytest.raises(ValueError, match="S3_ENDPOINT_URL must be") as error:
        open_storage(Settings(storage_url="s3://bucket", s3_endpoint_url=url))
    assert "hidden" not in str(error.value)


def test_a_server_of_ones_own_needs_no_region(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    storage = open_bucket(bucket)
    assert storage.exists(store(storage))
    url = storage.presigned_url(new_key(), filename="a", media_type="text/plain", expires_s=60)
    assert url.startswith(f"{bucket.endpoint_url}/{bucket.name}/")


def test_a_presigned_url_names_bucket_and_region_of_amazon() -> None:
    """The host for all regions sends on to the bucket's, for which the signature is not valid (boto3#3015)."""
    storage = open_storage(Settings(storage_url="s3://our-bucket/a", s3_region="eu-central-1"))
    url = storage.presigned_url(new_key(), filename="a", media_type="text/plain", expires_s=60)
    assert url is not None
    assert urlsplit(url).hostname == "our-bucket.s3.eu-central-1.amazonaws.com"


def test_no_server_is_asked_at_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        open_storage(Settings(storage_url="s3://bucket", s3_endpoint_url=url))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_boto3_is_loaded_only_where_it_is_needed(tmp_path: Path) -> None:
    code = """
import sys
from config import Settings
from storage import open_storage
open_storage(Settings(data_dir=sys.argv[1]))
assert not {"boto3", "botocore"} & sys.modules.keys()
open_storage(Settings(storage_url="s3://bucket"))
assert "boto3" in sys.modules
"""
    subprocess.run((sys.executable, "-c", code, str(tmp_path)), cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("prefix", ["", "/", "a", "a/", "/a/", "a/b", "a/b/"])
def test_a_prefix_is_a_folder_with_or_without_its_slash(bucket: Bucket, prefix: str) -> None:
    storage = open_bucket(bucket, prefix)
    key = store(storage)
    folder = prefix.strip("/")
    assert bucket.objects() == [f"{folder}/{key}" if folder else key]
    assert list(storage.committed_between(datetime.fromtimestamp(0, UTC), TOMORROW)) == [key]


def test_one_prefix_sees_nothing_of_another(bucket: Bucket) -> None:
    storages = [open_bucket(bucket, prefix) for prefix in ("", "a", "ab")]
    keys = [store(each) for each in storages]
    for mine, key in zip(storages, keys, strict=True):
        assert list(mine.committed_between(datetime.fromtimestamp(0, UTC), TOMORROW)) == [key]
        assert [mine.exists(other) for other in keys] == [other == key for other in keys]


@pytest.mark.parametrize("prefix", ["", "audio"])
def test_what_others_upload_to_the_bucket_is_left_alone(bucket: Bucket, prefix: str) -> None:
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="audio/a film.mp4")
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=f"audio2/{new_key()}")
    assert open_bucket(bucket, prefix).discard_unfinished(TOMORROW) == 0
    assert len(bucket.uploads()) == 2


def test_an_upload_that_ends_while_it_is_discarded_is_harmless(bucket: Bucket) -> None:
    storage = open_bucket(bucket)
    key = new_key()
    upload = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]

    def be_first(**_: object) -> None:
        bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload)

    storage._client().meta.events.register("before-call.s3.AbortMultipartUpload", be_first)
    assert storage.discard_unfinished(TOMORROW) == 1
    assert bucket.uploads() == []


def test_more_recordings_are_listed_than_fit_in_one_answer(bucket: Bucket) -> None:
    storage = open_bucket(bucket)
    keys = {store(storage) for _ in range(5)}
    asked = []

    def want_few(params: dict[str, Any], **_: object) -> None:
        params["MaxKeys"] = 2
        asked.append(params)

    storage._client().meta.events.register("before-parameter-build.s3.ListObjectsV2", want_few)
    assert set(storage.committed_between(datetime.fromtimestamp(0, UTC), TOMORROW)) == keys
    assert len(asked) == 3


@pytest.mark.parametrize("size", [10, PART + 10])
def test_what_was_committed_though_its_answer_was_lost_is_taken_back(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    storage = open_bucket(bucket)
    client = storage._client()

    def lose_the_answer_of(operation: str) -> None:
        really = getattr(client, operation)

        def lost(**parameters: Any) -> None:
            really(**parameters)
            raise ReadTimeoutError(endpoint_url="http://hidden")

        monkeypatch.setattr(client, operation, lost)

    lose_the_answer_of("put_object")
    lose_the_answer_of("complete_multipart_upload")
    with pytest.raises(StorageError, match="did not answer"):
        store(storage, bytes(size))
    assert bucket.objects() == bucket.uploads() == []


def test_after_a_part_that_failed_nothing_can_be_committed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_bucket(bucket)

    def fail(**_: object) -> None:
        raise ReadTimeoutError(endpoint_url="http://hidden")

    with storage.create(new_key()) as writer:
        writer.write(bytes(PART))
        with monkeypatch.context() as broken:
            broken.setattr(storage._client(), "upload_part", fail)
            with pytest.raises(StorageError, match="did not answer"):
                writer.write(bytes(PART))
        with pytest.raises(ValueError, match="closed"):
            writer.write(bytes(PART))
        with pytest.raises(ValueError, match="closed"):
            writer.commit()
    assert bucket.objects() == bucket.uploads() == []


def test_memory_is_bounded_however_long_a_recording_is(bucket: Bucket) -> None:
    """In a process of its own, because the server keeps in this one what it is sent."""
    code = """
import sys, tracemalloc
from storage import new_key
from storage.s3 import S3Storage
storage = S3Storage(sys.argv[1], endpoint_url=sys.argv[2])
MIB = bytes(1024**2)
with storage.create(new_key()) as writer:
    writer.write(MIB)
    writer.commit()  # the client is there now, with all that it reads once
tracemalloc.start()
key = new_key()
with storage.create(key) as writer:
    for _ in range(64):
        writer.write(MIB)
    writer.commit()
sent = tracemalloc.get_traced_memory()[1]
tracemalloc.reset_peak()
with storage.local_path(key) as path:
    assert path.stat().st_size == 64 * len(MIB)
print(sent, tracemalloc.get_traced_memory()[1])
"""
    command = (sys.executable, "-c", code, bucket.name, bucket.endpoint_url)
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    sent, fetched = map(int, done.stdout.split())
    assert sent < 1.5 * storage.s3.PART_BYTES
    assert fetched < 4 * 1024**2


def test_a_file_that_was_fetched_is_ours_alone_and_gone_after_the_block(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where open files have no names, too."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("storage.s3.NAMES_OPEN_FILES", False)
    storage = open_bucket(bucket)
    with storage.local_path(store(storage)) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes() == b"a recording"
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not storage.s3.NAMES_OPEN_FILES, reason="open files have no names on this system")
def test_nothing_remains_of_a_file_that_was_fetched_by_a_process_that_was_killed(
    bucket: Bucket, tmp_path: Path
) -> None:
    code = """
import os, stat, sys
from storage.s3 import S3Storage
with S3Storage(sys.argv[1], endpoint_url=sys.argv[2]).local_path(sys.argv[3]) as path:
    assert path.read_bytes() == b"a recording"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.kill(os.getpid(), 9)
"""
    key = store(open_bucket(bucket))
    command = (sys.executable, "-c", code, bucket.name, bucket.endpoint_url, key)
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_file_that_is_fetched_is_told_as_such(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full_disk() -> Iterator[tuple[object, Path]]:
        with Path("/dev/full").open("wb") as file:
            yield file, Path("/dev/full")

    storage = open_bucket(bucket)
    key = store(storage, bytes(100_000))
    monkeypatch.setattr("storage.s3._temporary_file", full_disk)
    with pytest.raises(StorageFull, match="no room"), storage.local_path(key):
        pass


def test_an_error_in_the_block_of_a_fetched_file_stays_what_it_is(bucket: Bucket) -> None:
    storage = open_bucket(bucket)
    with pytest.raises(PermissionError), storage.local_path(store(storage)):
        raise PermissionError


@pytest.mark.parametrize("name", ["a b.srt", "Übung 1.srt", 'quo"te\\.srt', "two\nlines\r.srt", "50%;x=y.srt"])
def test_a_presigned_url_is_a_download_with_its_name(bucket: Bucket, name: str) -> None:
    storage = open_bucket(bucket, "results")
    key = store(storage, b"1\n00:00")
    url = storage.presigned_url(key, filename=name, media_type="application/x-subrip", expires_s=60)
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"1\n00:00"
        assert answer.headers["Content-Type"] == "application/x-subrip"
        kind, plain, full = answer.headers["Content-Disposition"].split("; ")
    assert kind == "attachment"
    assert plain.startswith('filename="')
    assert plain.endswith('.srt"')
    assert unquote(full.removeprefix("filename*=UTF-8''")) == name


def test_a_presigned_url_expires_and_tells_no_secret(bucket: Bucket) -> None:
    storage = open_bucket(bucket)
    url = storage.presigned_url(new_key(), filename="a", media_type="text/plain", expires_s=77)
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Expires"] == ["77"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in url


def test_no_secret_is_in_what_is_shown_of_a_storage(bucket: Bucket) -> None:
    storage = open_bucket(bucket)
    store(storage)
    for secret in CREDENTIALS.values():
        assert secret not in repr(storage)
        assert secret not in repr(vars(storage))


def test_an_empty_setting_keeps_recordings_in_files(tmp_path: Path) -> None:
    assert isinstance(open_storage(Settings(data_dir=tmp_path)), LocalStorage)
