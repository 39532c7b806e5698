"""Two databases in one real PostgreSQL, one with millions of waiting jobs; an API and a process of ours beside each.

Measures nothing itself.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psycopg2

from config import inherited_environment, set_environment
from stack.home import Home, free_port
from stack.plan import answers
from stack.postgres import Postgres
from stack.process import ROOT, Process, ServiceSpec
from stack.redis import Redis

FILLERS = 2  # connections that fill
CHUNK = 50_000  # rows a transaction
FIRST_DAYS_AGO = 30  # the oldest job
# What a database of this size would be given; the rest is as `make run` has it.
TUNED = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}
PROCESSES = """
INSERT INTO processes (id, kind, worker, queues, seen_at)
SELECT 'gpu:' || n || '.0:' || n, 'worker', 'gpu:' || n || '.0', '["transcription.high", "transcription.normal"]',
       now() + interval '1 day'
FROM generate_series(1, {count}) n
"""
# A job as jobs/submit.py inserts it, with its event; callers in turn, one job in ten urgent, lengths of 10 s to 10 min.
FILL = """
WITH job AS (
    INSERT INTO transcription_jobs (id, owner, request_id, created_at, filename, storage_key, size_bytes, sha256,
                                    model_size, priority, options, run_at)
    SELECT gen_random_uuid(), 'caller-' || lpad((n % {callers})::text, 5, '0'), gen_random_uuid()::text, at,
           'call-' || n || '.wav', left(key, 2) || '/' || key, 160000 + (n::bigint * 7919 % 9440000),
           md5(n::text) || md5((-n)::text), 'base', CASE WHEN n / {callers} % 10 = 0 THEN 'high' ELSE 'normal' END,
           '{{"beam_size": 5, "hotwords": null, "vad_filter": true, "temperature": null, "initial_prompt": null,
              "word_timestamps": false}}', at
    FROM (SELECT n, gen_random_uuid()::text AS key, now() - interval '{days} days' * (1 - n / {total}::float8) AS at
          FROM generate_series({first}, {last}) n) jobs
    RETURNING id, created_at
)
INSERT INTO job_events (job_id, attempt, to_status, at) SELECT id, 0, 'pending', created_at FROM job
"""
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    told: dict[str, str]  # the environment of its processes
    url: str  # of its API
    process: ProcessPoolExecutor  # one, whose `database.transaction()` means this database

    @property
    def database_url(self) -> str:
        return self.told["DATABASE_URL"]

    def run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return self.process.submit(work, *arguments, **named).result()

    def execute(self, statement: str, *, patience_s: float = 0) -> list[Any]:
        """`patience_s`: 0, as long as it takes."""
        with closing(psycopg2.connect(self.database_url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"SET statement_timeout = {int(1000 * patience_s)}")
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []


def connected(count: int, told: dict[str, str]) -> ProcessPoolExecutor:
    """Processes that know one database and no other: each has a pool of connections of its own."""
    return ProcessPoolExecutor(count, get_context("spawn"), _use, (told,))


def _use(told: dict[str, str]) -> None:
    set_environment(**told)


@contextmanager
def servers(folder: Path) -> Iterator[tuple[Postgres, Redis]]:
    folder.chmod(0o755)  # PostgreSQL is another user where we are root
    home = Home(folder)
    with Postgres(home) as postgres, Redis(home) as redis:
        with closing(psycopg2.connect(postgres.url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for name, value in TUNED.items():
                    cursor.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        postgres.restart()
        yield postgres, redis


@contextmanager
def side(name: str, postgres: Postgres, redis: Redis, number: int) -> Iterator[Side]:
    database_url = _database(postgres, f"waiting_{name}")
    port = free_port()
    told = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis.url_of(number),
        "DATA_DIR": str(postgres.home.root / name),
        "PORT": str(port),
        "MAX_WAITING_JOBS": "0",
        "LOG_LEVEL": "ERROR",
    }
    environment = inherited_environment() | told
    subprocess.run((sys.executable, "-m", "alembic", "upgrade", "head"), cwd=ROOT, env=environment, check=True)
    url = f"http://127.0.0.1:{port}"
    spec = ServiceSpec(
        name=f"api-{name}",
        argv=(sys.executable, str(ROOT / "app.py")),
        env=environment,
        ready=lambda: answers(f"{url}/health/live"),
    )
    with ExitStack() as after:
        api = Process(spec, postgres.home.logs / f"api-{name}.log").start()
        after.callback(api.stop)
        api.wait_ready()
        yield Side(name, told, url, after.enter_context(connected(1, told)))


def _database(postgres: Postgres, name: str) -> str:
    with closing(psycopg2.connect(postgres.url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {name}")
    return postgres.url_of(name)


def fill(one: Side, jobs: int, *, callers: int) -> float:
    """Seconds until so many jobs wait, each with its first event; every index is there all the time."""
    begun = time.perf_counter()
    parts = [(first, min(first + CHUNK, jobs + 1) - 1) for first in range(1, jobs + 1, CHUNK)]
    with ProcessPoolExecutor(FILLERS, get_context("spawn")) as fillers:
        waiting = [fillers.submit(_fill, one.database_url, first, last, jobs, callers) for first, last in parts]
        for done, part in enumerate(waiting, start=1):
            part.result()
            if done % 20 == 0:
                print(f"  {done * CHUNK:,} rows, {time.perf_counter() - begun:.0f} s", flush=True)
    taken = time.perf_counter() - begun
    one.execute("VACUUM ANALYZE transcription_jobs")
    one.execute("VACUUM ANALYZE job_events")
    return taken


def _fill(database_url: str, first: int, last: int, total: int, callers: int) -> None:
    statement = FILL.format(callers=callers, days=FIRST_DAYS_AGO, total=total, first=first, last=last)
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        connection.commit()


def sign_in_workers(one: Side, count: int) -> None:
    """As many children of workers as there would be, and no more."""
    one.execute("DELETE FROM processes")
    one.execute(PROCESSES.format(count=count))
