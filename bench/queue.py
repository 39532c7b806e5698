"""Bench 4: what the queue itself costs, with the fake engine: submit, pick up, jobs a second, SQL, and a full table.

`python -m bench.queue`. Two whole stacks, one with empty tables and one with a million finished jobs, take turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine, text

from bench.callers import Api
from bench.clients import result, service, submit
from bench.measure import Report, compare, core_share, head, interleave, quantile
from bench.soak import database
from engines.fake import encode_script
from stack.running import Stack
from tests.processes import until

SETTINGS = {"engine": "fake", "max_waiting_jobs": 0}
NO_VAD = {"vad_filter": "false"}  # a script is no speech
FILL = """
INSERT INTO transcription_jobs (id, filename, storage_key, size_bytes, sha256, model_size, status, attempt, progress,
                                created_at, run_at, started_at, completed_at)
SELECT gen_random_uuid(), 'call-' || n || '.wav', 'bench/' || n, 1000, repeat('0', 64), 'base', 'completed', 1, 100,
       at, at, at, at
FROM (SELECT n, now() - n * interval '7 seconds' AS at FROM generate_series(1, :count) n) jobs
"""
Urls = tuple[str, str]


def fill(stack: Stack, count: int) -> None:
    engine = database(stack)
    with engine.begin() as connection:
        connection.execute(text(FILL), {"count": count})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE transcription_jobs"))
    engine.dispose()


def script(folder: Path, seconds: float) -> Path:
    """A recording of a second that keeps a worker's child busy for so long, without using the processor."""
    path = folder / f"sleep-{seconds}.wav"
    path.write_bytes(encode_script({"text": "done", "sleep": seconds}))
    return path


@contextmanager
def occupied(url: str, folder: Path, count: int) -> Iterator[None]:
    """All children busy, so that what is submitted waits."""
    jobs = [submit(url, script(folder, 3600), **NO_VAD) for _ in range(count)]
    api = Api(url)
    until(lambda: all(api.ask("GET", f"/transcribe/{job}")[1]["status"] == "processing" for job in jobs), 120)
    try:
        yield
    finally:
        for job in jobs:
            api.ask("DELETE", f"/transcribe/{job}")


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}_ms": round(1000 * quantile(values, share / 100), 2) for share in (50, 99)}


def latencies(work: Callable[[], object], count: int) -> list[float]:
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return taken


def get(url: str, path: str) -> None:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"GET {path}: {answer.status}")


def saturated(report: Report, url: str, folder: Path, count: int) -> None:
    """Submit latency and throughput with more jobs than the children can take: their decoders use every core."""
    path, share, begun = script(folder, 0), core_share(), time.perf_counter()
    taken: list[float] = []
    jobs: list[str] = []
    for _ in range(count):
        asked = time.perf_counter()
        jobs.append(submit(url, path, **NO_VAD))
        taken.append(time.perf_counter() - asked)
    for job in jobs:
        result(url, job)
    rate = round(count / (time.perf_counter() - begun), 2)
    report.note(what="submit, workers saturated", jobs=count, **percentiles(taken), core_share_before=round(share, 3))
    report.note(what="through the queue", jobs=count, jobs_per_s=rate)


def picked_up(report: Report, stack: Stack, folder: Path, count: int, *, rows: int = 0) -> None:
    """From the row's insert to its claim, one job at a time on an idle service."""
    path, share = script(folder, 0), core_share()
    jobs = [submit_and_wait(stack.url, path) for _ in range(count)]
    waited = waits(stack, jobs)
    report.note(what="pick-up, idle", rows=rows, jobs=count, **percentiles(waited), core_share_before=round(share, 3))


def submit_and_wait(url: str, path: Path) -> str:
    job = submit(url, path, **NO_VAD)
    result(url, job)
    return job


def waits(stack: Stack, jobs: list[str]) -> list[float]:
    seconds = text(
        "SELECT extract(epoch FROM started_at - created_at) FROM transcription_jobs "
        "WHERE id = ANY(CAST(:jobs AS uuid[]))"
    )
    engine = database(stack)
    with engine.connect() as connection:
        found = [float(row[0]) for row in connection.execute(seconds, {"jobs": jobs})]
    engine.dispose()
    return found


def statements(report: Report, stack: Stack, folder: Path, count: int) -> None:
    """Counted in PostgreSQL's own log, less what an idle service says in the same time; polls of ours included."""
    engine = database(stack)
    set_logging(engine, "all")
    time.sleep(1)
    before = logged(stack)
    begun = time.perf_counter()
    for _ in range(count):
        submit_and_wait(stack.url, script(folder, 0))
    seconds, busy = time.perf_counter() - begun, logged(stack)
    time.sleep(seconds)
    idle = logged(stack) - busy
    set_logging(engine, "none")
    engine.dispose()
    per_job = round((busy - before - idle) / count, 1)
    report.note(
        what="SQL statements a job, polls included", jobs=count, each=per_job, idle_per_s=round(idle / seconds, 1)
    )


def set_logging(engine: Engine, which: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ALTER SYSTEM SET log_statement = '{which}'"))
        connection.execute(text("SELECT pg_reload_conf()"))


def logged(stack: Stack) -> int:
    words = ("LOG:  statement:", "LOG:  execute ")
    logs = (path.read_text(errors="replace") for path in (stack.data_dir / "logs").glob("postgres*"))
    return sum(log.count(word) for log in logs for word in words)


def flat(report: Report, urls: Urls, folder: Path, *, rows: int, rounds: int, calls: int) -> None:
    """The same calls on empty tables and on full ones; children occupied, so that nothing else uses the processor."""
    path = script(folder, 0)
    job = {url: submit(url, path, **NO_VAD) for url in urls}
    works: dict[str, Callable[[str], object]] = {
        "submit": lambda url: submit(url, path, **NO_VAD),
        "poll": lambda url: get(url, f"/transcribe/{job[url]}"),
        "list": lambda url: get(url, "/jobs/?limit=20"),
        "list completed": lambda url: get(url, "/jobs/?limit=20&status=completed"),
    }
    for name, work in works.items():
        sides = {
            "empty": lambda work=work: 1000 * quantile(latencies(lambda: work(urls[0]), calls), 0.5),
            f"{rows} rows": lambda work=work: 1000 * quantile(latencies(lambda: work(urls[1]), calls), 0.5),
        }
        found = interleave(sides, rounds=rounds)
        report.add(compare(name, found, (f"{rows} rows", "empty"), unit="ms, median", at_least=1 / 1.2))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.queue", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=100, help="of each kind a round")
    parser.add_argument("--name", default="queue", help="of the file with the results")
    given = parser.parse_args()
    report = Report(given.name)
    with (
        tempfile.TemporaryDirectory() as name,
        service(**SETTINGS) as empty,
        service(**SETTINGS) as full,
    ):
        folder = Path(name)
        print(head())
        picked_up(report, empty, folder, max(10, given.jobs // 5))
        saturated(report, empty.url, folder, given.jobs)
        statements(report, empty, folder, max(5, given.jobs // 10))
        fill(full, given.rows)
        picked_up(report, full, folder, max(10, given.jobs // 5), rows=given.rows)
        with occupied(empty.url, folder, 2), occupied(full.url, folder, 2):
            flat(report, (empty.url, full.url), folder, rows=given.rows, rounds=given.rounds, calls=given.calls)
    report.write()


if __name__ == "__main__":
    main()
