"""A relay may be killed or frozen at the worst moment: another one leads, and what it did not ring is rung again."""

import signal
import time
from contextlib import ExitStack

import pytest

from jobs.routing import NORMAL
from tests.faults.harness import Service, note_time
from tests.faults.proxy import Moment, Trap
from tests.processes import until

pytestmark = pytest.mark.timeout(180)
RELAYS = ("relay", "relay-2")
MARKS = "published_at = now(), queue = 'transcription.normal'"  # in the transaction before it rings
LOOKS = "depth.deepest"  # also where nothing waits


def sprung(traps: dict[str, Trap]) -> str:
    """The relay whose COMMIT was swallowed."""
    found: list[str] = until(lambda: [name for name, trap in traps.items() if trap.sprung.is_set()])
    return found[0]


def test_fault_16_a_relay_killed_between_noting_and_ringing_delays_the_job_and_loses_nothing(service: Service) -> None:
    with ExitStack() as traps:
        leader_of = {name: traps.enter_context(service.proxies[name].trap(MARKS, Moment.SILENCE)) for name in RELAYS}
        job = service.submit()
        leader = sprung(leader_of)
        assert service.job(job)["published_at"], "it is noted as rung"
        assert not service.bells().llen(NORMAL), "and was not"
        killed = service.signal(leader, signal.SIGKILL)
        service.proxies[leader].cut()
    service.completed(job)
    note_time(16, "kill -9 of the leading relay before it rings", time.monotonic() - killed)
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
