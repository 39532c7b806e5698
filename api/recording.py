"""GET /transcribe/{job_id}/audio: the recording as it was sent, whole or a range of it, or where the store has it."""

import re
from mimetypes import guess_type
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

import errors
from api.deps import AppStorage, CallerOf, authenticated
from api.files import disposition
from api.problems import documented
from api.threads import Threads, in_thread, pieces_of
from database import transaction
from jobs import read
from models import Job
from storage import Storage

UNKNOWN = "application/octet-stream"
PRESIGNED_S = 3600  # an address of the store is good for so long
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
Redirect = Annotated[
    bool, Query(description="Answer with the store's own address, good for an hour, where it has one (S3).")
]
RangeHeader = Annotated[str | None, Header(alias="Range", description="One range of bytes, such as `bytes=0-1023`.")]
router = APIRouter(prefix="/transcribe", tags=["transcribe"], dependencies=[Depends(authenticated)])
AUDIO = {"content": {UNKNOWN: {"schema": {"type": "string", "format": "binary"}}}}


@router.get(
    "/{job_id}/audio",
    response_class=StreamingResponse,
    responses={
        **documented(401, 404, 409, 416, 422, 429, 500, 503),
        200: {"description": "The recording.", **AUDIO},
        206: {"description": "The range that was asked for.", **AUDIO},
        307: {"description": "Where the store has it (with redirect=true)."},
    },
)
async def get_recording(
    request: Request,
    job_id: UUID,
    storage: AppStorage,
    caller: CallerOf,
    wanted: RangeHeader = None,
    redirect: Redirect = False,  # noqa: FBT002 a query parameter
) -> Response:
    """The recording as it was sent; a range of it for players that seek."""
    threads: Threads = request.app.state.threads
    job = await run_in_threadpool(_job, job_id, caller.scope)
    return await in_thread(threads.storage, _answer, job, storage, wanted, redirect=redirect, threads=threads)


def _job(job_id: UUID, owner: str | None) -> Job:
    with transaction() as session:
        return read.get_job(session, job_id, owner)


def _answer(job: Job, storage: Storage, wanted: str | None, *, redirect: bool, threads: Threads) -> Response:
    if not storage.exists(job.storage_key):
        raise errors.Conflict("The recording is not here: it has yet to be fetched, or was lost.")
    media_type = guess_type(job.filename)[0] or UNKNOWN
    url = redirect and storage.presigned_url(
        job.storage_key, filename=job.filename, media_type=media_type, expires_s=PRESIGNED_S
    )
    if url:
        return RedirectResponse(url, status.HTTP_307_TEMPORARY_REDIRECT)
    return _part(job, storage, wanted, media_type, threads)


def _part(job: Job, storage: Storage, wanted: str | None, media_type: str, threads: Threads) -> StreamingResponse:
    headers = {"Accept-Ranges": "bytes", "Content-Disposition": disposition(job.filename)}
    size = storage.size(job.storage_key)
    start, end, code = 0, size, status.HTTP_200_OK
    if (part := _asked_for(wanted, size)) is not None:
        (start, end), code = part, status.HTTP_206_PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    pieces = pieces_of(threads.storage, storage.read(job.storage_key, start, end))
    return StreamingResponse(pieces, code, headers, media_type)


def _asked_for(header: str | None, size: int) -> tuple[int, int] | None:
    """RFC 9110, 14.2: the range as [start, end); None: everything, also where the header is none that we know."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
    if start >= end:
        raise errors.RangeRefused(f"The recording has {size} bytes; the range lies outside.")
    return start, end
