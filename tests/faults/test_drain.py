"""A deploy costs no attempt: SIGTERM gives jobs back between windows, SIGKILL is covered by the lease."""

import signal
import time
from typing import Any

import pytest

from tests.faults.harness import Sent, Service, note_time
from tests.processes import until

pytestmark = pytest.mark.timeout(180)
LENGTH_S = 140  # of the recording: several windows


def segments(service: Service, job: Sent) -> list[dict[str, Any]]:
    statement = 'SELECT number, start, "end", text FROM transcript_segments WHERE job_id = :id ORDER BY number'
    return service.rows(statement, id=job.id)


def test_fault_18_a_worker_that_is_told_to_stop_gives_its_jobs_back_and_they_go_on(service: Service) -> None:
    undisturbed = service.submit(seconds=LENGTH_S, every=True)
    service.completed(undisturbed)
    jobs = [service.submit(seconds=LENGTH_S, every=True, sleep=0.7) for _ in range(2)]
    for job in jobs:
        until(lambda job=job: segments(service, job))  # type: ignore[misc]
    told = service.signal("worker", signal.SIGTERM)
    until(lambda: not service.processes["worker"].is_running())
    note_time(18, "SIGTERM: the worker has left", time.monotonic() - told)
    assert service.processes["worker"].exit_code == 0
    assert [(service.job(job)["status"], service.counters(job)) for job in jobs] == [("pending", (1, 0, 0, 0))] * 2
    before = [segments(service, job) for job in jobs]
    service.restart("worker")
    service.completed(*jobs)
    assert [service.counters(job) for job in jobs] == [(2, 0, 0, 0)] * 2
    for job, kept in zip(jobs, before, strict=True):
        assert segments(service, job)[: len(kept)] == kept
        assert segments(service, job) == segments(service, undisturbed)


def test_fault_18_a_worker_that_is_killed_while_it_stops_loses_nothing(service: Service) -> None:
    job = service.submit_once(native_hang=120)
    service.begun(job)
    service.signal("worker", signal.SIGTERM)
    until(lambda: service.has_said("worker", "Warm shutdown") or not service.processes["worker"].is_running(), 10)
    killed = service.signal("worker", signal.SIGKILL)
    service.restart("worker")
    service.completed(job)
    note_time(18, "SIGTERM, then SIGKILL", time.monotonic() - killed)
    assert service.counters(job) == (2, 0, 0, 1)


def test_a_drained_worker_gives_its_jobs_back_uncounted_begins_none_and_lives_on(service: Service) -> None:
    service.restart("worker-2")
    drained = service.processes["worker"].pid
    workers = {str(row["worker"]) for row in service.rows("SELECT worker FROM processes WHERE kind = 'worker'")}
    (name,) = (worker for worker in workers if f":{drained}." in worker)
    jobs = [service.submit(seconds=90, every=True, sleep=0.5) for _ in range(4)]
    until(lambda: {service.job(job)["status"] for job in jobs} == {"processing"})
    assert service.http.put(f"/admin/workers/{name}/cordon", params={"drain": True}).status_code == 200
    until(lambda: not any(f":{drained}." in str(service.job(job)["claimed_by"]) for job in jobs))
    more = [service.submit() for _ in range(6)]
    service.completed(*more, *jobs)
    begun = service.rows("SELECT detail->>'claimed_by' AS child, at FROM job_events WHERE to_status = 'processing'")
    assert service.children("worker")
    assert {service.counters(job)[1:] for job in [*jobs, *more]} == {(0, 0, 0)}
    assert service.http.delete(f"/admin/workers/{name}/cordon").status_code == 204
    late = [service.submit(sleep=0.5) for _ in range(8)]
    service.completed(*late)
    again = service.rows("SELECT detail->>'claimed_by' AS child FROM job_events WHERE to_status = 'processing'")
    ours = [sum(f":{drained}." in str(row["child"]) for row in found) for found in (begun, again)]
    assert ours[1] > ours[0], "uncordoned, it begins jobs again"
