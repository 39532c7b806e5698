"""Which recording became which job, on this machine: so that the same command again sends nothing twice.

A file of JSON lines, only ever appended to; several commands may do so at once. Lost, the service's own memory of
Idempotency-Keys takes its place for a day.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from transcribe_client.outputs import write

KEPT, TRIMMED_AT = 10_000, 20_000  # lines


class Ledger:
    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, Lock()
        self._jobs: dict[str, str] = {}

    def load(self) -> None:
        lines = list(self._lines())
        self._jobs = {line["key"]: line["job"] for line in lines}
        if len(lines) > TRIMMED_AT:
            kept = "".join(f"{json.dumps(line)}\n" for line in lines[-KEPT:])
            write(self._file, kept.encode())

    def job_of(self, key: str) -> str | None:
        with self._lock:
            return self._jobs.get(key)

    def note(self, key: str, job_id: str, name: str) -> None:
        line = f"{json.dumps({'key': key, 'job': job_id, 'name': name})}\n".encode()
        with self._lock:
            self._jobs[key] = job_id
            self._file.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(number, line)  # one call: lines of others stand before or after it
            finally:
                os.close(number)

    def last(self, count: int) -> list[tuple[str, str]]:
        """(job, name), newest first."""
        newest = {line["job"]: str(line.get("name", "")) for line in reversed(list(self._lines()))}
        return list(newest.items())[:count]

    def _lines(self) -> Iterator[dict[str, Any]]:
        with suppress(FileNotFoundError), self._file.open(errors="replace") as file:
            for text in file:
                with suppress(ValueError):
                    line = json.loads(text)
                    if isinstance(line, dict) and {"key", "job"} <= line.keys():
                        yield line
