"""Quotas per caller: jobs that wait at once, seconds of audio submitted in 24 hours."""

from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.orm import Session

import errors
from access.caller import Caller
from models import Job

DAY = timedelta(hours=24)
WAIT_S = 30  # for a job to finish
USUAL_BYTES_A_SECOND = 16_000  # 128 kbit/s, as long as a recording has not been probed
UNDER_WAY = 10_000  # jobs: a hundred files on each of a hundred connections
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
# Every value of the first two columns is named for the index of waiting jobs: a caller's history may be long.
_WAITING = text("""
    SELECT count(*) FROM (
        SELECT FROM transcription_jobs
        WHERE status = 'pending' AND retrying IN (false, true) AND priority IN ('high', 'normal') AND owner = :owner
        LIMIT :most
    ) AS waiting""")


def check(session: Session, caller: Caller, *, jobs: int, size_bytes: int) -> None:
    """Whether this caller may submit so much more. Where room is scarce, its other submissions wait until the commit,
    so that no two of them take the same. Raises QuotaExceeded.
    """
    if not (caller.quota_waiting_jobs or caller.quota_audio_s_per_day) or _has_plenty(session, caller, jobs):
        return
    session.execute(_LOCK, {"name": f"quota:{caller.owner}"})
    if caller.quota_waiting_jobs:
        _check_waiting(session, caller, jobs)
    if caller.quota_audio_s_per_day:
        _check_audio(session, caller, size_bytes / USUAL_BYTES_A_SECOND)


def _has_plenty(session: Session, caller: Caller, jobs: int) -> bool:
    """Room for everything that may be under way at once: then nobody has to wait for anybody."""
    if caller.quota_audio_s_per_day or caller.quota_waiting_jobs <= UNDER_WAY:
        return False
    return _waiting(session, caller) + jobs + UNDER_WAY <= caller.quota_waiting_jobs


def _waiting(session: Session, caller: Caller) -> int:
    return session.scalar(_WAITING, {"owner": caller.owner, "most": caller.quota_waiting_jobs}) or 0


def _check_waiting(session: Session, caller: Caller, jobs: int) -> None:
    most = caller.quota_waiting_jobs
    if _waiting(session, caller) + jobs > most:
        message = f"This key may have {most} jobs waiting. Send more when some are done."
        raise errors.QuotaExceeded(message, retry_after_s=WAIT_S)


def _check_audio(session: Session, caller: Caller, wanted_s: float) -> None:
    of_today = (Job.owner == caller.owner, Job.created_at > func.now() - DAY)
    used_s, first = session.execute(
        select(audio_seconds(USUAL_BYTES_A_SECOND), func.min(Job.created_at)).where(*of_today)
    ).one()
    if (used_s or 0) + wanted_s > caller.quota_audio_s_per_day:
        hours, used = caller.quota_audio_s_per_day / 3600, (used_s or 0) / 3600
        message = f"This key may submit {hours:g} hours of audio in 24 hours; {used:.1f} are used. Send this later."
        raise errors.QuotaExceeded(message, retry_after_s=_until_free_s(session, first))


def audio_seconds(bytes_a_second: float, jobs: type[Job] = Job) -> ColumnElement[float]:
    """The sum over jobs (`jobs`: an alias of some of them): as probed, else estimated from their bytes."""
    probed_s = jobs.audio["duration"].as_float()
    return func.sum(func.coalesce(probed_s, jobs.size_bytes / float(bytes_a_second)))


def _until_free_s(session: Session, first: datetime | None) -> int:
    """Until the oldest recording of the window leaves it."""
    now = session.scalar(select(func.now()))
    return max(1, ceil((first + DAY - now).total_seconds())) if first and now else int(DAY.total_seconds())
