"""Recordings as objects in an S3 bucket, of Amazon or of any server that speaks its language.

Alone in importing boto3. Never holds more than one part of a recording, never tells a caller bucket or server.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from threading import Lock
from typing import IO, Any
from urllib.parse import quote

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import NoCredentialsError

from errors import FileMissing, StorageAway
from storage import local
from storage.keys import AWAY, MARKER, checked_key, is_key
from storage.s3_errors import GONE, NotThere, PastTheEnd, UploadGone, translated_errors
from storage.s3_upload import ObjectWriter

PART_BYTES = 8 * 1024**2  # S3 wants 5 MiB at least and 10,000 parts at most: recordings of 80 GB
OPTIONS = {
    "connect_timeout": 3,  # seconds, as the next
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 3},
    "max_pool_connections": 50,  # of more at a time, some are not kept
    "signature_version": "s3v4",  # presigned URLs are version 2 otherwise, which new regions refuse
    "request_checksum_calculation": "when_required",  # Ceph and older MinIO refuse those that boto3 would add
    "response_checksum_validation": "when_required",
}
NAMES_OPEN_FILES = Path("/proc/self/fd").is_dir()  # Linux


class S3Storage:
    """Makes its client when first used: looking for credentials may ask the network, and no client survives a fork."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str = "",
        region: str = "",
        part_bytes: int = PART_BYTES,
    ) -> None:
        folder = prefix.strip("/")
        self._bucket = bucket
        self._prefix = f"{folder}/" if folder else ""
        self._connect = partial(_connect, endpoint_url, region)
        self._part_bytes = part_bytes
        self._made: Any = None
        self._lock = Lock()

    def is_marked(self) -> bool:
        try:
            self._call("head_object", Key=self._prefix + MARKER)
        except (FileMissing, NotThere):
            return False
        return True

    def mark(self) -> None:
        self._call("put_object", Key=self._prefix + MARKER, Body=b"")

    @contextmanager
    def create(self, key: str) -> Iterator[ObjectWriter]:
        writer = ObjectWriter(partial(self._call, Key=self._name(key)), self._part_bytes)
        try:
            yield writer
        finally:
            writer.close()

    @contextmanager
    def local_path(self, key: str) -> Iterator[Path]:
        chunks = self.read(key)
        with ExitStack() as until_the_end:
            with local.translated_errors():
                file, path = until_the_end.enter_context(_temporary_file())
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
            yield path

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        name = self._name(key)
        if start < 0:
            raise ValueError("A range begins at 0 or later. This is a bug.")
        if end is not None and end <= start:  # not a range in HTTP
            self.size(key)
            return iter(())
        wanted = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
        try:
            return _chunks(self._call("get_object", Key=name, **wanted)["Body"])
        except PastTheEnd:
            return iter(())
        except FileMissing:
            self._require_marker()
            raise

    def presigned_url(self, key: str, *, filename: str, media_type: str, expires_s: int) -> str:
        answer_as = {"ResponseContentDisposition": _attachment(filename), "ResponseContentType": media_type}
        wanted = {"Bucket": self._bucket, "Key": self._name(key), **answer_as}
        with translated_errors():
            url = self._client().generate_presigned_url("get_object", Params=wanted, ExpiresIn=expires_s)
        return str(url)

    def delete(self, key: str) -> None:
        with suppress(FileMissing):  # not Amazon, but others answer so
            self._call("delete_object", Key=self._name(key))

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileMissing:
            return False
        return True

    def size(self, key: str) -> int:
        try:
            return int(self._call("head_object", Key=self._name(key))["ContentLength"])
        except NotThere:
            self._require_marker()
            raise FileMissing(GONE) from None

    def free_bytes(self) -> int:
        """A bucket has no fixed room."""
        return sys.maxsize

    def committed_between(self, first: datetime, last: datetime) -> Iterator[str]:
        for item in self._listed("list_objects_v2", "Contents"):
            if first <= item["LastModified"] < last:
                yield item["Key"].removeprefix(self._prefix)

    def discard_unfinished(self, moment: datetime) -> int:
        abandoned = [item for item in self._listed("list_multipart_uploads", "Uploads") if item["Initiated"] < moment]
        for item in abandoned:
            with suppress(UploadGone):
                self._call("abort_multipart_upload", Key=item["Key"], UploadId=item["UploadId"])
        return len(abandoned)

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _call(self, operation: str, **parameters: Any) -> Any:
        with translated_errors():
            return getattr(self._client(), operation)(Bucket=self._bucket, **parameters)

    def _listed(self, operation: str, member: str) -> Iterator[dict[str, Any]]:
        """What is ours: others may use the bucket too."""
        with translated_errors():
            for page in self._client().get_paginator(operation).paginate(Bucket=self._bucket, Prefix=self._prefix):
                yield from (item for item in page.get(member, ()) if is_key(item["Key"].removeprefix(self._prefix)))

    def _require_marker(self) -> None:
        if not self.is_marked():
            raise StorageAway(AWAY)

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._connect()
            return self._made


def _connect(endpoint_url: str, region: str) -> Any:
    session = Session(region_name=region or None)
    if session.get_credentials() is None:  # a client would remember that there were none
        raise NoCredentialsError
    style = "path" if endpoint_url else "virtual"  # few servers, but all of Amazon's regions, name a host by its bucket
    config = Config(s3={"addressing_style": style}, **OPTIONS)
    return session.client("s3", endpoint_url=endpoint_url or None, config=config)


def _chunks(body: Any) -> Iterator[bytes]:
    with closing(body):
        while True:
            with translated_errors():
                chunk = body.read(local.CHUNK_BYTES)
            if not chunk:
                return
            yield chunk


@contextmanager
def _temporary_file() -> Iterator[tuple[IO[bytes], Path]]:
    """Without a name where the system can do without: then nothing remains even when this process is killed."""
    if NAMES_OPEN_FILES:
        with TemporaryFile() as file:
            yield file, Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
    else:
        with NamedTemporaryFile(prefix="recording-") as named:
            yield named, Path(named.name)


def _attachment(filename: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9 ._-]", "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
