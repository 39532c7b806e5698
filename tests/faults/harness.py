"""The whole service as real processes on free ports, with shrunk times; every pid that is signalled was started here.

Every link to PostgreSQL goes by a proxy, one a process. The fake engine does what the recording says.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

import httpx
import psutil
import redis
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from config import inherited_environment
from engines.fake import encode_script
from stack.home import Home, free_port
from stack.plan import MAIN_QUEUES, RETRY_QUEUES, WEBHOOK_QUEUES, answers
from stack.postgres import Postgres
from stack.process import Process, ServiceSpec, tail
from stack.redis import Redis
from storage.keys import MARKER
from tests.conftest import ROOT, migrate
from tests.faults.proxy import Proxy
from tests.processes import is_gone, until

T = TypeVar("T")
LONG = os.environ.get("FAULTS") == "long"
LEASE_S = 3.0
LOOK_AGAIN_S = 0.1  # a look through the database takes processor time, of which tests have little
DEADLINE_S = 12 if LONG else 8  # of an attempt
SETTINGS: dict[str, object] = {
    "ENGINE": "fake",
    "WHISPER_MODEL_SIZE": "tiny",
    "MODEL_ALLOWED_PATHS": ROOT / "slow",  # "slow/5" is a model that takes 5 s to load
    "CELERY_CONCURRENCY": 2,
    "LEASE_SECONDS": LEASE_S,
    "RELAY_TICK_SECONDS": 0.5,
    "REPUBLISH_SECONDS": 2,
    "PROMOTE_AFTER_SECONDS": 3,
    "RETRY_BASE_SECONDS": 0.2,
    "RETRY_MAX_SECONDS": 1,
    "DEADLINE_BASE_SECONDS": DEADLINE_S,
    "DEADLINE_FACTOR": 0.1,
    "MIN_FREE_DISK_MB": 0,
}
WORKERS: dict[str, dict[str, object]] = {
    "worker": {"WORKER_QUEUES": MAIN_QUEUES},
    # Celery may take 5 s to replace a dead child; until its only one is seen, the whole worker looks dead
    "worker-retry": {"WORKER_QUEUES": RETRY_QUEUES, "CELERY_CONCURRENCY": 1, "LEASE_SECONDS": 6.5},
    # For the tests that ask for them
    "worker-2": {"WORKER_QUEUES": MAIN_QUEUES},
    "worker-webhooks": {"WORKER_QUEUES": WEBHOOK_QUEUES, "CELERY_CONCURRENCY": 1},  # signs in once: it has threads
}
ALWAYS = ("api", "relay", "relay-2", "worker", "worker-retry")
FINAL = ("completed", "failed", "cancelled")


def scaled(short: T, long: T) -> T:
    """How often, or for how many seconds: by FAULTS=long."""
    return long if LONG else short


def note_time(fault: int, what: str, seconds: float) -> None:
    """A line in the file named by FAULT_TIMES, for the table in docs/operations.md."""
    if path := os.environ.get("FAULT_TIMES"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"fault": fault, "what": what, "seconds": round(seconds, 2)}) + "\n")


@dataclass(frozen=True, slots=True)
class Sent:
    """A submitted recording."""

    id: UUID
    marker: Path  # holds a byte for each time that an engine began with it, if its script counts


class Service:
    def __init__(self, folder: Path) -> None:
        home = Home(folder)
        self.folder = folder
        self.postgres, self.redis = Postgres(home), Redis(home)
        self.audio = folder / "data" / "audio"
        self.api_port = free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.processes: dict[str, Process] = {}
        self.proxies: dict[str, Proxy] = {}
        self.accepted: set[UUID] = set()
        self.in_doubt: set[str] = set()  # file names of which nobody knows whether they were accepted
        self.refusals: list[httpx.Response] = []
        self._engine = create_engine(self.postgres.url.replace("postgresql:", "postgresql+psycopg2:"))
        self._after = ExitStack()
        self.http = self._after.enter_context(httpx.Client(base_url=self.url, timeout=30))

    def __enter__(self) -> Self:
        self._after.enter_context(self.redis)
        self._after.enter_context(self.postgres)
        self._after.callback(self._engine.dispose)
        self._after.callback(lambda: [process.kill() for process in self.processes.values()])
        migrate(self.postgres.url)
        for name in (*ALWAYS, *(WORKERS.keys() - ALWAYS)):
            self.proxies[name] = self._after.enter_context(Proxy(self.postgres.port))
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._after.close()

    def begin(self) -> None:
        """As after `make run`, with empty tables and queues, whatever the last test has left."""
        for proxy in self.proxies.values():
            proxy.open()
        if _is_down(self.redis.pid):
            self.redis.kill()
            self.redis.start()
        if _is_down(self.postgres.pid):
            self.postgres.kill()
            self.restart_postgres()
        missing = [name for name in ALWAYS if name not in self.processes or not self.processes[name].is_running()]
        for name in missing:
            self.launch(name)
        for name in missing:
            self.processes[name].wait_ready()
        for name in set(self.processes) - set(ALWAYS):
            self.retire(name)
        self.accepted, self.in_doubt = set(), set()
        self.execute("TRUNCATE transcription_jobs, batches, error_logs, api_keys CASCADE")
        self.bells().flushall()
        for path in self.audio.rglob("*"):
            if path.is_file() and path.name != MARKER:
                path.unlink()

    # Processes

    def launch(self, name: str, *, before: tuple[str, ...] = (), **changed: object) -> Process:
        """Start, do not wait. What there was of that name is gone, with its orphans, as a supervisor does it.

        `before`: a command that runs it.
        """
        if name in self.processes:
            self.processes[name].kill()
        self.processes[name] = Process(self._spec(name, before, changed), self.folder / "logs" / f"{name}.log").start()
        return self.processes[name]

    def restart(self, name: str, *, before: tuple[str, ...] = (), **changed: object) -> Process:
        return self.launch(name, before=before, **changed).wait_ready()

    def _spec(self, name: str, before: tuple[str, ...], changed: dict[str, object]) -> ServiceSpec:
        program, _, _ = name.partition("-")
        told = SETTINGS | WORKERS.get(name, {}) | self._addresses(name) | changed
        return ServiceSpec(
            name=name,
            argv=(*before, sys.executable, str(ROOT / ("app.py" if program == "api" else f"{program}.py"))),
            env=inherited_environment() | {key: str(value) for key, value in told.items()},
            ready=lambda: self._is_ready(name),
        )

    def _addresses(self, name: str) -> dict[str, object]:
        mine = self.postgres.url.replace(f":{self.postgres.port}/", f":{self.proxies[name].port}/")
        return {
            "DATABASE_URL": mine,
            "REDIS_URL": self.redis.url,
            "DATA_DIR": self.folder / "data",
            "PORT": self.api_port,
            "PYTHONUNBUFFERED": 1,
        }

    def _is_ready(self, name: str) -> bool:
        """A worker is, when each of its children has signed in."""
        if name == "api":
            return answers(f"{self.url}/health/ready")
        return len(self.children(name)) >= (1 if name.startswith("relay") else self._slots(name))

    def _slots(self, name: str) -> int:
        return int(self.processes[name].spec.env["CELERY_CONCURRENCY"])

    def signal(self, name: str, number: signal.Signals) -> float:
        """To its main process alone. Returns when."""
        assert self.processes[name].is_running(), f"{name} does not run"
        os.kill(self.processes[name].pid, number)
        return time.monotonic()

    @contextmanager
    def frozen(self, pid: int) -> Iterator[None]:
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGCONT)

    def retire(self, name: str) -> None:
        """Stop it; nobody starts it again."""
        self.processes.pop(name).stop()

    @contextmanager
    def changed(self, name: str, **settings: Any) -> Iterator[Process]:
        """With other settings for a while."""
        yield self.restart(name, **settings)
        self.restart(name)

    def children(self, name: str) -> list[int]:
        """Pids of a worker's children that have signed in and live."""
        rows = self.rows("SELECT id FROM processes WHERE worker LIKE :main", main=f"%:{self.processes[name].pid}.%")
        return [pid for row in rows if not is_gone(pid := int(row["id"].rpartition(":")[2]))]

    def child_of(self, job: Sent) -> int:
        """The pid of the worker child that has it; checked to be a child of a worker of ours."""
        pid = int(str(self.job(job)["claimed_by"]).rpartition(":")[2])
        mains = [process.pid for name, process in self.processes.items() if name.startswith("worker")]
        assert psutil.Process(pid).ppid() in mains
        return pid

    # Jobs

    def submit(self, *, seconds: int = 1, http: httpx.Client | None = None, **script: Any) -> Sent:
        """Accepted, or AssertionError. The script's verbs: engines/faults.py; `options` are form fields."""
        sent = self.try_submit(seconds=seconds, http=http, **script)
        assert sent is not None, "not accepted"
        return sent

    def try_submit(self, *, seconds: int = 1, http: httpx.Client | None = None, **script: Any) -> Sent | None:
        """None: refused or no answer. It may have been accepted all the same, but never in half."""
        name, options = uuid4().hex, script.pop("options", {})
        marker = self.folder / f"{name}.marker"
        verbs = {verb.removesuffix("_"): value for verb, value in script.items()}  # raise_
        recording = encode_script({"text": "hello", "marker": str(marker)} | verbs, seconds)
        form = {"vad_filter": "false", "language": "en"} | options
        self.in_doubt.add(f"{name}.wav")
        try:
            answer = (http or self.http).post("/transcribe/", files={"file": (f"{name}.wav", recording)}, data=form)
        except httpx.TransportError:
            return None
        assert answer.status_code in (202, 503, 507), answer.text
        if answer.status_code != httpx.codes.ACCEPTED:
            self.refusals.append(answer)
            return None
        self.in_doubt.remove(f"{name}.wav")
        job_id = UUID(answer.json()["job_id"])
        self.accepted.add(job_id)
        return Sent(job_id, marker)

    def submit_once(self, *, options: dict[str, str] | None = None, **script: Any) -> Sent:
        """The script acts in the first attempt only."""
        return self.submit(times=1, options=options or {}, **script)

    def begun(self, job: Sent, within_s: float = 30) -> None:
        """The engine is in the middle of it."""
        until(lambda: job.marker.exists() and self.job(job)["status"] == "processing", within_s)

    def cancel(self, job: Sent) -> int:
        """The HTTP status: 200, or 409 where it was final."""
        return self.http.delete(f"/transcribe/{job.id}").status_code

    def job(self, job: Sent) -> dict[str, Any]:
        (row,) = self.rows("SELECT * FROM transcription_jobs WHERE id = :id", id=job.id)
        return row

    def ended(self, job: Sent, within_s: float = 60) -> dict[str, Any]:
        """The job as soon as it is final."""
        until(lambda: self.job(job)["status"] in FINAL or Event().wait(LOOK_AGAIN_S), within_s)
        return self.job(job)

    def completed(self, *jobs: Sent, within_s: float = 60) -> dict[str, Any]:
        """The last of them."""
        for job in jobs:
            row = self.ended(job, within_s)
            assert row["status"] == "completed", row
        return row

    def counters(self, job: Sent) -> tuple[int, int, int, int]:
        """Attempts, failures, losses, infra losses."""
        row = self.job(job)
        return row["attempt"], row["failures"], row["losses"], row["infra_losses"]

    # Behind the scenes

    def session(self) -> Session:
        return Session(self._engine)

    def rows(self, statement: str, **values: object) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(statement), values).mappings()]

    def execute(self, statement: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(statement))

    def restart_postgres(self) -> None:
        """After it was killed."""
        self.postgres.start()
        self._engine.dispose()

    def bells(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis.url, socket_timeout=10)

    def cut_redis(self) -> None:
        """Every connection to it but our own."""
        self.bells().client_kill_filter(_type="normal", skipme=True)

    def has_said(self, name: str, event: str, about: Sent | None = None) -> bool:
        """Whether one line of its log holds the event, and the job's id where one is given."""
        lines = self.processes[name].log.read_text(errors="replace").splitlines()
        return any(event in line and (about is None or str(about.id) in line) for line in lines)

    def tails(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{tail(log)}" for log in logs)


@contextmanager
def storage_away(service: Service) -> Iterator[None]:
    """Its mount point is there, and empty."""
    away = service.audio.with_name("away")
    service.audio.rename(away)
    service.audio.mkdir()
    try:
        yield
    finally:
        assert not any(service.audio.iterdir()), "something was written below the mount point"
        service.audio.rmdir()
        away.rename(service.audio)


def _is_down(pid: int) -> bool:
    return is_gone(pid) or psutil.Process(pid).status() == psutil.STATUS_STOPPED
