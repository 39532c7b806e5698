"""Seeded random faults against a running service, and callers who go on submitting all the while."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from threading import Event, Thread
from typing import Any

import httpx
import psutil
import redis

from stack.process import StackError
from tests.faults.harness import LEASE_S, Sent, Service, scaled, storage_away
from tests.processes import is_gone, until

SCRIPTS: list[dict[str, Any]] = [
    {},
    {"sleep": 0.5},
    {"seconds": 70, "every": True, "sleep": 0.2},
    {"raise": "engine_error", "times": 1},
    {"raise": "memory_error", "times": 1},
    {"segfault": True},  # for ever: the poison
]


class Callers:
    """Each submits, and cancels now and then, until told to stop; tries on where the service is away."""

    def __init__(self, service: Service, seed: int, count: int = 2) -> None:
        self._service = service
        self._stop = Event()
        self.poison: set[Any] = set()
        self.hungry: set[Any] = set()  # a fault that takes their child is their second loss: failed, by design
        self.cancelled: set[Any] = set()
        self._threads = [Thread(target=self._run, args=(Random(seed + n),), daemon=True) for n in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, random: Random) -> None:
        while not self._stop.wait(random.uniform(0, 1.2)):
            script = random.choices(SCRIPTS, weights=(8, 4, 2, 2, 1, 1))[0]
            sent = self._service.try_submit(**script)
            if sent is None:
                continue
            if "segfault" in script:
                self.poison.add(sent.id)
            elif script.get("raise") == "memory_error":
                self.hungry.add(sent.id)
            elif random.random() < 0.1:
                self._cancel(sent)

    def _cancel(self, sent: Sent) -> None:
        with suppress(httpx.TransportError):
            if self._service.cancel(sent) == httpx.codes.OK:
                self.cancelled.add(sent.id)


class Storm:
    def __init__(self, service: Service, seed: int) -> None:
        self._service = service
        self._random = Random(seed)
        self.faults: Counter[str] = Counter()
        self.log: list[str] = []

    def rage(self, seconds: float) -> None:
        """One fault at a time, each healed before the next; a supervisor restarts what has died."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            Event().wait(self._random.uniform(0.2, 1.5))
            fault = self._random.choice(FAULTS)
            self.faults[fault.__name__] += 1
            self.log.append(fault.__name__)
            fault(self._service, self._random)

    def revive(self) -> None:
        for name in list(self._service.processes):
            self._service.processes[name].wait_ready()


Fault = Callable[[Service, Random], None]


def kill(service: Service, random: Random) -> None:
    name = random.choice(["api", "relay", "relay-2", "worker", "worker-retry"])
    with suppress(ProcessLookupError):
        os.kill(service.processes[name].pid, signal.SIGKILL)
    until(lambda: is_gone(service.processes[name].pid))
    service.launch(name)


def kill_a_child(service: Service, random: Random) -> None:
    """Not of the isolated worker: two such deaths are a dead letter, by design."""
    for child in _children(service, random):
        os.kill(child, signal.SIGKILL)


def freeze_a_child(service: Service, random: Random) -> None:
    for child in _children(service, random):
        with service.frozen(child):
            Event().wait(LEASE_S + 1)


def _children(service: Service, random: Random) -> list[int]:
    """One child of the worker, if it has any now."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(service.processes["worker"].pid).children()
        return [random.choice(children).pid] if children else []
    return []


def stop_a_worker(service: Service, random: Random) -> None:
    service.processes["worker"].ask_to_stop()
    with suppress(AssertionError):
        until(lambda: not service.processes["worker"].is_running(), 10)
    service.launch("worker")


def flush_redis(service: Service, random: Random) -> None:
    service.bells().flushall()


def cut_redis(service: Service, random: Random) -> None:
    with suppress(redis.RedisError):
        service.cut_redis()


def restart_redis(service: Service, random: Random) -> None:
    service.redis.kill()
    Event().wait(random.uniform(0, 2))
    service.redis.start()


def freeze_redis(service: Service, random: Random) -> None:
    with service.frozen(service.redis.pid):
        Event().wait(random.uniform(0.5, 3))


def restart_postgres(service: Service, random: Random) -> None:
    os.kill(service.postgres.pid, signal.SIGQUIT)
    until(lambda: is_gone(service.postgres.pid))
    service.postgres.kill()
    Event().wait(random.uniform(0, 1))
    service.restart_postgres()


def cut_postgres(service: Service, random: Random) -> None:
    service.proxies[random.choice(sorted(service.processes))].cut()


def cut_postgres_anywhere(service: Service, random: Random) -> None:
    with service.proxies[random.choice(sorted(service.processes))].cutting_after(random.randrange(50, 5000)):
        Event().wait(1)


def swallow_postgres(service: Service, random: Random) -> None:
    proxy = service.proxies[random.choice(sorted(service.processes))]
    proxy.swallow()
    Event().wait(random.uniform(0.5, LEASE_S + 1))
    proxy.open()


def take_the_storage_away(service: Service, random: Random) -> None:
    """A mount point whose volume is not mounted; for a minute, by FAULTS=long."""
    with storage_away(service):
        Event().wait(random.uniform(1, scaled(4, 60)))


def start_a_worker_without_its_volume(service: Service, random: Random) -> None:
    _with_a_sick_worker(service, random, DATA_DIR=service.folder / "not-mounted")


def start_a_worker_without_its_models(service: Service, random: Random) -> None:
    _with_a_sick_worker(service, random, MODEL_DOWNLOAD="false", MODEL_CACHE_DIR=service.folder / "no-models")


def _with_a_sick_worker(service: Service, random: Random, **changed: Any) -> None:
    with suppress(StackError):  # it need not come up where something else is away
        service.launch("worker-2", **changed).wait_ready()
    Event().wait(random.uniform(1, 4))
    service.retire("worker-2")


FAULTS: list[Fault] = [
    take_the_storage_away,
    start_a_worker_without_its_volume,
    start_a_worker_without_its_models,
    kill,
    kill,
    kill_a_child,
    freeze_a_child,
    stop_a_worker,
    flush_redis,
    cut_redis,
    restart_redis,
    freeze_redis,
    restart_postgres,
    cut_postgres,
    cut_postgres_anywhere,
    swallow_postgres,
]
