"""A worker that cannot work gives its jobs back uncounted, rests, says why, and does not draw every job to itself."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import Sent, Service, note_time, scaled, storage_away
from tests.processes import until

pytestmark = pytest.mark.timeout(180)


def ill(service: Service) -> list[dict[str, Any]]:
    """As /admin/health tells it."""
    found: list[dict[str, Any]] = service.http.get("/admin/health").json()["workers"]["ill"]
    return found


def blameless(service: Service, *jobs: Sent) -> None:
    """However often they were tried, nothing was counted, and no dead letter was written."""
    assert {service.counters(job)[1:] for job in jobs} == {(0, 0, 0)}
    assert not service.rows("SELECT * FROM error_logs")


def test_fault_21_a_storage_that_is_away_makes_no_dead_letter_and_all_is_done_when_it_is_back(service: Service) -> None:
    jobs = [service.submit(sleep=0.3) for _ in range(12)]
    with storage_away(service):
        gone = time.monotonic()
        until(lambda: len(ill(service)) == 2)  # the isolated one has nothing to do
        assert {one["code"] for one in ill(service)} == {"storage_away"}
        assert service.try_submit() is None, "an upload would lie below the mount point"
        assert service.refusals[-1].json()["code"] == "storage_away"
        time.sleep(max(0.0, gone + scaled(6, 60) - time.monotonic()))
    back = time.monotonic()
    service.completed(*jobs, service.submit())
    note_time(21, "the storage away for a while: all is done", time.monotonic() - back)
    blameless(service, *jobs)
    until(lambda: ill(service) == [])


def test_fault_22_a_worker_whose_volume_is_not_mounted_leaves_the_jobs_to_the_others(
    service: Service, tmp_path: Path
) -> None:
    (tmp_path / "audio").mkdir()
    service.restart("worker-2", DATA_DIR=tmp_path)
    jobs = [service.submit(sleep=0.1) for _ in range(20)]
    service.completed(*jobs)
    blameless(service, *jobs)
    assert any(service.counters(job)[0] > 1 for job in jobs), "the worker without a volume never took one"
    main = service.processes["worker-2"].pid
    until(lambda: ill(service))
    assert {(one["worker"].split(":")[1].partition(".")[0], one["code"]) for one in ill(service)} == {
        (str(main), "storage_away")
    }
    assert not list(tmp_path.rglob("*.part"))
    assert not any((tmp_path / "audio").iterdir())


def test_fault_23_a_worker_without_its_model_files_leaves_the_jobs_to_the_others(
    service: Service, tmp_path: Path
) -> None:
    service.restart("worker-2", MODEL_DOWNLOAD="false", MODEL_CACHE_DIR=tmp_path)
    jobs = [service.submit(sleep=0.1) for _ in range(20)]
    service.completed(*jobs)
    blameless(service, *jobs)
    assert any(service.counters(job)[0] > 1 for job in jobs), "the worker without models never took one"
    until(lambda: {one["code"] for one in ill(service)} == {"model_unavailable"})


def test_forty_retries_that_are_due_are_done_by_all_children_and_not_by_the_isolated_one(service: Service) -> None:
    jobs = [service.submit(raise_="engine_error", times=1) for _ in range(scaled(12, 40))]
    service.completed(*jobs)
    assert {service.counters(job) for job in jobs} == {(2, 1, 0, 0)}
    told = service.rows("SELECT DISTINCT detail->>'claimed_by' AS child FROM job_events WHERE attempt = 2")
    isolated = {str(pid) for pid in service.children("worker-retry")}
    children = {row["child"].rpartition(":")[2] for row in told if row["child"]}
    assert len(children) == 2
    assert not children & isolated
