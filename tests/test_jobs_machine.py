"""Three workers, one relay and a caller do what they like in any order, on the real database: the books always balance.

A Hypothesis state machine with a model of a few lines: who holds a job, and how often it was claimed. Workers keep
every fence they ever had and go on writing with it, as a child that was stopped for a while would.
"""

import os
import uuid
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import text

import errors
from config import Settings
from database import transaction
from jobs import claim as claims
from jobs import dead
from jobs.cancel import cancel, purge
from jobs.progress import Fence, _renewal
from jobs.retry import Cause
from jobs.states import FINAL, Status
from tests.checker import (
    check_invariants,
    expire,
    job_now,
    letters_of,
    new_job,
    result_of,
    sign_in,
    wait_over,
    worker_falls_silent,
)

LONG = os.environ.get("FAULTS") == "long"
EXAMPLES = 300 if LONG else 12
PHASES = list(Phase) if LONG else [Phase.generate]  # to find the shortest history that fails takes minutes
WORKERS = ("one:1:1", "one:1:2", "two:1:1")  # the first two are children of one worker
workers = st.sampled_from(WORKERS)
endings = st.sampled_from(
    [
        (RuntimeError("x"), Cause.FAILURE),
        (errors.NoAudioStream("x"), Cause.FAILURE),
        (MemoryError(), Cause.LOSS),
        (errors.DeadlinePassed("x"), Cause.LOSS),
    ]
)


@dataclass
class Known:
    """What the model says about a job."""

    status: Status = Status.PENDING
    attempt: int = 0


class Life(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    fences = Bundle("fences")

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.known: dict[uuid.UUID, Known] = {}
        with transaction() as session:
            session.execute(text("TRUNCATE transcription_jobs, processes CASCADE"))
        for worker in WORKERS:
            sign_in(worker)

    def is_current(self, fence: Fence) -> bool:
        known = self.known.get(fence.job_id)
        return known is not None and (known.status, known.attempt) == (Status.PROCESSING, fence.attempt)

    def comes_to(self, job_id: uuid.UUID, *statuses: Status) -> None:
        """The job must be in one of these; which one is for `retry.plan` to say, and for its own tests to check."""
        status = Status(job_now(job_id).status)
        assert status in statuses, f"{status}, not one of {statuses}"
        self.known[job_id].status = status

    @rule(target=jobs, priority=st.sampled_from(["high", "normal"]))
    def submit(self, priority: str) -> uuid.UUID:
        job_id = new_job(priority=priority)
        self.known[job_id] = Known()
        return job_id

    @rule(target=fences, job_id=jobs, worker=workers)
    def claim(self, job_id: uuid.UUID, worker: str) -> object:
        known = self.known.get(job_id)
        waits = known is not None and known.status is Status.PENDING
        if waits:
            wait_over(job_id)
        claimed = claims.claim(job_id, claimed_by=worker, settings=self.settings)
        assert (claimed is not None) == waits
        if claimed is None or known is None:
            return multiple()
        known.status, known.attempt = Status.PROCESSING, known.attempt + 1
        assert claimed.fence.attempt == known.attempt
        return claimed.fence

    @rule(job_id=jobs)
    def claim_too_early(self, job_id: uuid.UUID) -> None:
        with transaction() as session:
            session.execute(
                text("UPDATE transcription_jobs SET run_at = now() + interval '1 h' WHERE id = :id"), {"id": job_id}
            )
        assert claims.claim(job_id, claimed_by=WORKERS[0], settings=self.settings) is None

    @rule(fence=fences)
    def heartbeat(self, fence: Fence) -> None:
        with transaction() as session:
            renewed = session.scalar(_renewal(fence, self.settings.lease_seconds, 0))
        assert (renewed is not None) == self.is_current(fence)

    @rule(fence=fences)
    def finish(self, fence: Fence) -> None:
        current = self.is_current(fence)
        assert claims.finish(fence, result_of(fence), patience_s=5) == current
        if current:
            self.comes_to(fence.job_id, Status.COMPLETED)

    @rule(fence=fences, ending=endings)
    def fail(self, fence: Fence, ending: tuple[BaseException, Cause]) -> None:
        current = self.is_current(fence)
        error, cause = ending
        assert claims.fail(fence, error, self.settings, cause=cause, worker=WORKERS[0]) == current
        if current:
            self.comes_to(fence.job_id, Status.PENDING, Status.FAILED)

    @rule(fence=fences)
    def release(self, fence: Fence) -> None:
        current = self.is_current(fence)
        assert claims.release(fence, reason="drained", patience_s=5) == current
        if current:
            self.comes_to(fence.job_id, Status.PENDING)

    @rule(job_id=jobs)
    def worker_dies(self, job_id: uuid.UUID) -> None:
        known = self.known.get(job_id)
        running = known is not None and known.status is Status.PROCESSING
        if running:
            worker_falls_silent(job_id)
        assert expire(self.settings) == running, "no other lease has run out"
        if running:
            self.comes_to(job_id, Status.PENDING, Status.FAILED)

    @rule(job_id=jobs)
    def cancel(self, job_id: uuid.UUID) -> None:
        known = self.known.get(job_id)
        try:
            with transaction() as session:
                cancel(session, job_id)
        except (errors.Conflict, errors.NotFound):
            assert known is None or known.status in FINAL
        else:
            self.comes_to(job_id, Status.CANCELLED)

    @rule(job_id=jobs)
    def replay(self, job_id: uuid.UUID) -> None:
        known = self.known.get(job_id)
        for letter in letters_of(job_id):
            try:
                with transaction() as session:
                    dead.replay(session, letter.id)
            except errors.Conflict:
                assert known is None or known.status is not Status.FAILED
            else:
                self.comes_to(job_id, Status.PENDING)

    @rule(job_id=jobs)
    def resolve(self, job_id: uuid.UUID) -> None:
        for letter in letters_of(job_id):
            with transaction() as session:
                dead.resolve(session, letter.id)

    @rule(job_id=jobs)
    def purge(self, job_id: uuid.UUID) -> None:
        known = self.known.get(job_id)
        try:
            with transaction() as session:
                purge(session, job_id)
        except (errors.Conflict, errors.NotFound):
            assert known is None or known.status not in FINAL
        else:
            assert known is not None
            assert known.status in FINAL
            del self.known[job_id]

    @invariant()
    def the_books_balance(self) -> None:
        with transaction() as session:
            check_invariants(session)

    @invariant()
    def the_model_is_right(self) -> None:
        for job_id, known in self.known.items():
            job = job_now(job_id)
            assert (job.status, job.attempt) == (known.status, known.attempt)


@pytest.mark.timeout(3600 if LONG else 300)
def test_whatever_order_they_come_in_nothing_is_lost_and_nobody_writes_what_is_not_his(database: Settings) -> None:
    settings = database.model_copy(update={"max_failures": 2, "max_losses": 2, "max_infra_losses": 2})
    how = hypothesis_settings(
        max_examples=EXAMPLES,
        stateful_step_count=40,
        phases=PHASES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: Life(settings), settings=how)  # type: ignore[arg-type]
