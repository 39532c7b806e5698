"""GET /batches/{batch_id}: how the jobs of one batch stand."""

from collections import Counter
from uuid import UUID

from fastapi import APIRouter, Depends

from api.deps import AppSettings, ReadSession, require_key
from api.present import job_summary
from api.problems import documented
from api.schemas import BatchOut, RequestCounts
from jobs import read
from jobs.states import Status

router = APIRouter(prefix="/batches", tags=["transcribe"], dependencies=[Depends(require_key)])


@router.get("/{batch_id}", responses=documented(401, 404, 503))
def get_batch(batch_id: UUID, session: ReadSession, settings: AppSettings) -> BatchOut:
    """Counts and jobs of a batch; `completed` when none of its jobs can change any more."""
    batch, jobs = read.batch_jobs(session, batch_id)
    counts = Counter(Status(job.status) for job in jobs)
    return BatchOut(
        batch_id=batch.id,
        status="completed" if all(status.is_final for status in counts) else "processing",
        created_at=batch.created_at,
        request_counts=RequestCounts(
            total=len(jobs),
            completed=counts[Status.COMPLETED],
            failed=counts[Status.FAILED],
            cancelled=counts[Status.CANCELLED],
        ),
        jobs=[job_summary(job, settings) for job in jobs],
        errors=batch.refused,
    )
