"""A service on three hosts that share no disk: one with the API, the relay and the servers, two with workers alone.

All are processes of this machine. A worker host reaches PostgreSQL, Redis and S3 by proxies of its own, which can
swallow everything, as a cut network does; where we may, it has a host name of its own too.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from config import inherited_environment
from engines.fake import encode_script
from stack.home import Home, free_port
from stack.plan import answers
from stack.postgres import Postgres
from stack.process import Process, ServiceSpec, tail
from stack.redis import Redis
from tests.conftest import ROOT, migrate
from tests.faults.harness import SETTINGS
from tests.faults.proxy import Proxy
from tests.processes import until
from tests.s3_server import CREDENTIALS, ONLY_THESE, s3_server

CHILDREN = 2  # of each worker; they draw from all queues
LEASE_S = 5
NAMED = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
Row = dict[str, Any]


def can_name_hosts() -> bool:
    """Whether a process may have a host name of its own: on Linux, as root."""
    if sys.platform != "linux":
        return False
    return subprocess.run(("unshare", "--uts", "true"), capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    folder: Path
    worker: Process
    links: tuple[Proxy, ...]

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nothing comes or goes; connections are not closed. Then what was on its way arrives, late."""
        for link in self.links:
            link.swallow()
        try:
            yield
        finally:
            for link in self.links:
                link.open()

    def has(self, claimed_by: str) -> bool:
        """Whether it is one of its children who claimed a job."""
        return f":{self.worker.pid}." in claimed_by

    def has_said(self, event: str, job: str) -> bool:
        return any(event in line and job in line for line in self.worker.log.read_text(errors="replace").splitlines())

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


class Hosts:
    def __init__(self, folder: Path) -> None:
        home = Home(folder)
        self.folder = folder
        self.are_named = can_name_hosts()
        self.postgres, self.redis = Postgres(home, durable=False), Redis(home)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self._engine = create_engine(self.postgres.url.replace("postgresql:", "postgresql+psycopg2:"))
        self._after = ExitStack()

    def __enter__(self) -> Self:
        for part in (self.http, self.redis, self.postgres):
            self._after.enter_context(part)
        self._after.callback(self._engine.dispose)
        self.bucket = self._after.enter_context(s3_server())()
        migrate(self.postgres.url)
        served = self._start("api", "app.py", PORT=urlsplit(self.url).port)
        relay = self._start("relay", "relay.py")
        self.a, self.b = self._host("host-a"), self._host("host-b")
        until(lambda: answers(f"{self.url}/health/ready"), 60)
        until(lambda: served.is_running() and relay.is_running() and all(map(self.is_seen, (self.a, self.b))), 60)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._after.close()

    def _host(self, name: str) -> Host:
        s3 = urlsplit(self.bucket.endpoint_url).port or 0
        links = tuple(self._after.enter_context(Proxy(port)) for port in (self.postgres.port, self.redis.port, s3))
        folder = self.folder / name
        (folder / "tmp").mkdir(parents=True)
        told = {
            "DATABASE_URL": self.postgres.url.replace(f":{self.postgres.port}/", f":{links[0].port}/"),
            "REDIS_URL": self.redis.url.replace(f":{self.redis.port}/", f":{links[1].port}/"),
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{links[2].port}",
            "DATA_DIR": folder,
            "TMPDIR": folder / "tmp",
            "CELERY_CONCURRENCY": CHILDREN,
        }
        before = ("unshare", "--uts", sys.executable, "-c", NAMED, name) if self.are_named else ()
        return Host(name, folder, self._start(name, "worker.py", before, **told), links)

    def _start(self, name: str, program: str, before: tuple[str, ...] = (), **told: object) -> Process:
        settings = SETTINGS | {
            "LEASE_SECONDS": LEASE_S,
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "STORAGE_URL": f"s3://{self.bucket.name}",
            "S3_ENDPOINT_URL": self.bucket.endpoint_url,
            "DATA_DIR": self.folder / name,
            **told,
        }
        spec = ServiceSpec(
            name=name,
            argv=(*before, sys.executable, str(ROOT / program)),
            env=inherited_environment()
            | CREDENTIALS
            | ONLY_THESE
            | {key: str(value) for key, value in settings.items()},
        )
        process = Process(spec, self.folder / "logs" / f"{name}.log").start()
        self._after.callback(process.kill)
        return process

    def is_seen(self, host: Host) -> bool:
        """Each of its children has signed in lately."""
        seen = "SELECT id FROM processes WHERE seen_at > now() - interval '2 s' AND worker LIKE :main"
        return len(self.rows(seen, main=f"%:{host.worker.pid}.%")) == CHILDREN

    def submit(self, *, seconds: int = 1, **script: Any) -> str:
        """The id of a job that does what the script says: see engines/faults.py."""
        name, recording = f"{uuid4().hex}.wav", encode_script({"text": "hello"} | script, seconds)
        form = {"vad_filter": "false", "language": "en"}
        answer = self.http.post("/transcribe/", files={"file": (name, recording)}, data=form)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> Row:
        (row,) = self.rows("SELECT * FROM transcription_jobs WHERE id = CAST(:id AS uuid)", id=job_id)
        return row

    def completed(self, *jobs: str, within_s: float = 60) -> list[Row]:
        until(lambda: all(self.job(job)["completed_at"] for job in jobs), within_s)
        found = [self.job(job) for job in jobs]
        assert {job["status"] for job in found} == {"completed"}, found
        return found

    def takers(self, *jobs: str) -> list[Host]:
        """Who claimed them, attempt by attempt."""
        claims = """SELECT detail->>'claimed_by' AS claimed_by FROM job_events
                    WHERE to_status = 'processing' AND job_id = ANY(CAST(:jobs AS uuid[])) ORDER BY id"""
        claimed = [row["claimed_by"] for row in self.rows(claims, jobs=list(jobs))]
        return [next(host for host in (self.a, self.b) if host.has(name)) for name in claimed]

    def rows(self, statement: str, **values: object) -> list[Row]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(statement), values).mappings()]

    def session(self) -> Session:
        return Session(self._engine)

    def tails(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{tail(log)}" for log in logs)
