"""A caller with five hundred recordings does not push out one with five, even with one slot (fault 17)."""

import time
from collections.abc import Iterator

import httpx
import pytest

from access import keys
from config import Settings
from tests.faults.harness import Sent, Service, note_time, scaled

pytestmark = [pytest.mark.timeout(scaled(240, 1800)), pytest.mark.xdist_group("one slot")]
SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
LONG_S, WORK_S = 120.0, 0.05


@pytest.fixture(scope="module", autouse=True)
def one_slot(running: Service) -> Iterator[None]:
    with running.changed("worker", CELERY_CONCURRENCY=1), running.changed("api", SECRET_KEY=SECRET):
        yield


def caller(service: Service, name: str) -> httpx.Client:
    with service.session() as session:
        _, token = keys.create(session, keys.KeyRequest(name), Settings(secret_key=SECRET))
        session.commit()
    return httpx.Client(base_url=service.url, headers={"X-API-Key": token}, timeout=30)


def test_fault_17_five_recordings_do_not_wait_behind_five_hundred_of_another_caller(service: Service) -> None:
    with caller(service, "many") as many, caller(service, "few") as few:
        flood = [service.submit(http=many, sleep=WORK_S) for _ in range(scaled(60, 500))]
        submitted = time.monotonic()
        mine = [service.submit(http=few, sleep=WORK_S) for _ in range(5)]
        service.completed(*mine, within_s=LONG_S)
    note_time(17, f"5 jobs of one caller beside {len(flood)} of another, one slot", time.monotonic() - submitted)
    assert begun_between(service, flood, mine) <= 5 + 2 * 4 + 2, "their turns, two windows, what was at work"
    service.completed(*flood, within_s=scaled(120, 1500))


def begun_between(service: Service, flood: list[Sent], mine: list[Sent]) -> int:
    """How many of the flood were begun after the last of mine came, and before the last of mine was begun."""
    begun = {
        row["id"]: (row["created_at"], row["started_at"])
        for row in service.rows("SELECT id, created_at, started_at FROM transcription_jobs")
    }
    came, last = max(begun[job.id][0] for job in mine), max(begun[job.id][1] for job in mine)
    starts = (begun[job.id][1] for job in flood)
    return sum(1 for start in starts if start is not None and came < start < last)
