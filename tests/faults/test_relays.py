"""A relay may be killed or frozen at the worst moment: another one leads, and doorbells rung twice are no-ops."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from jobs.routing import NORMAL
from tests.faults.harness import Service, note_time
from tests.faults.proxy import Moment, Trap
from tests.processes import until

pytestmark = pytest.mark.timeout(180)
RELAYS = ("relay", "relay-2")
MARKS = "queue = 'transcription.normal'"  # in the transaction that rings
LOOKS = "depth.deepest"  # also where nothing waits


def sprung(traps: dict[str, Trap]) -> str:
    """The relay whose COMMIT was swallowed."""
    found: list[str] = until(lambda: [name for name, trap in traps.items() if trap.sprung.is_set()])
    return found[0]


@contextmanager
def caught_ringing(service: Service) -> Iterator[str]:
    """The relay that has just rung a doorbell, and whose COMMIT is swallowed."""
    bells = service.bells()
    for _ in range(20):  # most transactions ring nothing
        before = bells.llen(NORMAL)
        with ExitStack() as traps:
            leader = sprung(
                {name: traps.enter_context(service.proxies[name].trap(MARKS, Moment.COMMIT)) for name in RELAYS}
            )
            if bells.llen(NORMAL) > before:
                yield leader
                return
    raise AssertionError("no relay was caught while it rang")


def test_fault_16_a_relay_killed_between_ringing_and_noting_it_rings_twice_and_nothing_runs_twice(
    service: Service,
) -> None:
    bells = service.bells()
    with service.frozen(service.processes["worker"].pid):
        service.cut_redis()  # nobody listens any more: doorbells stay where they are
        job = service.submit()
        with caught_ringing(service) as leader:
            rung = bells.llen(NORMAL)
            killed = service.signal(leader, signal.SIGKILL)
            service.proxies[leader].cut()
        until(lambda: bells.llen(NORMAL) > rung)
    service.completed(job)
    note_time(16, "kill -9 of the leading relay while it rings", time.monotonic() - killed)
    until(lambda: service.has_said("worker", "claim.skipped", job))
    assert service.counters(job) == (1, 0, 0, 0)
    service.restart(leader)


def test_fault_16_a_leader_frozen_in_its_transaction_is_replaced(service: Service) -> None:
    """It holds the lock until PostgreSQL ends its idle transaction, 10 s."""
    with ExitStack() as traps:
        set_ = {name: traps.enter_context(service.proxies[name].trap(LOOKS, Moment.COMMIT)) for name in RELAYS}
        leader = sprung(set_)
        with service.frozen(service.processes[leader].pid):
            frozen = time.monotonic()
            other = next(name for name in RELAYS if name != leader)
            set_[other].sprung.set()  # this one is not to be swallowed
            service.proxies[other].open()
            job = service.submit()
            service.completed(job)
            note_time(16, "SIGSTOP of the leading relay inside its transaction", time.monotonic() - frozen)
    service.completed(service.submit())
    assert all(service.processes[name].is_running() for name in RELAYS)
