"""Random faults, one after the other, while callers submit: at the end nothing is lost, stuck or there twice."""

import time

import pytest

from tests.faults import books
from tests.faults.harness import Service, note_time, scaled
from tests.faults.storm import Callers, Storm

pytestmark = pytest.mark.timeout(scaled(240, 1200))


@pytest.mark.parametrize("seed", range(scaled(1, 3)))
def test_fault_20_after_a_storm_of_random_faults_the_books_balance(service: Service, seed: int) -> None:
    callers, storm = Callers(service, seed), Storm(service, seed)
    callers.start()
    try:
        storm.rage(scaled(15, 300))
    finally:
        callers.stop()
    storm.revive()
    over = time.monotonic()
    books.check(service, within_s=120)
    note_time(20, f"{len(storm.log)} random faults, {len(service.accepted)} jobs: all quiet", time.monotonic() - over)
    failed = service.rows("SELECT id, error_code, losses FROM transcription_jobs WHERE status = 'failed'")
    innocent = [row for row in failed if row["id"] in service.accepted - callers.poison]
    cancelled = {row["id"] for row in service.rows("SELECT id FROM transcription_jobs WHERE status = 'cancelled'")}
    story = f"seed {seed}: {storm.log}"
    assert all(row["id"] in callers.hungry and row["losses"] == 2 for row in innocent), (story, innocent)
    assert callers.cancelled <= cancelled, story
    assert len(service.accepted) >= scaled(10, 100), story
