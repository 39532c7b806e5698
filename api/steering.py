"""/admin: pauses of queues and callers, cordons of workers, and the log of what operators changed."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

import errors
from api.deps import Admin, AppSettings, ReadSession, an_admin
from api.present import edges
from api.problems import documented
from api.schemas import JOB_ID, MOMENT, ListOut
from database import transaction
from jobs import audit, cordons, pauses, presence
from jobs.read import page_of
from jobs.workers import workers
from telemetry.events import emit

router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(an_admin)])


class PauseWanted(BaseModel):
    """A queue or a caller."""

    model_config = ConfigDict(extra="forbid")

    queue: str | None = Field(None, examples=["transcription.normal"])
    caller: str | None = Field(None, description="Its `owner`; empty: whoever needs no key.", examples=[None])
    reason: str | None = Field(None, max_length=pauses.LONGEST_REASON, examples=["new driver"])


class PauseOut(BaseModel):
    kind: Literal["queue", "caller"] = Field(examples=["queue"])
    name: str = Field(examples=["transcription.normal"])
    paused_at: datetime = Field(examples=[MOMENT])
    paused_by: str = Field(examples=["operator"])
    reason: str | None = Field(examples=["new driver"])


class AuditEntryOut(BaseModel):
    id: UUID = Field(examples=[JOB_ID])
    at: datetime = Field(examples=[MOMENT])
    actor: str = Field(examples=["operator"])
    action: str = Field(examples=["queue.paused"])
    target: str = Field(examples=["transcription.normal"])
    detail: dict[str, Any] = Field(examples=[{"reason": "new driver"}])


class CordonOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    since: datetime = Field(examples=[MOMENT])
    ordered_by: str = Field(examples=["operator"])
    drains: bool = Field(description="It gives back what it runs, too.", examples=[False])


class WorkerOut(BaseModel):
    worker: str = Field(examples=["host:4711.1f2e3d4c"])
    queues: list[str] = Field(examples=[["transcription.high", "transcription.normal"]])
    children: int = Field(examples=[2])
    started_at: datetime = Field(examples=[MOMENT])
    ill: list[dict[str, Any]] = Field(description="Of children that claim no job: code, message, since.", examples=[[]])
    cordon: CordonOut | None = Field(examples=[None])


@router.get("/pauses", responses=documented(401, 403, 429, 503))
def list_pauses(session: ReadSession) -> list[PauseOut]:
    """Queues and callers whose waiting jobs are not begun."""
    return [PauseOut.model_validate(one, from_attributes=True) for one in pauses.pauses(session)]


@router.post("/pauses", responses=documented(400, 401, 403, 422, 429, 503))
def pause(wanted: PauseWanted, caller: Admin) -> PauseOut:
    """Pause a queue or a caller. What runs goes on, what comes is accepted and waits."""
    kind, name = _one(wanted.queue, wanted.caller)
    with transaction() as session:
        found = pauses.pause(session, kind, name, actor=caller.name, reason=wanted.reason)
        shown = PauseOut.model_validate(found, from_attributes=True)
    emit(f"{kind}.paused", **{kind: name})
    return shown


@router.delete("/pauses", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 403, 404, 422, 429, 503))
def resume(
    admin: Admin,
    queue: Annotated[str | None, Query(description="Its name.")] = None,
    caller: Annotated[str | None, Query(description="Its `owner`; empty: whoever needs no key.")] = None,
) -> Response:
    """Begin its waiting jobs again."""
    kind, name = _one(queue, caller)
    with transaction() as session:
        pauses.resume(session, kind, name, actor=admin.name)
    emit(f"{kind}.resumed", **{kind: name})
    return Response(status_code=status.HTTP_204_NO_CONTENT)


def _one(queue: str | None, caller: str | None) -> tuple[str, str]:
    if (queue is None) == (caller is None):
        raise errors.InvalidOption(("queue", "name a queue or a caller, and not both"))
    return (pauses.QUEUE, queue) if queue is not None else (pauses.CALLER, caller or "")


@router.get("/audit", responses=documented(401, 403, 422, 429, 503))
def list_audit(
    session: ReadSession,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[UUID | None, Query(description="`last_id` of the page before.")] = None,
) -> ListOut[AuditEntryOut]:
    """What operators changed, newest first."""
    page = page_of(audit.entries(session, limit=limit + 1, before=after), limit)
    shown = [AuditEntryOut.model_validate(entry, from_attributes=True) for entry in page.rows]
    return ListOut[AuditEntryOut](data=shown, **edges(page))


@router.get("/workers", responses=documented(401, 403, 429, 503))
def list_workers(session: ReadSession, settings: AppSettings) -> list[WorkerOut]:
    """Those that live, with their children: the queues they draw from, and why one claims no job."""
    found = workers(session, within_s=presence.seen_within_s(settings))
    return [WorkerOut.model_validate(one, from_attributes=True) for one in found]


@router.put("/workers/{worker}/cordon", responses=documented(401, 403, 404, 409, 422, 429, 503))
def cordon_worker(
    worker: str,
    admin: Admin,
    drain: Annotated[bool, Query(description="It also gives back what it runs, uncounted.")] = False,  # noqa: FBT002
) -> CordonOut:
    """Have a worker begin no job, within seconds. It goes on living, and its models stay loaded."""
    with transaction() as session:
        found = cordons.cordon(session, worker, drains=drain, actor=admin.name)
        shown = CordonOut.model_validate(found, from_attributes=True)
    emit("worker.cordoned", worker=worker, drains=drain)
    return shown


@router.delete(
    "/workers/{worker}/cordon",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(401, 403, 404, 422, 429, 503),
)
def uncordon_worker(worker: str, admin: Admin) -> Response:
    """Let it begin jobs again."""
    with transaction() as session:
        cordons.uncordon(session, worker, actor=admin.name)
    emit("worker.uncordoned", worker=worker)
    return Response(status_code=status.HTTP_204_NO_CONTENT)
