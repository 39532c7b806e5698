"""A cancel is true the moment it is answered, in every state; a finish that came first wins."""

import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Event

import pytest

from tests.faults.harness import Sent, Service, note_time, scaled
from tests.processes import is_gone, until

pytestmark = pytest.mark.timeout(scaled(180, 900))
CANCELLED, TOO_LATE = 200, 409


def stays_cancelled(service: Service, job: Sent) -> None:
    assert service.job(job)["status"] == "cancelled"
    assert service.rows("SELECT 1 FROM transcription_results WHERE job_id = :id", id=job.id) == []


def test_fault_15_a_waiting_job_that_is_cancelled_never_begins(service: Service) -> None:
    with service.frozen(service.processes["worker"].pid):
        job = service.submit(times=1)
        until(lambda: service.job(job)["published_at"])
        assert service.cancel(job) == CANCELLED
    service.completed(service.submit())
    stays_cancelled(service, job)
    assert not job.marker.exists()


def test_fault_15_a_job_that_waits_for_its_next_try_is_cancelled(service: Service) -> None:
    job = service.submit(raise_="engine_error")
    until(lambda: service.job(job)["failures"] > 0)
    assert service.cancel(job) == CANCELLED
    service.completed(service.submit_once(raise_="engine_error"))
    stays_cancelled(service, job)


def test_fault_15_a_running_job_stops_between_windows_and_keeps_what_it_has(service: Service) -> None:
    job = service.submit(seconds=300, every=True, sleep=1)
    until(lambda: service.job(job)["position_s"] > 0)
    assert service.cancel(job) == CANCELLED
    cancelled = time.monotonic()
    until(lambda: service.has_said("worker", "attempt.stopped", job))
    note_time(15, "a cancelled job frees its slot between windows", time.monotonic() - cancelled)
    stays_cancelled(service, job)
    segments = service.rows("SELECT 1 FROM transcript_segments WHERE job_id = :id", id=job.id)
    assert 0 < len(segments) < 10
    assert service.job(job)["attempt"] == 1


def test_fault_15_a_cancelled_job_that_hangs_loses_its_child_and_no_other_job(service: Service) -> None:
    job, neighbour = service.submit_once(native_hang=120), service.submit_once(sleep=5)
    for one in (job, neighbour):
        service.begun(one)
    child = service.child_of(job)
    assert service.cancel(job) == CANCELLED
    cancelled = time.monotonic()
    until(lambda: child not in live_children(service), 30)
    note_time(15, "a cancelled job that hangs frees its slot", time.monotonic() - cancelled)
    service.completed(neighbour)
    assert service.counters(neighbour) == (1, 0, 0, 0)
    stays_cancelled(service, job)


def live_children(service: Service) -> list[int]:
    return [pid for pid in service.children("worker") if not is_gone(pid)]


def test_fault_15_a_final_job_cannot_be_cancelled(service: Service) -> None:
    done, dead, cancelled = service.submit(), service.submit(raise_="memory_error"), service.submit(sleep=3)
    assert service.cancel(cancelled) == CANCELLED
    for job, status in ((done, "completed"), (dead, "failed"), (cancelled, "cancelled")):
        assert service.ended(job)["status"] == status
        before = service.job(job)
        assert service.cancel(job) == TOO_LATE
        assert service.job(job) == before


@pytest.mark.parametrize("seed", range(scaled(1, 10)))
def test_fault_15_of_a_cancel_and_a_finish_at_once_exactly_one_wins(service: Service, seed: int) -> None:
    random = Random(seed)
    delays = [random.uniform(0, 0.3) for _ in range(20)]

    def race(delay_s: float) -> tuple[Sent, int]:
        job = service.submit(sleep=0.1)
        until(lambda: service.job(job)["status"] != "pending", 60)
        Event().wait(delay_s)
        return job, service.cancel(job)

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(race, delays))
    for job, answer in outcomes:
        status = service.job(job)["status"]
        assert (answer, status) in ((CANCELLED, "cancelled"), (TOO_LATE, "completed")), f"seed {seed}"
        if answer == CANCELLED:
            stays_cancelled(service, job)
