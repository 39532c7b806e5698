"""One recording becomes one job, however often it is sent: by its content, through the ledger and Idempotency-Keys.

A job that has failed, was cancelled or purged is asked for anew, under a key that follows from the old one.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any

from transcribe_client.api import Api, Job
from transcribe_client.failures import Failure, Refused, Stopped
from transcribe_client.inputs import Recording
from transcribe_client.ledger import Ledger

PIECE_BYTES = 1024 * 1024
USABLE = ("pending", "processing", "completed")


@dataclass(slots=True)
class Transfer:
    """How far one recording is, for those who look on from another thread."""

    total: int = 0  # bytes; 0 for an address
    sent: int = 0
    is_sending: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    job: Job
    is_new: bool


@dataclass(frozen=True, slots=True)
class Sender:
    """Shared by the threads that send."""

    api: Api
    ledger: Ledger
    fields: dict[str, str]
    stop: Event
    salt: str = ""  # makes keys that were never used before
    tries_failed_again: bool = True
    _locks: defaultdict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))

    def send(self, recording: Recording, transfer: Transfer) -> Sent:
        """Raises Failure, Stopped."""
        base = self._digest(recording, transfer)
        with self._locks[base]:  # two files may have the same content
            return self._send(base, recording, transfer)

    def _send(self, base: str, recording: Recording, transfer: Transfer) -> Sent:
        key, known = base, self.ledger.job_of(base)
        while True:
            if known is not None:
                job = self._look(known)
                if job is not None and self._is_usable(job):
                    return Sent(job, is_new=False)
                key = _digest_of(base, known)
            job_id, is_new = self._post(recording, key, transfer)
            self.ledger.note(base, job_id, recording.name)
            if is_new:
                return Sent(self.api.get(f"/transcribe/{job_id}"), is_new=True)
            known = job_id  # this machine has forgotten it, the service has not

    def _is_usable(self, job: Job) -> bool:
        return job["status"] in USABLE or not self.tries_failed_again

    def _look(self, job_id: str) -> Job | None:
        try:
            found: Job = self.api.get(f"/transcribe/{job_id}")
            return found
        except Refused as failure:
            if failure.status == 404:
                return None
            raise

    def _post(self, recording: Recording, key: str, transfer: Transfer) -> tuple[str, bool]:
        with ExitStack() as opened:
            body = self._body(recording, transfer, opened)
            answer = self.api.upload("/transcribe/", body, headers={"Idempotency-Key": key})
        transfer.is_sending = False
        return str(answer.json()["job_id"]), "idempotent-replayed" not in answer.headers

    def _body(self, recording: Recording, transfer: Transfer, opened: ExitStack) -> Callable[[], dict[str, Any]]:
        def make() -> dict[str, Any]:
            if recording.url is not None:
                return {"data": {"url": recording.url, **self.fields}}
            assert recording.path is not None
            file = opened.enter_context(_opened(recording.path, transfer, self.stop))
            transfer.sent, transfer.is_sending = 0, True
            return {"data": self.fields, "files": {"file": (recording.name, file)}}

        return make

    def _digest(self, recording: Recording, transfer: Transfer) -> str:
        content = recording.url or _digest_of_file(recording.path, transfer, self.stop)
        options = [f"{name}={value}" for name, value in sorted(self.fields.items())]
        return _digest_of(self.api.server, recording.name, content, *options, self.salt)


def _digest_of(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()


def _digest_of_file(path: Path | None, transfer: Transfer, stop: Event) -> str:
    assert path is not None
    digest = hashlib.sha256()
    with _opened(path, Transfer(), stop) as file:
        transfer.total = path.stat().st_size
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


class _CountedFile(io.FileIO):
    """httpx reads it piece by piece; each one counts."""

    def __init__(self, path: Path, transfer: Transfer, stop: Event) -> None:
        super().__init__(path)
        self._transfer, self._stop = transfer, stop

    def read(self, size: int | None = -1, /) -> bytes:
        if self._stop.is_set():
            raise Stopped
        piece = super().read(-1 if size is None else size) or b""
        self._transfer.sent += len(piece)
        return piece


def _opened(path: Path, transfer: Transfer, stop: Event) -> _CountedFile:
    try:
        return _CountedFile(path, transfer, stop)
    except OSError as error:
        raise Failure(f"It cannot be read: {error.strerror}.") from None
