"""transcribe list: many jobs, newest first, in as many pages as it takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from transcribe_client import tables
from transcribe_client.api import Job
from transcribe_client.commands import command
from transcribe_client.jobs import length_of
from transcribe_client.options import Priority
from transcribe_client.session import Session
from transcribe_client.wording import ago, moment, moment_of

PAGE = 100  # the longest that the service gives


class Status(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Filter:
    status: Annotated[Status | None, typer.Option("--status", "-s", help="Only jobs of this status.")] = None
    priority: Annotated[Priority | None, typer.Option(help="Only jobs of this priority.")] = None
    language: Annotated[str | None, typer.Option("--language", "-l", help="As asked for, or as detected.")] = None
    q: Annotated[str | None, typer.Option("-q", "--query", help="Part of the file name.")] = None
    since: Annotated[str | None, typer.Option(help="Submitted after: 2h, 7d, 2026-01-31, 2026-01-31T09:30.")] = None
    until: Annotated[str | None, typer.Option(help="Submitted before.")] = None

    def parameters(self) -> dict[str, str | None]:
        """As the API has them. Raises Misuse."""
        return {
            "status": self.status,
            "priority": self.priority,
            "language": self.language,
            "q": self.q,
            "created_after": None if self.since is None else moment_of(self.since).isoformat(),
            "created_before": None if self.until is None else moment_of(self.until).isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Extent:
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 20
    every: Annotated[bool, typer.Option("--all", help="All that match, however many.")] = False


def register(app: typer.Typer) -> None:
    examples = (
        "transcribe list",
        "transcribe list --status failed --since 2h",
        "transcribe list -q meeting --since 2026-01-01 --until 2026-02-01 --all",
        "transcribe list --status pending --all | cut -f1 | xargs transcribe cancel",
    )
    command(app, "list", examples=examples)(show)


def show(session: Session, wanted: Filter, extent: Extent) -> None:
    """List jobs, newest first. Every filter narrows."""
    jobs = list(pages(session, "/jobs/", extent, **wanted.parameters()))
    if session.as_json:
        session.put_json(jobs)
        return
    columns = ("job", "status", "file", "length", "language", "model", "submitted")
    tables.put(session.out, columns, map(_row, jobs))
    if not jobs:
        session.say("No job matches.")


def _row(job: Job) -> Sequence[object]:
    standing = f"{job['progress']:.0f} %" if job["status"] == "processing" else job["status"]
    model, submitted = job["model_used"] or job["model_size"], ago(moment(job["created_at"]))
    return job["job_id"], standing, job["filename"], length_of(job) or "", job["language"] or "", model, submitted


def pages(session: Session, path: str, extent: Extent, **wanted: object) -> Iterator[dict[str, Any]]:
    """The rows of a list, newest first."""
    after, left = None, None if extent.every else extent.limit
    while left is None or left > 0:
        page = session.api.get(path, limit=min(PAGE, left or PAGE), after=after, **wanted)
        yield from page["data"]
        if not page["has_more"]:
            return
        after, left = page["last_id"], None if left is None else left - len(page["data"])
