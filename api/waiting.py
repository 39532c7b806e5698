"""A request that becomes a job of high priority and waits for it, without a thread or a database connection.

The job is as durable as any other: a client that goes away does not cancel it, and finds it again (jobs/attach.py).
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from fastapi import Request

import errors
from access import quota
from api.deps import AppSettings, AppStorage, CallerOf
from api.submit import KeyHeader
from api.uploads import Form, kept_if_new
from api.watch import Changes, Watchers
from database import transaction
from jobs import attach, read
from jobs.states import FINAL
from jobs.submit import JobRequest, Upload, submit
from models import Job, Result, SegmentRow
from telemetry.events import emit

HEARTBEAT_S = 15.0  # so often a stream says that it is alive, and a request looks whether its client still is
LEFT = 499  # for the log alone: nobody reads it
Following = AsyncGenerator[Changes | None, None]


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and what it takes to make a job of it."""

    request: Request
    settings: AppSettings
    storage: AppStorage
    caller: CallerOf
    idempotency_key: KeyHeader = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that is final, with all its segments."""

    job: Job
    segments: list[SegmentRow]


async def accept(call: Call, form: Form, ask: Callable[[], tuple[Upload, JobRequest]]) -> UUID:
    """The job to wait for: new, or that of an equal request. `ask` raises Refused where it cannot be."""
    insert = partial(_attach_or_insert, call, ask)
    job, is_new = await kept_if_new(call.request, form, call.storage, insert)
    if is_new:
        emit("job.accepted", job_id=str(job.id), bytes=job.size_bytes, priority=job.priority)
    else:
        emit("job.attached", job_id=str(job.id))
    return job.id


def _attach_or_insert(call: Call, ask: Callable[[], tuple[Upload, JobRequest]]) -> tuple[Job, bool]:
    upload, wanted = ask()
    owner = call.caller.owner
    same = attach.sameness(owner, upload.sha256, wanted, call.idempotency_key)
    with transaction() as session:
        if (job := attach.find(session, same)) is not None:
            return job, False
        quota.check(session, call.caller, jobs=1, size_bytes=upload.size_bytes)
        request_id = call.request.scope["request_id"]
        return submit(session, upload, wanted, owner=owner, request_id=request_id, attach_key=same.key), True


def follow(call: Call, job_id: UUID) -> Following:
    watchers: Watchers = call.request.app.state.watchers
    return watchers.follow(job_id, call.caller.scope, heartbeat_s=HEARTBEAT_S)


async def ended(call: Call, changes: Following) -> Ended | None:
    """The end of the job; None where its client has left before."""
    job: Job | None = None
    segments: list[SegmentRow] = []
    async with aclosing(changes):
        async for change in changes:
            if await call.request.is_disconnected():
                return None
            if change is not None:
                job = change.job
                segments += change.segments
    return Ended(final(job), segments)


def final(job: Job | None) -> Job:
    if job is None or job.status not in FINAL:
        raise broken_off()
    return job


def broken_off() -> errors.Unavailable:
    """The process stops, or somebody has deleted the job."""
    return errors.Unavailable("The service is about to restart. Send the same request again: it goes on with its job.")


def take_result(job_id: UUID) -> Result:
    """For a client that is there to get it: the next request of this kind is a job of its own."""
    with transaction() as session:
        attach.mark_answered(session, job_id)
        result = read.get_result(session, job_id)
    if result is None:
        raise broken_off()
    return result
