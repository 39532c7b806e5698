"""/admin: dead letters and the health of every part, for operators."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response, status

from api.deps import Admin, AppSettings, AppStorage, ReadSession, an_admin
from api.present import error_detail, error_list, error_out
from api.problems import documented
from api.schemas import Accepted, AdminHealth, ErrorDetail, ErrorOut, ListOut, Replayed
from api.survey import survey
from database import transaction
from jobs import audit, dead
from telemetry.events import emit

Resolved = Annotated[bool | None, Query(description="`false`: only open ones; `true`: only resolved ones.")]
router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(an_admin)])


@router.get("/health", responses={**documented(401, 403, 429), 503: {"model": AdminHealth}})
def admin_health(request: Request, response: Response, settings: AppSettings, storage: AppStorage) -> AdminHealth:
    """The state of every part. 200 when all is well, 503 with the same body when not."""
    health = survey(settings, storage, request.app.state.admission)
    if health.status != "ok":
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return health


@router.get("/errors", responses=documented(401, 403, 404, 422, 429, 503))
def list_errors(
    session: ReadSession,
    resolved: Resolved = None,
    error_type: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[UUID | None, Query(description="`last_id` of the page before.")] = None,
) -> ListOut[ErrorOut]:
    """Dead letters, newest first."""
    return error_list(dead.list_errors(session, resolved=resolved, error_type=error_type, limit=limit, after=after))


@router.post("/errors/replay", status_code=status.HTTP_202_ACCEPTED, responses=documented(401, 403, 422, 429, 503))
def replay_matching(
    admin: Admin, error_type: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Replayed:
    """Replay open dead letters, the oldest first; all, or those of one type."""
    with transaction() as session:
        job_ids = dead.replay_matching(session, error_type=error_type, limit=limit)
        audit.note(session, admin.name, "errors.replayed", error_type or "all", jobs=len(job_ids))
    emit("errors.replayed", jobs=len(job_ids))
    return Replayed(job_ids=job_ids)


@router.get("/errors/{error_id}", responses=documented(401, 403, 404, 422, 429, 503))
def get_error(error_id: UUID, session: ReadSession, settings: AppSettings) -> ErrorDetail:
    """One dead letter with its stack trace and its job."""
    return error_detail(session, dead.get_error(session, error_id), settings)


@router.post(
    "/errors/{error_id}/replay",
    status_code=status.HTTP_202_ACCEPTED,
    responses=documented(401, 403, 404, 409, 422, 429, 503),
)
def replay_error(error_id: UUID, admin: Admin) -> Accepted:
    """Try the job again with every original parameter; the dead letter is resolved."""
    with transaction() as session:
        job = dead.replay(session, error_id)
        audit.note(session, admin.name, "error.replayed", str(error_id), job_id=str(job.id))
    emit("job.replayed", job_id=str(job.id), error_id=str(error_id))
    return Accepted(job_id=job.id, status="pending", status_url=f"/transcribe/{job.id}", created_at=job.created_at)


@router.post("/errors/{error_id}/resolve", responses=documented(401, 403, 404, 422, 429, 503))
def resolve_error(error_id: UUID, admin: Admin) -> ErrorOut:
    """Close a dead letter without trying again. The job stays failed."""
    with transaction() as session:
        audit.note(session, admin.name, "error.resolved", str(error_id))
        return error_out(dead.resolve(session, error_id))
