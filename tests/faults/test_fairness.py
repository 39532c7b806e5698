"""Nothing starves, even with one slot. That no caller pushes another out: test_callers.py."""

import time
from collections.abc import Iterator

import pytest

from tests.faults.harness import Service, note_time, scaled

pytestmark = [pytest.mark.timeout(scaled(240, 1200)), pytest.mark.xdist_group("one slot")]


@pytest.fixture(scope="module", autouse=True)
def one_slot(running: Service) -> Iterator[None]:
    with running.changed("worker", CELERY_CONCURRENCY=1):
        yield


def test_fault_17_a_normal_job_is_done_before_the_end_of_a_flood_of_high_ones(service: Service) -> None:
    flood = [service.submit(sleep=0.4, options={"priority": "high"}) for _ in range(scaled(30, 200))]
    normal = service.submit()
    submitted = time.monotonic()
    service.completed(normal)
    note_time(17, "a normal job behind a flood of high ones, promoted after 3 s", time.monotonic() - submitted)
    assert any(service.job(job)["status"] == "pending" for job in flood), "it came last"
    service.completed(*flood, within_s=scaled(60, 600))


def test_fault_17_an_urgent_job_does_not_wait_for_a_backlog_of_normal_ones(service: Service) -> None:
    backlog = [service.submit() for _ in range(scaled(10, 500))]
    urgent = service.submit(options={"priority": "high"})
    submitted = time.monotonic()
    service.completed(urgent)
    note_time(17, "a high job behind a backlog of normal ones", time.monotonic() - submitted)
    assert any(service.job(job)["status"] == "pending" for job in backlog), "it came last"
    service.completed(*backlog, within_s=scaled(60, 1000))
