"""Seeded random faults for a running stack: kill, stop, freeze, flush, cut. Only pids of stack.json or their children.

After each, a recording is submitted, and the time until its transcript is there is the recovery.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from random import Random
from threading import Event
from urllib.parse import urlsplit

import psutil
import redis

from bench.callers import Api, Books, Recording, submit
from stack.running import Stack
from stack.state import SUPERVISOR

LONGEST_RECOVERY_S = 180.0
FINAL = ("completed", "failed", "cancelled")


class Havoc:
    def __init__(self, stack: Stack, random: Random) -> None:
        self._stack, self._random = stack, random
        self.faults: Counter[str] = Counter()
        self.recoveries: dict[str, float] = {}  # seconds, the worst of each kind
        self._kinds: list[Callable[[], str]] = [
            self._kill,
            self._kill,
            self._kill_a_child,
            self._terminate,
            self._freeze,
            self._flush,
            self._cut,
        ]

    def strike(self) -> str:
        """One fault, sometimes two at once; what it was."""
        count = 2 if self._random.random() < 0.2 else 1
        names = [self._random.choice(self._kinds)() for _ in range(count)]
        self.faults.update(name.partition(" ")[0] for name in names)
        return " and ".join(names)

    def recover(self, fault: str, api: Api, books: Books, canary: Recording) -> None:
        """Raises AssertionError where the service stays down."""
        started = time.monotonic()
        job_id = submit(api, books, canary, Event(), beam_size="1", priority="high")
        while not is_final(api, str(job_id)):
            if time.monotonic() - started > LONGEST_RECOVERY_S:
                raise AssertionError(f"after {fault}: {job_id} is not done in {LONGEST_RECOVERY_S:g} s")
            Event().wait(0.1)
        took_s = time.monotonic() - started
        self.recoveries[fault] = max(took_s, self.recoveries.get(fault, 0))

    def _pid(self, but: tuple[str, ...] = ()) -> tuple[str, int]:
        entries = [entry for entry in self._stack.entries() if entry.name not in (SUPERVISOR, *but)]
        entry = self._random.choice(sorted(entries, key=lambda entry: entry.name))
        return entry.name, entry.pid

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def _kill(self) -> str:
        name, pid = self._pid()
        self._signal(pid, signal.SIGKILL)
        return f"kill {name}"

    def _kill_a_child(self) -> str:
        """Not of the isolated worker: two such deaths are a dead letter, by design."""
        with suppress(LookupError, psutil.NoSuchProcess):
            children = psutil.Process(self._stack.pid_of("worker")).children()
            self._signal(self._random.choice(children).pid, signal.SIGKILL)
        return "kill-child of worker"

    def _terminate(self) -> str:
        """PostgreSQL would wait for its clients to leave, as it is meant to."""
        name, pid = self._pid(but=("postgres",))
        self._signal(pid, signal.SIGTERM)
        return f"terminate {name}"

    def _freeze(self) -> str:
        name, pid = self._pid()
        self._signal(pid, signal.SIGSTOP)
        Event().wait(self._random.uniform(1, 7))
        self._signal(pid, signal.SIGCONT)
        return f"freeze {name}"

    def _flush(self) -> str:
        with suppress(redis.RedisError, LookupError):
            self._redis().flushall()
        return "flush redis"

    def _cut(self) -> str:
        with suppress(redis.RedisError, LookupError):
            self._redis().client_kill_filter(_type="normal", skipme=True)
        return "cut redis"

    def _redis(self) -> "redis.Redis":
        address = next((entry.address for entry in self._stack.entries() if entry.name == "redis"), None)
        if address is None:
            raise LookupError("redis is being restarted")
        password = (self._stack.data_dir / "secrets" / "redis").read_text().strip()
        return redis.Redis(port=urlsplit(address).port or 0, password=password, socket_timeout=5)


def is_final(api: Api, job_id: str) -> bool:
    try:
        status, job = api.ask("GET", f"/transcribe/{job_id}")
    except (OSError, HTTPException):
        return False
    return status == 200 and job["status"] in FINAL
