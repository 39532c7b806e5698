"""`jobs`: those that there are, one with its history, and an operator's push for one that does not get on."""

import argparse
import sys
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

import errors
from admin.commands import Commands, add_command, add_group, positive, print_fields, print_json, print_table
from database import transaction
from jobs import read
from jobs.requeue import requeue
from jobs.states import Status
from models import Job, JobEvent

SOME = 20
COLUMNS = ("ID", "STATUS", "PRIORITY", "MODEL", "CREATED", "ATTEMPT", "DONE", "ERROR", "FILE")
SHOWN = (
    "id status priority filename size_bytes model_size task language options owner batch_id request_id created_at "
    "run_at queue published_at started_at completed_at attempt failures losses infra_losses retrying claimed_by "
    "lease_until deadline_at progress position_s model_used error_code error_message"
).split()  # never source_url, webhook_url or metadata: callers put secrets there
LONGEST_NAME = 40  # characters of a file name in a table
DONE = {
    Status.PENDING: "is rung again at once",
    Status.PROCESSING: "is taken from its worker, uncounted, and goes on from its last checkpoint",
    Status.FAILED: "is tried again; its dead letter is resolved",
}
_ID = "0b7c0e1e-5f5e-4b57-9d0e-2a7b4e3f8c11"


def add(groups: Commands) -> None:
    commands = add_group(groups, "jobs", about="jobs: what they do, and a push for one that does not get on")
    listed = add_command(commands, "list", _list, about="newest first", example="jobs list --status processing")
    listed.add_argument("--status", choices=[status.value for status in Status], help="only these")
    listed.add_argument("--limit", type=positive, default=SOME, metavar="N", help=f"so many at most; default {SOME}")
    shown = add_command(commands, "show", _show, about="one job with its history", example=f"jobs show {_ID}")
    shown.add_argument("id", type=UUID, metavar="ID")
    pushed = add_command(
        commands,
        "requeue",
        _requeue,
        about="have jobs tried now: waiting ones without a delay, running ones by another worker, failed ones again",
        example=f"jobs requeue {_ID}",
    )
    pushed.add_argument("ids", type=UUID, nargs="+", metavar="ID")


def as_shown(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in SHOWN}


def _list(asked: argparse.Namespace) -> None:
    with transaction() as session:
        page = read.list_jobs(session, read.JobFilter(status=asked.status), limit=asked.limit, after=None)
    if asked.json:
        print_json([as_shown(job) for job in page.rows])
        return
    print_table(COLUMNS, [_row(job) for job in page.rows])
    if page.has_more:
        print(f"There are more than these {len(page.rows)}: --limit.", file=sys.stderr)


def _row(job: Job) -> tuple[object, ...]:
    about = (job.id, job.status, job.priority, job.model_size, job.created_at, job.attempt)
    return (*about, f"{job.progress:.0f} %", job.error_code, job.filename[:LONGEST_NAME])


def _show(asked: argparse.Namespace) -> None:
    with transaction() as session:
        job, events = as_shown(read.get_job(session, asked.id)), _history(session, asked.id)
    if asked.json:
        print_json(job | {"history": events})
        return
    print_fields(job)
    print("\nHistory")
    print_table(("AT", "ATTEMPT", "FROM", "TO", "DETAIL"), [tuple(event.values()) for event in events])


def _history(session: Session, job_id: UUID) -> list[dict[str, Any]]:
    events = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id))
    return [
        {"at": one.at, "attempt": one.attempt, "from": one.from_status, "to": one.to_status, "detail": one.detail}
        for one in events
    ]


def _requeue(asked: argparse.Namespace) -> int:
    """Each on its own: what one refuses does not hold up the others."""
    done: dict[UUID, Status] = {}
    for job_id in asked.ids:
        try:
            done[job_id] = requeue(job_id)
        except (errors.NotFound, errors.Conflict) as reason:
            print(f"{job_id}: {reason}", file=sys.stderr)
    if asked.json:
        print_json([{"id": job_id, "was": was} for job_id, was in done.items()])
    else:
        for job_id, was in done.items():
            print(f"{job_id} {DONE[was]}.")
    return int(len(done) < len(set(asked.ids)))
