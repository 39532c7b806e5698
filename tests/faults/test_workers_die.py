"""A worker that is killed, frozen or slow to load loses nothing, takes nothing down, and cannot write late."""

import os
import signal
import time

import pytest

from jobs.routing import NORMAL
from tests.faults.harness import LEASE_S, Service, note_time, scaled
from tests.processes import is_gone, until

pytestmark = pytest.mark.timeout(180)


def test_fault_1_a_worker_killed_mid_job_loses_nothing(service: Service) -> None:
    job = service.submit_once(sleep=60)
    service.begun(job)
    killed = service.signal("worker", signal.SIGKILL)
    service.restart("worker")
    service.completed(job)
    note_time(1, "kill -9 of a worker in the middle of a job", time.monotonic() - killed)
    assert service.counters(job) == (2, 0, 0, 1)  # the job is not to blame


def test_fault_2_a_killed_child_takes_its_job_to_the_retry_queue_and_leaves_its_neighbour_alone(
    service: Service,
) -> None:
    victim = service.submit_once(sleep=60)
    neighbour = service.submit(sleep=LEASE_S + 2)
    service.begun(victim)
    until(lambda: service.job(neighbour)["status"] == "processing")
    main = service.processes["worker"].pid
    os.kill(service.child_of(victim), signal.SIGKILL)
    killed = time.monotonic()
    service.completed(victim)
    note_time(2, "kill -9 of a worker child in the middle of a job", time.monotonic() - killed)
    service.completed(neighbour)
    assert service.counters(victim) == (2, 0, 1, 0)
    assert service.counters(neighbour) == (1, 0, 0, 0)
    assert service.processes["worker"].pid == main
    assert service.processes["worker"].is_running()


def test_fault_3_a_doorbell_that_dies_with_a_frozen_worker_is_rung_again(service: Service) -> None:
    """Redis hands the message to the socket of a process that will never read it."""
    bells = service.bells()
    for _ in range(10):  # until it is frozen while it listens
        worker = service.processes["worker"].pid
        with service.frozen(worker):
            job = service.submit()
            until(lambda job=job: service.job(job)["published_at"])  # type: ignore[misc]
            was_taken = not bells.llen(NORMAL)
            if was_taken:
                break
        service.completed(job)
    assert was_taken, "the worker never listened while it was frozen"
    assert service.job(job)["status"] == "pending"
    killed = service.signal("worker", signal.SIGKILL)
    service.restart("worker")
    service.completed(job)
    note_time(3, "kill -9 of a worker that had taken a doorbell and not read it", time.monotonic() - killed)


def test_fault_11_a_child_that_was_frozen_past_its_lease_cannot_write(service: Service) -> None:
    job = service.submit_once(text="late", sleep=1)
    service.begun(job)
    child = service.child_of(job)
    with service.frozen(child):
        frozen = time.monotonic()
        service.completed(job)
        note_time(11, "SIGSTOP of a worker child", time.monotonic() - frozen)
    (before,) = service.rows("SELECT * FROM transcription_results")
    until(lambda: is_gone(child) or service.has_said("worker", "attempt.stopped", job))
    assert service.counters(job) == (2, 0, 1, 0)
    assert service.rows("SELECT * FROM transcription_results") == [before]


def test_fault_19_a_slow_model_and_a_killed_child_are_no_endless_loop(service: Service) -> None:
    """Celery kills a replaced child that is not ready within worker_proc_alive_timeout, 4 s out of the box."""
    load_s = scaled(5, 8)
    first = service.submit(options={"model_size": f"slow/{load_s}"})
    until(lambda: service.job(first)["status"] == "processing")
    os.kill(service.child_of(first), signal.SIGKILL)
    killed = time.monotonic()
    second = service.submit(options={"model_size": f"slow/{load_s}"})
    service.completed(first, second)
    note_time(19, f"kill -9 of a child that loads a model for {load_s} s", time.monotonic() - killed)
    assert service.counters(first) == (2, 0, 1, 0)
    assert service.counters(second) == (1, 0, 0, 0)
