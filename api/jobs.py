"""GET /jobs/: the list of jobs, newest first, in keyset pages."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.deps import AppSettings, CallerOf, ReadSession, authenticated
from api.present import job_list
from api.problems import documented
from api.schemas import JobQuery, JobSummary, ListOut
from jobs import read
from jobs.read import JobFilter

router = APIRouter(prefix="/jobs", tags=["jobs"], dependencies=[Depends(authenticated)])


@router.get("/", responses=documented(401, 404, 422, 429, 503))
def list_jobs(
    session: ReadSession,
    settings: AppSettings,
    caller: CallerOf,
    query: Annotated[JobQuery, Query()],
) -> ListOut[JobSummary]:
    """Jobs, newest first. Every filter narrows; `after` continues where a page ended."""
    wanted = JobFilter(**query.model_dump(exclude={"limit", "after"}), owner=caller.scope)
    return job_list(session, read.list_jobs(session, wanted, limit=query.limit, after=query.after), settings)
