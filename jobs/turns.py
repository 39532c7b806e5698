"""Whose turn it is: callers share the queues evenly, however many jobs each of them has waiting.

The n-th job of one caller takes its turn with the n-th of every other; what a caller has running or rung counts too.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, text, update
from sqlalchemy.orm import Session

from models import Job

POSITION_CAP = 10_000  # a queue position is counted no further than this
OWNERS_CAP = 200  # callers that are looked at for a queue position
DEPTH = 8  # jobs of each caller that are looked at first

# The callers who wait in a class, found by skipping through the index: as many steps as callers, not as jobs.
_OWNERS = """
    owners(owner) AS (
        (SELECT owner FROM transcription_jobs
         WHERE status = 'pending' AND NOT retrying AND priority = :priority ORDER BY owner LIMIT 1)
        UNION ALL
        SELECT (SELECT job.owner FROM transcription_jobs AS job
                WHERE job.status = 'pending' AND NOT job.retrying AND job.priority = :priority
                  AND job.owner > owners.owner
                ORDER BY job.owner LIMIT 1)
        FROM owners WHERE owners.owner IS NOT NULL
    )"""

# The first jobs of every caller, `:depth` of each, and the first `:wanted` of all that nobody was told of.
_HEADS = text(
    f"""
    WITH RECURSIVE {_OWNERS},
    busy AS (
        SELECT owner, count(*) AS jobs FROM transcription_jobs WHERE status = 'processing' GROUP BY owner
    ),
    heads AS MATERIALIZED (
        SELECT job.*, coalesce(busy.jobs, 0) + job.number AS turn
        FROM (SELECT owner FROM owners WHERE owner IS NOT NULL AND NOT EXISTS (
            SELECT FROM pauses WHERE kind = 'caller' AND name = owner)) AS owners
        LEFT JOIN busy ON busy.owner = owners.owner
        CROSS JOIN LATERAL (
            SELECT first.*, row_number() OVER (ORDER BY first.run_at, first.created_at) AS number FROM (
                SELECT id, run_at, created_at, published_at FROM transcription_jobs
                WHERE status = 'pending' AND NOT retrying AND priority = :priority AND owner = owners.owner
                  AND run_at <= now() - :waited
                ORDER BY run_at, created_at LIMIT :depth
            ) AS first
        ) AS job
    )
    SELECT depth.deepest, next.id, next.turn
    FROM (SELECT max(number) AS deepest FROM heads) AS depth
    LEFT JOIN LATERAL (
        SELECT head.id, head.turn FROM heads AS head
        WHERE head.published_at IS NULL OR head.published_at < now() - :stale
        ORDER BY turn, head.run_at, head.created_at LIMIT :wanted
    ) AS next ON true"""  # noqa: S608 (our own text)
)

_MARK = text("""
    WITH chosen AS MATERIALIZED (
        SELECT job.id, head.turn FROM transcription_jobs AS job
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:turns AS bigint[])) WITH ORDINALITY AS head(id, turn, place)
          ON head.id = job.id
        WHERE job.status = 'pending'
        ORDER BY head.place LIMIT :room
        FOR UPDATE OF job SKIP LOCKED
    )
    UPDATE transcription_jobs AS job SET published_at = now(), queue = :queue
    FROM chosen WHERE job.id = chosen.id
    RETURNING chosen.turn, job.run_at, job.created_at, job.id, job.attempt""")

_AHEAD = text(
    f"""
    WITH RECURSIVE {_OWNERS}
    SELECT count(*) FROM (
        SELECT FROM (SELECT owner FROM owners WHERE owner <> :owner LIMIT {OWNERS_CAP}) AS other
        CROSS JOIN LATERAL (
            SELECT FROM transcription_jobs
            WHERE status = 'pending' AND NOT retrying AND priority = :priority AND owner = other.owner
              AND run_at <= now()
            LIMIT :turn
        ) AS waiting
        LIMIT {POSITION_CAP}
    ) AS ahead"""  # noqa: S608 (our own text)
)

_OWN_AHEAD = text(
    f"""
    SELECT count(*) FROM (
        SELECT 1 FROM transcription_jobs
        WHERE status = 'pending' AND NOT retrying AND priority = :priority AND owner = :owner
          AND (run_at, created_at) < (:run_at, :created_at)
        LIMIT {POSITION_CAP}
    ) AS waiting"""  # noqa: S608 (our own text)
)


@dataclass(frozen=True, slots=True)
class Turn:
    number: int  # among the jobs of its caller, those included that run or were rung
    run_at: datetime
    created_at: datetime
    job_id: uuid.UUID
    attempt: int


def take_turns(
    session: Session, priority: str, *, queue: str, room: int, window: int, stale_s: float, waited_s: float = 0
) -> list[Turn]:
    """Mark as rung on `queue` up to `room` jobs of this priority that are due since `waited_s`, in turn."""
    which = {
        "priority": priority,
        "wanted": 2 * room,  # some may be locked
        "stale": timedelta(seconds=stale_s),
        "waited": timedelta(seconds=waited_s),
    }
    # Those before may be rung already, and no more of them than two windows.
    heads = _heads(session, which, deepest=room + 2 * window)
    mark = {"ids": [str(head.id) for head in heads], "turns": [head.turn for head in heads]}
    rows = session.execute(_MARK, mark | {"room": room, "queue": queue}).all() if heads else []
    return [Turn(*row) for row in sorted(rows)]


def unmark(session: Session, *which: ColumnElement[bool]) -> None:
    """Of jobs that wait and were marked as rung: they are chosen again at once. A second doorbell is harmless."""
    waiting = update(Job).where(Job.status == "pending", Job.published_at.is_not(None), *which)
    session.execute(waiting.values(published_at=None), execution_options={"synchronize_session": False})


def _heads(session: Session, which: dict[str, Any], *, deepest: int) -> list[Any]:
    """In turn. No deeper into the jobs of every caller than needed: with a thousand callers each job more is dear."""
    depth = DEPTH
    while True:
        depth = min(depth, deepest)
        rows = session.execute(_HEADS, which | {"depth": depth}).all()
        found = [row for row in rows if row.id is not None]
        is_all = (rows[0].deepest or 0) < depth
        if depth == deepest or is_all or sum(row.turn <= depth for row in found) == which["wanted"]:
            return found
        depth *= 4


def jobs_ahead(session: Session, job: Job) -> int:
    """How many due jobs of its priority have their turn before this one; an estimate where callers are many."""
    its_own = {"priority": job.priority, "owner": job.owner}
    own = session.scalar(_OWN_AHEAD, its_own | {"run_at": job.run_at, "created_at": job.created_at}) or 0
    others = session.scalar(_AHEAD, its_own | {"turn": own + 1}) or 0
    return min(POSITION_CAP, own + int(others))
