"""Signs of life: a process is there while it signs in, and nobody is taken for somebody else."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from time import sleep
from typing import Any

import psutil
import pytest
from sqlalchemy import select, text

from config import Settings
from database import transaction
from engines import open_engine
from jobs.presence import Identity, Presence, interval_s, is_alive, new_birth, sign_in, sign_out
from models import Process
from tests.checker import (
    check_invariants,
    database_away,
    expire,
    job_now,
    new_job,
    take,
    worker_falls_silent,
)
from tests.conftest import ROOT
from tests.engine_server import engine_server
from tests.processes import until

CHILD = Identity("worker", "host", 1, 7, ("transcription.high",))


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


@pytest.fixture
def often(database: Settings) -> Settings:
    """Signs twenty times a second."""
    return database.model_copy(update={"lease_seconds": 0.3})


def signs() -> dict[str, Any]:
    with transaction() as session:
        return {process.id: process for process in session.scalars(select(Process))}


def test_a_process_is_one_row_however_often_it_signs(database: Settings) -> None:
    sign_in(CHILD)
    first = signs()[CHILD.name]
    sign_in(CHILD, {"loaded": 1})
    second = signs()[CHILD.name]
    assert len(signs()) == 1
    assert (second.kind, second.worker, second.queues) == ("worker", CHILD.worker, ["transcription.high"])
    assert second.stats == {"loaded": 1}
    assert second.seen_at > first.seen_at


def test_siblings_share_a_worker_and_strangers_do_not(database: Settings) -> None:
    assert replace(CHILD, pid=8).worker == CHILD.worker
    for stranger in (replace(CHILD, main_pid=2), replace(CHILD, host="other"), replace(CHILD, born=new_birth())):
        assert stranger.worker != CHILD.worker


def test_who_leaves_in_order_signs_out(often: Settings) -> None:
    presence = Presence(CHILD, often, dict)
    presence.start()
    until(signs)
    presence.stop()
    assert signs() == {}
    sign_out(CHILD)  # twice is a no-op


def test_signs_go_on_after_an_absence_of_the_database(often: Settings) -> None:
    presence = Presence(CHILD, often, dict)
    presence.start()
    until(signs)
    with database_away():
        pass
    with transaction() as session:
        session.execute(text("UPDATE processes SET seen_at = now() - interval '1 h'"))
        before = session.scalar(select(Process.seen_at))
    until(lambda: signs()[CHILD.name].seen_at > before)
    presence.stop()


def test_a_child_signs_several_times_in_half_a_lease(database: Settings) -> None:
    """Half a lease of silence is what the relay takes for death."""
    for lease_s in (0.5, 3, 30, 600):
        assert 2 * interval_s(database.model_copy(update={"lease_seconds": lease_s})) < lease_s / 2


def test_a_child_whose_statistics_fail_is_still_alive(often: Settings) -> None:
    calls: list[int] = []

    def stats() -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no statistics today")
        return {}

    presence = Presence(CHILD, often, stats)
    presence.start()
    try:
        until(signs, 5)
    finally:
        presence.stop()


def forget_signs() -> None:
    with transaction() as session:
        session.execute(text("UPDATE processes SET seen_at = now() - interval '1 h'"))


def test_a_sign_of_life_waits_for_no_statistics(often: Settings) -> None:
    """They are told later, as they were counted last."""
    go_on = Event()
    presence = Presence(CHILD, often, lambda: {"counted": go_on.wait(20)})
    presence.start()
    try:
        until(signs, 5)
        assert signs()[CHILD.name].stats == {}
        forget_signs()
        until(lambda: is_alive("host", often), 5)
        go_on.set()
        until(lambda: signs()[CHILD.name].stats == {"counted": True}, 5)
    finally:
        go_on.set()
        presence.stop()


@pytest.mark.timeout(120)
def test_a_child_whose_engine_server_hangs_is_alive_and_its_container_healthy(often: Settings) -> None:
    with engine_server() as path:
        engine = open_engine(Settings(), [path])
        server = psutil.Process(engine.pool_stats({})[0]["pid"])
        ours = replace(CHILD, host=socket.gethostname())
        presence = Presence(ours, often, lambda: {"devices": engine.pool_stats({})})
        presence.start()
        try:
            until(lambda: signs().get(ours.name) and signs()[ours.name].stats.get("devices"))
            server.suspend()
            sleep(3 * interval_s(often))  # by now somebody waits for statistics
            forget_signs()
            until(lambda: is_alive(ours.host, often), 5)
            health = subprocess.run((sys.executable, "-m", "jobs.presence"), cwd=ROOT, check=False, timeout=60)
            assert health.returncode == 0
        finally:
            server.kill()
            presence.stop()


def test_a_container_is_healthy_while_a_process_of_its_host_signs(database: Settings) -> None:
    sign_in(CHILD)
    assert is_alive("host", database)
    assert not is_alive("hos", database)
    assert not is_alive("%", database)
    forget_signs()
    assert not is_alive("host", database)


def test_a_worker_that_was_started_anew_is_not_the_sibling_of_its_predecessor(database: Settings) -> None:
    """The whole container was killed and restarted: that is no fault of the job."""
    before, after = (Identity("worker", "container", 1, 7) for _ in range(2))
    job_id = new_job()
    take(job_id, database, worker=before.name)
    worker_falls_silent(job_id)
    sign_in(after)
    with transaction() as session:
        session.execute(
            text("UPDATE processes SET seen_at = now() + interval '1 h' WHERE id = :id"), {"id": after.name}
        )
    expire(database)
    assert (job_now(job_id).losses, job_now(job_id).infra_losses) == (0, 1)
