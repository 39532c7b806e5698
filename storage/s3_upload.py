"""One recording on its way to S3, part by part. Never holds more than one part, nor leaves what was not committed."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from errors import StorageError


class ObjectWriter:
    """The first full part begins a multipart upload, of which nothing is seen before it is complete."""

    def __init__(self, call: Callable[..., Any], part_bytes: int) -> None:
        self._call = call  # with the object's name
        self._part_bytes = part_bytes
        self._part = bytearray()
        self._upload_id = ""
        self._etags: list[str] = []
        self._is_open = True
        self._is_committed: bool | None = False  # None: a commit was asked for, its answer is not known

    def write(self, data: bytes) -> None:
        self._take()
        left = memoryview(data)
        while left:
            room = self._part_bytes - len(self._part)
            self._part += left[:room]
            left = left[room:]
            if len(self._part) == self._part_bytes:
                self._send_part()
        self._is_open = True

    def commit(self) -> None:
        self._take()
        if self._part and self._etags:
            self._send_part()
        self._is_committed = None
        if self._etags:
            parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, start=1)]
            self._call("complete_multipart_upload", UploadId=self._upload_id, MultipartUpload={"Parts": parts})
        else:
            self._call("put_object", Body=self._part)
        self._is_committed = True

    def close(self) -> None:
        self._is_open = False
        self._part = bytearray()
        if self._upload_id and not self._is_committed:
            with suppress(StorageError):  # what is left, `discard_unfinished` finds
                self._call("abort_multipart_upload", UploadId=self._upload_id)
        if self._is_committed is None:  # it may have succeeded: its key was never given out
            with suppress(StorageError):
                self._call("delete_object")

    def _take(self) -> None:
        """Closed until all has gone well, so that no part can be missing in the middle."""
        if not self._is_open:
            raise ValueError("This recording is closed. This is a bug.")
        self._is_open = False

    def _send_part(self) -> None:
        if not self._upload_id:
            self._upload_id = self._call("create_multipart_upload")["UploadId"]
        number = len(self._etags) + 1
        answer = self._call("upload_part", UploadId=self._upload_id, PartNumber=number, Body=self._part)
        self._etags.append(answer["ETag"])
        self._part = bytearray()
