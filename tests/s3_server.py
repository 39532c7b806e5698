"""A real S3 server for tests, in this process, and a second pair of eyes on what lies in its buckets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from boto3.session import Session
from moto.server import ThreadedMotoServer

from storage.keys import MARKER

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "the-secret-of-this-test"}
ONLY_THESE = {  # nothing of the person's own, nothing of the machine they work on
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}
OTHERS = "AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3".split()


@dataclass(frozen=True)
class Bucket:
    name: str
    endpoint_url: str
    client: Any

    def objects(self) -> list[str]:
        """All but the marker."""
        return [key for key in self._keys() if not key.endswith(MARKER)]

    def uploads(self) -> list[str]:
        """Those that are neither complete nor aborted."""
        return [item["Key"] for item in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]

    def _keys(self) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())]

    def delete(self) -> None:
        for key in self._keys():
            self.client.delete_object(Bucket=self.name, Key=key)
        self.client.delete_bucket(Bucket=self.name)


@contextmanager
def s3_server() -> Iterator[Callable[[], Bucket]]:
    """Yields what makes a new bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    session = Session(*CREDENTIALS.values(), region_name="us-east-1")
    client = session.client("s3", endpoint_url=url)

    def new_bucket() -> Bucket:
        bucket = Bucket(f"bucket-{uuid4().hex[:12]}", url, client)
        client.create_bucket(Bucket=bucket.name)
        return bucket

    try:
        yield new_bucket
    finally:
        client.close()
        server.stop()


def use_credentials(monkeypatch: pytest.MonkeyPatch, credentials: dict[str, str]) -> None:
    """These and no others, for this process and its children."""
    for name in (*CREDENTIALS, *OTHERS):
        monkeypatch.delenv(name, raising=False)
    for name, value in (ONLY_THESE | credentials).items():
        monkeypatch.setenv(name, value)
