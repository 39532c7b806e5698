"""A recording that crashes, hangs or exhausts its worker becomes a dead letter and takes nobody along."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from tests.faults.harness import DEADLINE_S, Sent, Service, note_time, scaled
from tests.processes import until

pytestmark = pytest.mark.timeout(240)
MB = 1024 * 1024


@pytest.fixture(autouse=True)
def mains_survive(service: Service) -> Iterator[None]:
    before = [process.pid for process in service.processes.values()]
    yield
    assert [process.pid for process in service.processes.values()] == before
    assert all(process.is_running() for process in service.processes.values())


def failed(service: Service, job: Sent) -> None:
    """After two losses. Where the isolated child's successor takes longer than a lease, a loss counts as infra."""
    row = service.ended(job)
    assert row["status"] == "failed", row
    attempts, failures, losses, infra = service.counters(job)
    assert (attempts - infra, failures, losses) == (2, 0, 2)


def test_fault_12_a_recording_that_crashes_the_engine_dies_alone_among_twenty_good_ones(service: Service) -> None:
    good = [service.submit() for _ in range(10)]
    poison = service.submit(segfault=True)
    sent = time.monotonic()
    good += [service.submit() for _ in range(10)]
    service.completed(*good)
    note_time(12, "a crashing recording among 20: the others are done", time.monotonic() - sent)
    failed(service, poison)
    note_time(12, "a crashing recording is a dead letter", time.monotonic() - sent)
    assert {service.counters(job)[1:] for job in good} == {(0, 0, 0)}


@contextmanager
def memory_limited(pids: list[int], room_mb: int) -> Iterator[None]:
    """Each may map so much more than it has."""
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + room_mb * MB, psutil.RLIM_INFINITY))
    try:
        yield
    finally:
        for process in processes:
            process.rlimit(psutil.RLIMIT_AS, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


def test_fault_13_a_child_at_its_memory_limit_leaves_its_job_to_the_isolated_worker_and_goes_on(
    service: Service,
) -> None:
    children = service.children("worker")
    with memory_limited(children, room_mb=128):
        job = service.submit(allocate_mb=200)
        sent = time.monotonic()
        service.completed(job)  # by the isolated worker, which has room
        note_time(13, "a recording that takes more memory than its worker has", time.monotonic() - sent)
        assert service.counters(job) == (2, 0, 0, 0)
        assert service.job(job)["error_code"] is None
    service.completed(service.submit())
    assert sorted(service.children("worker")) == sorted(children)


def test_fault_13_a_memory_error_out_of_nowhere_does_not_end_the_worker(service: Service) -> None:
    """One that escapes to Celery does: celery#10462."""
    once, always = service.submit_once(raise_="memory_error"), service.submit(raise_="memory_error")
    service.completed(once)
    assert service.counters(once) == (2, 0, 1, 0)
    failed(service, always)
    service.completed(service.submit())


def test_fault_14_hangs_in_native_code_are_ended_and_tried_again(service: Service) -> None:
    """With and without Python's lock: no signal handler runs, no exception arrives."""
    free, held = service.submit_once(native_hang=120), service.submit_once(gil_hang=120)
    for job in (free, held):
        service.begun(job)
    hung = time.monotonic()
    service.completed(held)
    note_time(14, "a hang that holds Python's lock", time.monotonic() - hung)
    service.completed(free)
    note_time(14, f"a hang in native code, deadline {DEADLINE_S} s", time.monotonic() - hung)
    assert [service.counters(job) for job in (free, held)] == [(2, 0, 1, 0)] * 2


@pytest.mark.parametrize("kind", ["gil_hang", *scaled((), ("native_hang",))])
def test_fault_14_a_hang_is_ended_while_redis_is_down_too(service: Service, kind: str) -> None:
    """Celery's own hard time limit does not fire then."""
    script: Any = {kind: 120}
    job = service.submit_once(**script)
    service.begun(job)
    service.redis.kill()
    until(lambda: service.job(job)["status"] == "pending", 60)
    service.redis.start()
    back = time.monotonic()
    service.completed(job)
    note_time(14, "a hang while Redis is down, after it is back", time.monotonic() - back)
    assert service.counters(job) == (2, 0, 1, 0)
