"""What the tests of the life of a job share: jobs to play with, and the checker that reads whether the books balance.

RELIABILITY (docs/): nothing accepted is lost, stuck or written twice. `check_invariants` runs after every such test.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import psycopg2
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from sqlalchemy import event, insert, select, text
from sqlalchemy.orm import Session

import errors
from config import Settings
from database import get_engine, transaction
from jobs import claim as claims
from jobs import sweep
from jobs.cancel import cancel
from jobs.claim import Claim
from jobs.progress import Fence
from jobs.retry import Cause
from jobs.states import TRANSITIONS, Status
from jobs.submit import JobRequest, Upload, submit
from models import ErrorLog, Job, JobEvent, Process, Result, SegmentRow

calm = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

WORKER = "host:1:2"  # host : pid of the worker's main process : pid of its child
SIBLING = "host:1:3"

# A sentence, and a query for the jobs that break it.
INVARIANTS = {
    "a completed job has one result, written by its last attempt, and no other job has one": """
        SELECT job.id FROM transcription_jobs job LEFT JOIN transcription_results result ON result.job_id = job.id
        WHERE (job.status = 'completed') <> (result.job_id IS NOT NULL) OR result.attempt <> job.attempt""",
    "a failed job has a dead letter of its last attempt that was not replayed": """
        SELECT id FROM transcription_jobs job WHERE status = 'failed' AND NOT EXISTS (
          SELECT 1 FROM error_logs letter WHERE letter.job_id = job.id AND letter.attempt = job.attempt
          AND letter.resolution IS DISTINCT FROM 'replayed')""",
    "an open dead letter belongs to a failed job": """
        SELECT job.id FROM transcription_jobs job JOIN error_logs letter ON letter.job_id = job.id
        WHERE letter.resolved_at IS NULL AND (job.status <> 'failed' OR letter.attempt <> job.attempt)""",
    "nobody holds a job that he stopped renewing long ago": """
        SELECT id FROM transcription_jobs
        WHERE status = 'processing' AND lease_until < now() - :silence * interval '1 s'""",
    "only a running job has an owner, a lease and a deadline": """
        SELECT id FROM transcription_jobs WHERE status <> 'processing'
        AND (claimed_by IS NOT NULL OR lease_until IS NOT NULL OR deadline_at IS NOT NULL)""",
    "no attempt is counted as a failure or a loss twice": """
        SELECT id FROM transcription_jobs WHERE failures + losses + infra_losses > attempt""",
    "every job has a legal status": """
        SELECT id FROM transcription_jobs
        WHERE status NOT IN ('pending', 'processing', 'completed', 'failed', 'cancelled')""",
}

SPREAD_IN_TIME = """
    UPDATE transcription_jobs job SET run_at = at, created_at = at
    FROM (SELECT id, now() - :waiting_s * interval '1 s' - (count(*) OVER () - number) * interval '1 ms' AS at
          FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS t(id, number)) times
    WHERE times.id = job.id"""


def check_invariants(session: Session, *, longest_silence_s: float = 60) -> None:
    """Raises AssertionError with the sentence that is not true, and the jobs for which it is not."""
    for sentence, query in INVARIANTS.items():
        broken = session.scalars(text(query), {"silence": longest_silence_s} if ":silence" in query else {}).all()
        assert not broken, f"not true: {sentence}: {broken}"
    _check_histories(session)


def _check_histories(session: Session) -> None:
    """The events of a job lead from nothing to where it stands, by legal steps, and count every claim."""
    histories: dict[uuid.UUID, list[JobEvent]] = defaultdict(list)
    for step in session.scalars(select(JobEvent).order_by(JobEvent.id)):
        histories[step.job_id].append(step)
    for job_id, status, attempt in session.execute(select(Job.id, Job.status, Job.attempt)):
        problem = _problem_of(histories.get(job_id, []), status, attempt)
        assert problem is None, f"history of {job_id}: {problem}"


def _problem_of(steps: list[JobEvent], status: str, attempt: int) -> str | None:
    if not steps or (steps[0].from_status, steps[0].to_status, steps[0].attempt) != (None, "pending", 0):
        return "does not begin with a submit"
    for one, two in pairwise(steps):
        if two.from_status != one.to_status or Status(two.to_status) not in TRANSITIONS[Status(one.to_status)]:
            return f"{two.from_status} -> {two.to_status} after {one.to_status}"
        if two.attempt != one.attempt + (two.to_status == Status.PROCESSING):
            return f"attempt {two.attempt} after {one.attempt}"
    if (steps[-1].to_status, steps[-1].attempt) != (status, attempt):
        return f"ends with {steps[-1].to_status}, attempt {steps[-1].attempt}; the job is {status}, attempt {attempt}"
    return None


def new_job(*, filename: str = "a.wav", batch_id: uuid.UUID | None = None, **request: Any) -> uuid.UUID:
    """Submitted and committed. `request`: model_size, priority, decode, metadata."""
    wanted = JobRequest(**{"model_size": "tiny", **request})
    with transaction() as session:
        return submit(session, Upload(filename, f"audio/{filename}", 1, "0" * 64), wanted, batch_id=batch_id).id


def many_jobs(count: int, *, waiting_s: float = 0, **columns: Any) -> list[uuid.UUID]:
    """As if submitted a millisecond apart, the last `waiting_s` ago, in the order of the ids that are returned."""
    row = {"filename": "a", "storage_key": "a", "size_bytes": 1, "sha256": "", "model_size": "tiny", **columns}
    ids = [uuid.uuid4() for _ in range(count)]
    with transaction() as session:
        session.execute(insert(Job), [{"id": job_id, **row} for job_id in ids])
        session.execute(insert(JobEvent), [{"job_id": job_id, "attempt": 0, "to_status": "pending"} for job_id in ids])
        session.execute(text(SPREAD_IN_TIME), {"ids": [str(job_id) for job_id in ids], "waiting_s": waiting_s})
    return ids


def take(job_id: uuid.UUID, settings: Settings, *, worker: str = WORKER) -> Claim:
    claimed = claims.claim(job_id, claimed_by=worker, settings=settings)
    assert claimed is not None, "the job could not be claimed"
    return claimed


def taken(settings: Settings, **request: Any) -> Fence:
    """The fence of the first attempt at a new job."""
    return take(new_job(**request), settings).fence


def complete(job_id: uuid.UUID, words: str, settings: Settings) -> None:
    """As a worker would, with one segment of 1.5 s."""
    fence = take(job_id, settings).fence
    numbers = {"avg_logprob": -0.1, "no_speech_prob": 0.0, "compression_ratio": 1.0, "temperature": 0.0, "tokens": []}
    with transaction() as session:
        session.add(SegmentRow(job_id=job_id, number=0, start=0.0, end=1.5, text=words, **numbers))
    finish(fence)


def result_of(fence: Fence, words: str = "hello") -> Result:
    return Result(
        job_id=fence.job_id,
        attempt=fence.attempt,
        text=words,
        language="en",
        language_probability=0.9,
        duration=1.5,
        word_count=len(words.split()),
        confidence=0.8,
        processing_s=2.0,
    )


def finish(fence: Fence, words: str = "hello") -> bool:
    return claims.finish(fence, result_of(fence, words), patience_s=5)


def fail(fence: Fence, error: BaseException, settings: Settings, cause: Cause = Cause.FAILURE) -> bool:
    return claims.fail(fence, error, settings, cause=cause, worker=WORKER)


def dead_letter_of(settings: Settings, error: BaseException) -> ErrorLog:
    """A new job that failed for good at its first attempt."""
    fence = taken(settings)
    assert fail(fence, error, settings)
    return letters_of(fence.job_id)[0]


def letters_of(job_id: uuid.UUID) -> list[ErrorLog]:
    with transaction() as session:
        return list(session.scalars(select(ErrorLog).where(ErrorLog.job_id == job_id).order_by(ErrorLog.created_at)))


def job_in(status: Status, settings: Settings, **request: Any) -> Job:
    """A job that came to `status` by legal moves."""
    job_id = new_job(**request)
    if status is Status.CANCELLED:
        with transaction() as session:
            cancel(session, job_id)
    elif status is not Status.PENDING:
        fence = take(job_id, settings).fence
        if status is Status.COMPLETED:
            finish(fence)
        elif status is Status.FAILED:
            fail(fence, errors.NoAudioStream("There is no sound in it."), settings)
    return job_now(job_id)


def job_now(job_id: uuid.UUID) -> Job:
    """As committed."""
    with transaction() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def events_of(job_id: uuid.UUID) -> list[JobEvent]:
    with transaction() as session:
        return list(session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)))


def everything_about(job_id: uuid.UUID) -> list[str]:
    """Each row that belongs to a job, as text: to see that nothing was written."""
    others = ("job_events", "error_logs", "transcription_results", "transcript_segments")
    tables = {"transcription_jobs": "id", **dict.fromkeys(others, "job_id")}
    queries = [f"SELECT row::text FROM {table} row WHERE {key} = :id" for table, key in tables.items()]  # noqa: S608
    with transaction() as session:
        return sorted(session.scalars(text(" UNION ALL ".join(queries)), {"id": job_id}))


def move_back(session: Session, job_id: uuid.UUID, seconds: float, *columns: str) -> None:
    """As if these times had been written that much earlier."""
    changes = ", ".join(f"{column} = {column} - :s * interval '1 s'" for column in columns)
    session.execute(text(f"UPDATE transcription_jobs SET {changes} WHERE id = :id"), {"s": seconds, "id": job_id})  # noqa: S608


def wait_over(job_id: uuid.UUID) -> None:
    """The retry delay of a job is over."""
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET run_at = now() WHERE id = :id"), {"id": job_id})


def worker_falls_silent(job_id: uuid.UUID) -> None:
    with transaction() as session:
        move_back(session, job_id, 3600, "lease_until")


def expire(settings: Settings) -> int:
    """What the relay does with lapsed leases; the lease is short, since the server was started only seconds ago."""
    with transaction() as session:
        return sweep.expire_leases(session, settings.model_copy(update={"lease_seconds": 1}))


def sign_in(
    name: str, *, seconds_ago: float = -600, queues: Sequence[str] = (), illness: dict[str, str] | None = None
) -> None:
    """A worker child was seen; without `seconds_ago` it stays fresh however long the test is held up."""
    row = {"id": name, "kind": "worker", "worker": name.rpartition(":")[0], "queues": [*queues], "illness": illness}
    with transaction() as session:
        session.execute(insert(Process).values(**row))
        session.execute(
            text("UPDATE processes SET seen_at = now() - :s * interval '1 s' WHERE id = :id"),
            {"s": seconds_ago, "id": name},
        )


@contextmanager
def other_connection(database: str | None = None) -> Iterator[Any]:
    """Past the pool: a cursor of its own, in autocommit."""
    url = get_engine().url.set(drivername="postgresql", database=database or get_engine().url.database)
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


@contextmanager
def database_away() -> Iterator[None]:
    """Every connection is lost, and none is accepted."""
    name = get_engine().url.database
    with other_connection("postgres") as cursor:
        cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            yield
        finally:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@contextmanager
def commits_cut(*, after: bool, times: int = 1) -> Iterator[list[str]]:
    """The next COMMITs end in a lost connection: the server has executed them (`after`) or has never seen them."""
    cuts: list[str] = []

    def cut(connection: Any) -> None:
        if len(cuts) == times:
            return
        cuts.append("cut")
        raw = connection.connection.dbapi_connection
        if after:
            raw.commit()
        with raw.cursor() as cursor, other_connection() as other:  # in a transaction again, so that COMMIT is sent
            cursor.execute("SELECT pg_backend_pid()")
            other.execute("SELECT pg_terminate_backend(%s, 5000)", cursor.fetchone())

    event.listen(get_engine(), "commit", cut)
    try:
        yield cuts
    finally:
        event.remove(get_engine(), "commit", cut)
