"""Quotas per caller: jobs that wait at once, seconds of audio submitted in 24 hours."""

from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import func, select
from sqlalchemy.orm import Session

import errors
from access.caller import Caller
from models import Job

DAY = timedelta(hours=24)
WAIT_S = 30  # for a job to finish
USUAL_BYTES_A_SECOND = 16_000  # 128 kbit/s, as long as a recording has not been probed


def check(session: Session, caller: Caller, *, jobs: int, size_bytes: int) -> None:
    """Whether this caller may submit so much more. Holds the caller's other submissions up until the commit, so that
    no two of them take the same room. Raises QuotaExceeded.
    """
    if not (caller.quota_waiting_jobs or caller.quota_audio_s_per_day):
        return
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"quota:{caller.owner}", 0))))
    if caller.quota_waiting_jobs:
        _check_waiting(session, caller, jobs)
    if caller.quota_audio_s_per_day:
        _check_audio(session, caller, size_bytes / USUAL_BYTES_A_SECOND)


def _check_waiting(session: Session, caller: Caller, jobs: int) -> None:
    waiting = select(func.count()).where(Job.owner == caller.owner, Job.status == "pending")
    if (session.scalar(waiting) or 0) + jobs > caller.quota_waiting_jobs:
        message = f"This key may have {caller.quota_waiting_jobs} jobs waiting. Send more when some are done."
        raise errors.QuotaExceeded(message, retry_after_s=WAIT_S)


def _check_audio(session: Session, caller: Caller, wanted_s: float) -> None:
    probed_s = Job.audio["duration"].as_float()
    audio_s = func.sum(func.coalesce(probed_s, Job.size_bytes / float(USUAL_BYTES_A_SECOND)))
    of_today = (Job.owner == caller.owner, Job.created_at > func.now() - DAY)
    used_s, first = session.execute(select(audio_s, func.min(Job.created_at)).where(*of_today)).one()
    if (used_s or 0) + wanted_s > caller.quota_audio_s_per_day:
        hours, used = caller.quota_audio_s_per_day / 3600, (used_s or 0) / 3600
        message = f"This key may submit {hours:g} hours of audio in 24 hours; {used:.1f} are used. Send this later."
        raise errors.QuotaExceeded(message, retry_after_s=_until_free_s(session, first))


def _until_free_s(session: Session, first: datetime | None) -> int:
    """Until the oldest recording of the window leaves it."""
    now = session.scalar(select(func.now()))
    return max(1, ceil((first + DAY - now).total_seconds())) if first and now else int(DAY.total_seconds())
