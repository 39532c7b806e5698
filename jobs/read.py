"""The queries that the surfaces need. Reads only; every list is a keyset page."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from unicodedata import normalize

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, aliased

import errors
from access.quota import USUAL_BYTES_A_SECOND, audio_seconds
from jobs.routing import WEBHOOKS
from jobs.states import Status
from jobs.turns import POSITION_CAP, jobs_ahead
from languages import MULTI
from models import Batch, ErrorLog, Job, JobEvent, Process, Result, SegmentRow, made_at

FIRST = 200  # submitted first, among whom the one that is due for longest is looked for; an index leads there
RECENT = 20  # finished jobs from which waiting times are estimated
COUNTED = 20_000  # waiting jobs are counted so far and estimated beyond: with 10 million a count takes seconds
_ENTRIES = text("""
    SELECT reltuples * pg_relation_size(oid) / current_setting('block_size')::float8 / relpages
    FROM pg_class WHERE oid = to_regclass('ix_jobs_waiting_by_owner') AND relpages > 0 AND reltuples > 0""")

_LANGUAGE = func.coalesce(func.nullif(Job.language, MULTI), Job.detected_language, Job.language)

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    rows: Sequence[Row]
    has_more: bool


@dataclass(frozen=True, slots=True)
class JobFilter:
    status: str | None = None
    priority: str | None = None
    language: str | None = None
    q: str | None = None  # part of the file name
    batch_id: uuid.UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    owner: str | None = None


def page_of(rows: Sequence[Row], limit: int) -> Page[Row]:
    """`rows` were fetched with limit + 1."""
    return Page(rows[:limit], has_more=len(rows) > limit)


def get_job(session: Session, job_id: uuid.UUID, owner: str | None = None) -> Job:
    """Raises NotFound, also for a job of somebody else than `owner` (None: anybody's)."""
    job = session.get(Job, job_id)
    if job is None or owner not in (None, job.owner):
        raise errors.NotFound("There is no job with this id. It may have been purged.")
    return job


def language_of(job: Job) -> str | None:
    """As asked for, or as detected: of a job in several languages the one that is spoken most."""
    return job.detected_language or MULTI if job.language == MULTI else job.language or job.detected_language


def list_jobs(session: Session, wanted: JobFilter, *, limit: int, after: uuid.UUID | None) -> Page[Job]:
    query = _filtered(select(Job), wanted).order_by(Job.created_at.desc(), Job.id.desc())
    if after is not None:
        query = query.where(tuple_(Job.created_at, Job.id) < (_moment(session, after, wanted.owner), after))
    return page_of(session.scalars(query.limit(limit + 1)).all(), limit)


def _moment(session: Session, job_id: uuid.UUID, owner: str | None) -> datetime:
    """When this job came, also of one that was purged meanwhile. Raises NotFound where nothing tells."""
    is_gone = session.get(Job, job_id) is None
    return (made_at(job_id) if is_gone else None) or get_job(session, job_id, owner).created_at


def _filtered(query: Select[Job], wanted: JobFilter) -> Select[Job]:
    if any("\0" in value for value in (wanted.q, wanted.language) if value):
        return query.where(false())  # no text in PostgreSQL holds a NUL
    for column, value in (
        (Job.status, wanted.status),
        (Job.priority, wanted.priority),
        (Job.batch_id, wanted.batch_id),
        (Job.owner, wanted.owner),
        (_LANGUAGE, wanted.language),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.q:
        query = query.where(Job.filename.icontains(normalize("NFC", wanted.q), autoescape=True))
    if wanted.created_after is not None:
        query = query.where(Job.created_at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(Job.created_at < wanted.created_before)
    return query


def get_result(session: Session, job_id: uuid.UUID) -> Result | None:
    return session.get(Result, job_id)


def segments(session: Session, job_id: uuid.UUID, *, after: int = -1, limit: int | None = None) -> Sequence[SegmentRow]:
    """Segments with a number above `after`, in time order; partial while the job runs."""
    query = (
        select(SegmentRow)
        .where(SegmentRow.job_id == job_id, SegmentRow.number > after)
        .order_by(SegmentRow.number)
        .limit(limit)
    )
    return session.scalars(query).all()


def corrections(session: Session, job_id: uuid.UUID) -> str | None:
    """A digest of what people made of its segments; None where nobody did."""
    each = func.concat(SegmentRow.number, ":", SegmentRow.corrected_text)
    digest = select(func.md5(func.string_agg(each, aggregate_order_by(text("E'\\n'"), SegmentRow.number))))
    return session.scalar(digest.where(SegmentRow.job_id == job_id, SegmentRow.corrected_text.is_not(None)))


@dataclass(frozen=True, slots=True)
class SegmentText:
    """A segment without its tokens and words: a long recording has many."""

    start: float
    end: float
    text: str
    avg_logprob: float
    temperature: float
    language: str | None


def segment_texts(session: Session, job_id: uuid.UUID) -> list[SegmentText]:
    query = select(*(getattr(SegmentRow, field.name) for field in fields(SegmentText)))
    rows = session.execute(query.where(SegmentRow.job_id == job_id).order_by(SegmentRow.number))
    return [SegmentText(*row) for row in rows]


def batch_jobs(session: Session, batch_id: uuid.UUID, owner: str | None = None) -> tuple[Batch, Sequence[Job]]:
    batch = session.get(Batch, batch_id)
    if batch is None or owner not in (None, batch.owner):
        raise errors.NotFound("There is no batch with this id.")
    jobs = session.scalars(select(Job).where(Job.batch_id == batch_id).order_by(Job.created_at, Job.id)).all()
    return batch, jobs


def queue_position(session: Session, job: Job) -> int | None:
    """How many jobs that are due are taken before this one, plus one; None unless it waits."""
    if job.status != Status.PENDING:
        return None
    if job.retrying:
        ahead = _count(session, or_(Job.retrying.is_(False), _is_earlier(job)))
    else:
        ahead = jobs_ahead(session, job)
    if job.priority == "normal" and not job.retrying:
        ahead += _count(session, and_(Job.retrying.is_(False), Job.priority == "high"))
    return min(ahead, POSITION_CAP) + 1


def _count(session: Session, which: ColumnElement[bool]) -> int:
    some = select(Job.id).where(Job.status == Status.PENDING, Job.run_at <= func.now(), which).limit(POSITION_CAP)
    return session.scalar(select(func.count()).select_from(some.subquery())) or 0


def _is_earlier(job: Job) -> Any:
    return tuple_(Job.run_at, Job.created_at, Job.id) < (job.run_at, job.created_at, job.id)


def eta_seconds(
    session: Session, job: Job, position: int | None, now: datetime, *, mean_s: float | None, at_once: int
) -> float | None:
    """Estimated seconds until the job is done; None where there is nothing to estimate from.

    `mean_s`: processing time of the last results; `at_once`: jobs that can run at once.
    """
    if job.status == Status.PROCESSING:
        return _rest_of_attempt(session, job, now)
    if job.status != Status.PENDING or position is None:
        return None
    return round(mean_s * position / at_once, 1) if mean_s and at_once else None


def _rest_of_attempt(session: Session, job: Job, now: datetime) -> float | None:
    begun = select(func.max(JobEvent.at)).where(JobEvent.job_id == job.id, JobEvent.to_status == Status.PROCESSING)
    since = session.scalar(begun)
    if not job.progress or since is None:
        return None
    elapsed_s = (now - since).total_seconds()
    return round(elapsed_s * (100 - job.progress) / job.progress, 1)


def alive(session: Session, kind: str, *, within_s: float) -> Sequence[Process]:
    """Processes of this kind that gave a sign of life lately."""
    seen = Process.seen_at > func.now() - timedelta(seconds=within_s)
    return session.scalars(select(Process).where(Process.kind == kind, seen).order_by(Process.id)).all()


def transcribers(session: Session, *, within_s: float) -> Sequence[Process]:
    """Children of workers that take recordings; those that only send webhooks are none."""
    return [child for child in alive(session, "worker", within_s=within_s) if child.queues != [WEBHOOKS]]


def is_seen(within_s: float) -> ColumnElement[bool]:
    """Of a row of processes: a worker child that gave a sign of life lately."""
    return and_(Process.kind == "worker", Process.seen_at > func.now() - timedelta(seconds=within_s))


def drawn_queues(session: Session, *, within_s: float) -> list[set[str]]:
    """The queues of each transcriber that is well: as many jobs as there are of them can run at once."""
    well = select(Process.queues).where(is_seen(within_s), Process.illness.is_(None))
    return [set(queues) for queues in session.scalars(well) if queues != [WEBHOOKS]]


def waiting_jobs(session: Session, *, counted: int = COUNTED) -> int:
    """Counted one by one up to `counted`; beyond, as many as PostgreSQL's statistics say."""
    some = _some_waiting(counted).subquery()
    count = session.scalar(select(func.count()).select_from(some)) or 0
    return count if count < counted else _estimated(session, count)


def backlog(session: Session, *, counted: int = COUNTED) -> tuple[int, float]:
    """How many jobs wait, and their seconds of audio: as probed, else from their bytes as in the last results.

    Beyond `counted`, both are estimates: the number as in `waiting_jobs`, the newest jobs speaking for all.
    """
    recent = select(Result).order_by(Result.created_at.desc()).limit(RECENT).subquery()
    sizes = select(func.sum(Job.size_bytes), func.sum(recent.c.duration)).join(recent, recent.c.job_id == Job.id)
    size_bytes, duration_s = session.execute(sizes).one()
    bytes_a_second = float(size_bytes) / duration_s if duration_s else USUAL_BYTES_A_SECOND
    newest = aliased(Job, _some_waiting(counted).order_by(Job.created_at.desc()).subquery())
    count, total_s = session.execute(select(func.count(), audio_seconds(bytes_a_second, newest))).one()
    total_s = float(total_s or 0)
    if count < counted:
        return count, total_s
    estimated = _estimated(session, count)
    return estimated, total_s * estimated / count


def _some_waiting(limit: int) -> Select[Job]:
    return select(Job).where(Job.status == Status.PENDING).limit(limit)


def _estimated(session: Session, at_least: int) -> int:
    """From the index that holds waiting jobs alone: its entries when it was last analysed, and what it has grown."""
    return max(at_least, int(session.scalar(_ENTRIES) or 0))


def waiting(session: Session) -> dict[str, Any]:
    """Jobs by status that are not final, since when in seconds the oldest one is due, and open dead letters.

    Those that wait as in `waiting_jobs`. What is to run later waits too, and makes nobody late.
    """
    running = select(func.count()).select_from(Job).where(Job.status == Status.PROCESSING)
    due = (Job.status == Status.PENDING, Job.run_at <= func.now())
    first = select(Job.run_at).where(*due).order_by(Job.created_at).limit(FIRST).subquery()
    oldest = select(func.extract("epoch", func.now() - func.min(first.c.run_at)))
    letters = select(func.count()).select_from(ErrorLog).where(ErrorLog.resolved_at.is_(None))
    age_s = session.scalar(oldest)
    return {
        "pending": waiting_jobs(session),
        "processing": session.scalar(running) or 0,
        "oldest_pending_seconds": None if age_s is None else round(float(age_s), 1),
        "dead_letters": session.scalar(letters) or 0,
    }
