"""Bench 7: what millions of waiting jobs cost: ticks of the relay, submits, polls, lists, claims, counts, deletes.

`python -m bench.waiting --jobs 10000000`, an hour and 12 GB. A nearly empty table and a full one take turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from bench.clients import submit
from bench.measure import Report, compare, core_share, head, interleave, quantile, timed, warm
from bench.queue import NO_VAD, get, latencies, script
from bench.waiting_tables import Side, connected, fill, servers, side, sign_in_workers
from config import get_settings
from database import transaction
from jobs import claim, housekeeping, read, sweep
from jobs.routing import QUEUES
from jobs.states import Status
from models import Job, Result
from storage import open_storage

PARTS = ("relay", "queries", "throughput", "notify", "deletes")
EMPTY_JOBS, CALLERS = 2000, 1000
OWNER = "caller-00500"
CLAIMED_BY = "bench:1.0:1"
WINDOWS = (4, 256)  # children of workers
DEAD_LETTERS = """
INSERT INTO error_logs (id, job_id, attempt, error_type, message, failures, losses, infra_losses, resolved_at,
                        resolution)
SELECT gen_random_uuid(), id, 1, 'lost', 'The worker died.', 0, 1, 0, now(), 'dismissed'
FROM (SELECT id FROM transcription_jobs LIMIT {count}) jobs
"""
FINISHED = """
INSERT INTO transcription_jobs (id, owner, filename, storage_key, size_bytes, sha256, model_size, status, attempt,
                                progress, started_at, completed_at, delete_at)
SELECT key::uuid, 'caller-00500', 'call.wav', left(key, 2) || '/' || key, 1000, repeat('0', 64), 'base', 'completed', 1,
       100, now(), now(), now()
FROM (SELECT gen_random_uuid()::text AS key FROM generate_series(1, {count})) jobs
"""
EXACT = "SELECT count(*), sum(coalesce((audio->>'duration')::float8, size_bytes / 16000.0)) FROM transcription_jobs"
NOTHING = "INSERT INTO bench_commits DEFAULT VALUES"
SIZES = """
SELECT relname, pg_total_relation_size(oid), pg_relation_size(oid) FROM pg_class
WHERE relname IN ('transcription_jobs', 'job_events') ORDER BY relname DESC
"""
INDEXES = """
SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes
WHERE relname IN ('transcription_jobs', 'job_events') ORDER BY 2 DESC
"""
Sides = tuple[Side, Side]


# Each runs in the process of a side, on its database; returns what single calls took, in seconds.


def ticks(count: int) -> list[float]:
    """As relay.py does it, with queues that have been emptied since the last one."""
    settings = get_settings()

    def tick() -> None:
        with transaction() as session:
            if sweep.try_lead(session):
                sweep.expire_leases(session, settings)
        with transaction() as session:
            if sweep.try_lead(session):
                sweep.choose_waiting(session, settings, dict.fromkeys(QUEUES, 0))
                sweep.choose_dead_letters(session, dict.fromkeys(QUEUES, 0))

    return latencies(tick, count)


def reads(work: Callable[[Session], object], count: int) -> list[float]:
    def look() -> None:
        with transaction() as session:
            work(session)

    return latencies(look, count)


def list_of_a_caller(session: Session) -> object:
    return read.list_jobs(session, read.JobFilter(owner=OWNER), limit=20, after=None)


def claims(count: int) -> list[float]:
    settings, jobs = get_settings(), iter(next_jobs(count))
    return latencies(lambda: claim.claim(next(jobs), claimed_by=CLAIMED_BY, settings=settings), count)


def next_jobs(count: int) -> Sequence[UUID]:
    """Those that a worker would be told of next."""
    oldest = select(Job.id).where(Job.status == Status.PENDING).order_by(Job.created_at).limit(count)
    with transaction() as session:
        return session.scalars(oldest).all()


def work_off(jobs: Sequence[UUID]) -> int:
    """Claim and finish each, as a child whose engine takes no time. How many were ours."""
    settings = get_settings()
    taken = [found for job in jobs if (found := claim.claim(job, claimed_by=CLAIMED_BY, settings=settings))]
    return sum(claim.finish(one.fence, result_of(one), patience_s=5) for one in taken)


def result_of(one: claim.Claim) -> Result:
    said = "one two three four five six seven eight nine ten " * 15  # a minute of speech
    numbers = {"duration": 60.0, "word_count": 150, "confidence": 0.9, "language_probability": 0.9}
    return Result(job_id=one.job.id, attempt=one.fence.attempt, text=said, language="en", processing_s=1.0, **numbers)


def commits(count: int, *, notify: bool) -> None:
    """One small row each; with a NOTIFY as each move of a job has it, and without."""
    for _ in range(count):
        with transaction() as session:
            session.execute(text(NOTHING))
            if notify:
                session.execute(text("SELECT pg_notify('whisper_queue_events', gen_random_uuid()::text)"))


def clear_away(rounds: int) -> list[float]:
    """Rounds of the housekeeper over jobs whose time has come, a hundred a round."""
    settings = get_settings()
    storage = open_storage(settings)

    def round_() -> None:
        with transaction() as session:
            if housekeeping.delete_jobs(session, settings, storage) != housekeeping.JOBS_AT_MOST:
                raise SystemExit("The housekeeper found fewer jobs than there are to delete.")

    return latencies(round_, rounds)


def delete_events() -> int:
    with transaction() as session:
        return housekeeping.delete_events(session, get_settings())


# What is measured


def median_ms(taken: list[float]) -> float:
    return 1000 * quantile(taken, 0.5)


def turns(report: Report, name: str, sides: Sides, work: Callable[[Side], list[float]], rounds: int) -> None:
    """The same calls on both sides in turn: the ratio of the medians, and the full side's percentiles."""
    empty, full = sides
    found: dict[str, list[float]] = {one.name: [] for one in sides}

    def measured(one: Side) -> float:
        taken = work(one)
        found[one.name] += taken
        return median_ms(taken)

    runs = interleave({one.name: partial(measured, one) for one in sides}, rounds=rounds)
    report.add(compare(name, runs, (full.name, empty.name), unit="ms, median"))
    taken = found[full.name]
    spread = {f"p{share}_ms": round(1000 * quantile(taken, share / 100), 2) for share in (50, 95)}
    report.note(what=name, side=full.name, calls=len(taken), **spread, max_ms=round(1000 * max(taken), 2))


def queries(report: Report, sides: Sides, folder: Path, rounds: int, calls: int) -> None:
    path = script(folder, 0)
    first, last = ({one.name: a_job(one, order) for one in sides} for order in ("ASC", "DESC"))
    works: dict[str, Callable[[Side], list[float]]] = {
        "submit": lambda one: latencies(lambda: submit(one.url, path, **NO_VAD), calls),
        "poll, the oldest job": lambda one: latencies(lambda: get(one.url, f"/transcribe/{first[one.name]}"), calls),
        "poll, the last of a caller": lambda one: latencies(
            lambda: get(one.url, f"/transcribe/{last[one.name]}"), max(1, calls // 5)
        ),
        "list": lambda one: latencies(lambda: get(one.url, "/jobs/?limit=20"), calls),
        "list pending": lambda one: latencies(lambda: get(one.url, "/jobs/?limit=20&status=pending"), calls),
        "list of a caller": lambda one: one.run(reads, list_of_a_caller, calls),
        "claim": lambda one: one.run(claims, calls),
        "backlog()": lambda one: one.run(reads, read.backlog, max(1, calls // 5)),
        "waiting()": lambda one: one.run(reads, read.waiting, max(1, calls // 5)),
    }
    for name, work in works.items():
        turns(report, name, sides, work, rounds)


def a_job(one: Side, order: str) -> str:
    """The first or the last job of one caller that waits."""
    its_own = f"FROM transcription_jobs WHERE owner = '{OWNER}' AND priority = 'normal' AND status = 'pending'"
    return str(one.execute(f"SELECT id {its_own} ORDER BY run_at {order} LIMIT 1")[0][0])


def relay(report: Report, sides: Sides, rounds: int, calls: int) -> None:
    for children in WINDOWS:
        for one in sides:
            sign_in_workers(one, children)
        turns(report, f"tick, {children} children", sides, lambda one: one.run(ticks, max(1, calls // 10)), rounds)
        report.note(what="doorbells a tick", children=children, each_of_two_queues=2 * children)


def throughput(report: Report, sides: Sides, rounds: int, jobs: int, connections: Sequence[int]) -> None:
    """Jobs a second through PostgreSQL: each is claimed and finished, nothing else."""
    for count in connections:
        with ExitStack() as after:
            pools = {one.name: after.enter_context(connected(count, one.told)) for one in sides}
            works = {one.name: _drain(one, pools[one.name], count, jobs) for one in sides}
            runs = interleave(warm(works), rounds=rounds)
            empty, full = sides
            name = f"claim and finish, {count} connections"
            report.add(compare(name, runs, (full.name, empty.name), work=jobs, unit="jobs a second"))


def _drain(one: Side, pool: ProcessPoolExecutor, count: int, jobs: int) -> Callable[[], float]:
    return lambda: drained(one, pool, count, jobs)


def drained(one: Side, pool: ProcessPoolExecutor, count: int, jobs: int) -> float:
    """Seconds for so many jobs, which are there before the clock starts."""
    _refill(one, jobs)
    waiting = one.run(next_jobs, jobs)
    begun = time.perf_counter()
    done = sum(pool.map(work_off, [waiting[number::count] for number in range(count)]))
    taken = time.perf_counter() - begun
    if done != len(waiting):
        raise SystemExit(f"{done} of {len(waiting)} jobs were finished.")
    return taken


def _refill(one: Side, jobs: int) -> None:
    if len(one.run(next_jobs, 2 * jobs)) < 2 * jobs:
        fill(one, EMPTY_JOBS, callers=CALLERS)


def notifications(report: Report, one: Side, rounds: int, count: int, connections: int) -> None:
    """PostgreSQL lets transactions that notify commit one after the other."""
    one.execute("CREATE UNLOGGED TABLE IF NOT EXISTS bench_commits (id bigint GENERATED ALWAYS AS IDENTITY)")
    with connected(connections, one.told) as pool:

        def all_at_once(*, notify: bool) -> None:
            list(pool.map(partial(commits, notify=notify), [count // connections] * connections))

        sides = {
            "with NOTIFY": timed(partial(all_at_once, notify=True)),
            "without": timed(partial(all_at_once, notify=False)),
        }
        runs = interleave(warm(sides), rounds=rounds)
    name = f"commits, {connections} connections"
    report.add(compare(name, runs, ("with NOTIFY", "without"), work=count, unit="a second"))


def deletes(report: Report, sides: Sides, rounds: int, letters: int) -> None:
    """Rounds of housekeeping: of a hundred jobs, and of a history of which nothing is old enough."""
    for one in sides:
        one.execute(DEAD_LETTERS.format(count=letters))
        one.execute("ANALYZE error_logs")
        one.execute(FINISHED.format(count=rounds * housekeeping.JOBS_AT_MOST))
    name = f"delete {housekeeping.JOBS_AT_MOST} jobs"
    turns(report, name, sides, lambda one: one.run(clear_away, 1), rounds)
    turns(report, "look for old history", sides, lambda one: one.run(latencies, delete_events, 1), rounds)


def sizes(report: Report, one: Side, jobs: int) -> None:
    for table, whole, rows in one.execute(SIZES):
        report.note(what=table, bytes_a_job=round(whole / jobs), of_them_rows=round(rows / jobs), megabytes=whole >> 20)
    for index, size in one.execute(INDEXES):
        report.note(what=index, bytes_a_job=round(size / jobs))


def counted_one_by_one(report: Report, one: Side) -> None:
    """What a full count of waiting jobs and their audio would take."""
    begun = time.perf_counter()
    count, _ = one.execute(f"{EXACT} WHERE status = 'pending'")[0]
    exact_s = time.perf_counter() - begun
    estimated = one.run(waiting_jobs)
    report.note(what="all counted one by one", jobs=count, seconds=round(exact_s, 2), estimated=estimated)


def waiting_jobs() -> int:
    with transaction() as session:
        return read.waiting_jobs(session)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.waiting", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000_000, help="that wait in the full table")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=50, help="of each kind a round")
    parser.add_argument("--drained", type=int, default=800, help="jobs claimed and finished a round")
    parser.add_argument("--connections", type=int, nargs="+", default=(1, 4, 16), help="that drain at once")
    parser.add_argument("--letters", type=int, default=100_000, help="dead letters of the past, while jobs are deleted")
    parser.add_argument(
        "--folder", type=Path, help="of the data: filled if it is new, kept; default: one that is deleted"
    )
    parser.add_argument("--name", default="waiting", help="of the file with the results")
    given = parser.parse_args()
    report = Report(given.name)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        Path(name).chmod(0o755)  # PostgreSQL is another user where we are root
        measure(report, given, given.folder or Path(name) / "data")
    report.write()


def measure(report: Report, given: argparse.Namespace, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with (
        servers(folder) as (postgres, redis),
        side("empty", postgres, redis, 0) as empty,
        side("full", postgres, redis, 1) as full,
    ):
        print(head())
        sides = empty, full
        for one, jobs in ((empty, EMPTY_JOBS), (full, given.jobs)):
            if not one.execute("SELECT FROM transcription_jobs LIMIT 1"):
                share, taken = core_share(), fill(one, jobs, callers=CALLERS)
                rate = round(jobs / taken)
                report.note(what="filled", jobs=jobs, seconds=round(taken), jobs_per_s=rate, core_share_before=share)
        sizes(report, full, given.jobs)
        counted_one_by_one(report, full)
        parts: dict[str, Callable[[], None]] = {
            "relay": lambda: relay(report, sides, given.rounds, given.calls),
            "queries": lambda: queries(report, sides, folder, given.rounds, given.calls),
            "throughput": lambda: throughput(report, sides, given.rounds, given.drained, given.connections),
            "notify": lambda: notifications(report, empty, given.rounds, 2 * given.drained, max(given.connections)),
            "deletes": lambda: deletes(report, sides, given.rounds, given.letters),
        }
        for part in given.parts:
            parts[part]()


if __name__ == "__main__":
    main()
