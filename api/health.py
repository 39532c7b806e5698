"""/health: for load balancers and people; needs no key and shows nothing that a stranger should not know."""

from fastapi import APIRouter, Request, Response, status

import errors
import tasks
from api.schemas import Health, Ready
from api.threads import Threads, in_thread
from config import VERSION
from database import check_db_connection, schema_is_current

router = APIRouter(prefix="/health", tags=["health"])


@router.get("")
def health() -> Health:
    """Whether the database answers; 200 either way."""
    return Health(status="ok" if _database_answers() else "degraded", version=VERSION)


@router.get("/live")
async def live() -> Health:
    """Whether this process answers; asks nobody else."""
    return Health(status="ok", version=VERSION)


@router.get("/ready", responses={503: {"model": Ready}})
async def ready(request: Request, response: Response) -> Ready:
    """Whether everything that a job needs is there: database, its migrations, Redis."""
    threads: Threads = request.app.state.threads  # its own: whatever keeps the others busy, this one answers
    database, redis, migrations = await in_thread(threads.ready, _look, request.app.state.schema_head)
    is_ready = database and redis and migrations
    if not is_ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Ready(status="ready" if is_ready else "not ready", database=database, redis=redis, migrations=migrations)


def _look(schema_head: str | None) -> tuple[bool, bool, bool]:
    database = _database_answers()
    return database, tasks.redis_answers(), database and schema_is_current(schema_head)


def _database_answers() -> bool:
    try:
        check_db_connection()
    except errors.Unavailable:
        return False
    return True
