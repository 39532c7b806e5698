"""Redis may be flushed, killed, cut, frozen or empty: that costs latency, never a job, and no submit waits for it."""

import shutil
import time
from random import Random
from statistics import median
from threading import Event

import pytest

from tests.faults.harness import Sent, Service, note_time, scaled
from tests.processes import until

pytestmark = pytest.mark.timeout(scaled(300, 900))


def test_fault_4_a_flushed_redis_forgets_no_job(service: Service) -> None:
    running = [service.submit_once(sleep=2) for _ in range(2)]
    for job in running:
        service.begun(job)
    queued = [service.submit() for _ in range(8)]
    until(lambda: all(service.job(job)["published_at"] for job in queued[:4]))
    service.bells().flushall()
    flushed = time.monotonic()
    service.completed(*running, *queued)
    note_time(4, "FLUSHALL with 2 jobs running and 8 queued", time.monotonic() - flushed)
    assert {service.counters(job) for job in (*running, *queued)} == {(1, 0, 0, 0)}


def kill_redis(service: Service, away_s: float) -> Sent:
    """kill -9, away for a while, back without its data. Returns what was submitted meanwhile."""
    service.redis.kill()
    meanwhile = service.submit()
    Event().wait(away_s)
    shutil.rmtree(service.redis.folder)
    service.redis.start()
    return meanwhile


def test_fault_5_a_redis_that_is_killed_again_and_again_and_comes_back_empty_loses_nothing(service: Service) -> None:
    jobs = []
    for round_ in range(scaled(2, 10)):
        running = service.submit_once(sleep=1)
        service.begun(running)
        meanwhile = kill_redis(service, away_s=scaled(1, 10))
        back = time.monotonic()
        jobs += [running, meanwhile]
        service.completed(meanwhile)
        note_time(5, f"Redis killed and back empty, round {round_ + 1}", time.monotonic() - back)
    service.completed(*jobs)
    assert {service.counters(job) for job in jobs} == {(1, 0, 0, 0)}
    assert service.processes["worker"].is_running()


@pytest.mark.parametrize("seed", range(scaled(1, 10)))
def test_fault_6_connections_to_redis_cut_mid_job_make_no_second_attempt(service: Service, seed: int) -> None:
    jobs = [service.submit_once(sleep=2) for _ in range(2)]
    for job in jobs:
        service.begun(job)
    Event().wait(Random(seed).uniform(0, 1))
    service.cut_redis()
    cut = time.monotonic()
    after = service.submit()
    service.completed(*jobs, after)
    note_time(6, "every connection to Redis cut", time.monotonic() - cut)
    assert [service.counters(job) for job in jobs] == [(1, 0, 0, 0)] * 2


def submit_s(service: Service) -> float:
    started = time.monotonic()
    service.submit()
    return time.monotonic() - started


def test_fault_7_a_frozen_redis_delays_no_submit(service: Service) -> None:
    running = service.submit_once(sleep=2)
    service.begun(running)
    before = [submit_s(service) for _ in range(10)]
    with service.frozen(service.redis.pid):
        frozen = time.monotonic()
        during = [submit_s(service) for _ in range(10)]
        Event().wait(scaled(5, 60) - (time.monotonic() - frozen))
    thawed = time.monotonic()
    assert median(during) < 3 * median(before) + 0.3, (before, during)
    assert service.counters(running) == (1, 0, 0, 0)
    service.completed(service.submit())
    note_time(7, "Redis frozen", time.monotonic() - thawed)
    assert service.http.get("/health/ready").status_code == 200


def test_fault_7_a_worker_ends_its_job_while_redis_is_frozen(service: Service) -> None:
    job = service.submit_once(sleep=1)
    service.begun(job)
    with service.frozen(service.redis.pid):
        service.completed(job)
    assert service.processes["worker"].is_running()
