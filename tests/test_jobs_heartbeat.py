"""A running attempt renews its lease, hears that it must stop, and a child that does not listen ends itself."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from time import monotonic
from typing import Any

import pytest

import errors
from config import Settings, inherited_environment
from database import transaction
from jobs import progress
from jobs.cancel import cancel, purge
from jobs.progress import LEAVE_CODE, Fence, Heartbeat
from tests.checker import check_invariants, database_away, finish, job_now, move_back, other_connection, taken
from tests.processes import until

ROOT = Path(__file__).parents[1]
LEASE_S = 60.0


@pytest.fixture(autouse=True)
def books(database: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats ten times a second; a deaf main thread has half a second. The watchdog is for processes of their own."""
    monkeypatch.setattr(progress, "LONGEST_BEAT_S", 0.1)
    monkeypatch.setattr(progress, "GRACE_S", 0.5)
    monkeypatch.setattr(Heartbeat, "_watch", lambda _: None)


def heartbeat(fence: Fence, *, lease_s: float = LEASE_S, **answers: Any) -> Heartbeat:
    quiet = {"is_draining": bool, "on_overdue": bool, "leave": bool}
    return Heartbeat(fence, lease_s=lease_s, **{**quiet, **answers})


def raises(error: type[BaseException], beat: Heartbeat) -> Callable[[], bool]:
    def check() -> bool:
        try:
            beat.check()
        except error:
            return True
        return False

    return check


def test_a_beat_renews_the_lease(quick: None, database: Settings) -> None:
    fence = taken(database)
    claimed_until = job_now(fence.job_id).lease_until
    with heartbeat(fence, lease_s=600) as beat:
        until(lambda: job_now(fence.job_id).lease_until > claimed_until)  # type: ignore[operator]
        first = job_now(fence.job_id).lease_until
        until(lambda: job_now(fence.job_id).lease_until > first)  # type: ignore[operator]
        beat.check()


def test_time_in_which_the_device_worked_for_others_moves_the_deadline_and_counts_once(
    quick: None, database: Settings
) -> None:
    fence = taken(database)
    before = job_now(fence.job_id).deadline_at
    assert before is not None
    waited = [5.0]  # of the job before
    with heartbeat(fence, waited_s=lambda: waited[0]):
        waited[0] = 105.0
        until(lambda: job_now(fence.job_id).deadline_at == before + timedelta(seconds=100))
        lease = job_now(fence.job_id).lease_until
        until(lambda: job_now(fence.job_id).lease_until > lease)  # type: ignore[operator]
    assert job_now(fence.job_id).deadline_at == before + timedelta(seconds=100)


def test_a_job_that_only_waited_for_the_device_is_not_overdue(quick: None, database: Settings) -> None:
    fence, ended = taken(database), list[object]()
    with transaction() as session:
        move_back(session, fence.job_id, 3600, "deadline_at")
    waited = [0.0]
    beat = heartbeat(
        fence,
        waited_s=lambda: waited[0],
        on_overdue=lambda: ended.append("overdue"),
        leave=lambda _: ended.append("left"),
    )
    waited[0] = 7200.0
    lease = job_now(fence.job_id).lease_until
    with beat:
        until(lambda: job_now(fence.job_id).lease_until > lease)  # type: ignore[operator]
    assert ended == []


def test_a_cancel_is_heard(quick: None, database: Settings) -> None:
    fence = taken(database)
    with heartbeat(fence) as beat:
        beat.check()
        with transaction() as session:
            cancel(session, fence.job_id)
        until(raises(errors.Cancelled, beat), 5)


def test_a_lost_lease_is_noticed(quick: None, database: Settings) -> None:
    fence = taken(database)
    with heartbeat(Fence(fence.job_id, 0)) as beat:
        until(raises(errors.LeaseLost, beat), 5)
    assert job_now(fence.job_id).status == "processing"


def test_a_purged_job_is_a_lost_lease(quick: None, database: Settings) -> None:
    fence = taken(database)
    with transaction() as session:
        cancel(session, fence.job_id)
        purge(session, fence.job_id)
    with heartbeat(fence) as beat:
        until(raises(errors.LeaseLost, beat), 5)


def test_a_draining_worker_is_told_at_the_next_check(quick: None, database: Settings) -> None:
    with heartbeat(taken(database), is_draining=lambda: True) as beat, pytest.raises(errors.Draining):
        beat.check()


def test_a_child_that_does_not_notice_that_its_job_is_gone_is_ended(quick: None, database: Settings) -> None:
    fence = taken(database)
    left: list[int] = []
    with heartbeat(fence, leave=left.append):
        with transaction() as session:
            cancel(session, fence.job_id)
        cancelled = monotonic()
        until(lambda: left, 10)
    assert left[0] == LEAVE_CODE != 0
    assert monotonic() - cancelled > progress.GRACE_S


def test_a_child_that_notices_in_time_lives(quick: None, database: Settings) -> None:
    fence = taken(database)
    left: list[int] = []
    with heartbeat(fence, leave=left.append) as beat:
        with transaction() as session:
            cancel(session, fence.job_id)
        until(raises(errors.Cancelled, beat), 5)
    assert not beat._thread.is_alive()
    assert not left


def test_a_child_past_its_deadline_records_the_loss_and_then_ends(quick: None, database: Settings) -> None:
    fence = taken(database)
    with transaction() as session:
        move_back(session, fence.job_id, 3600, "deadline_at")
    told: list[str] = []
    with heartbeat(fence, on_overdue=lambda: told.append("recorded"), leave=lambda code: told.append(f"left {code}")):
        until(lambda: len(told) >= 2)
    assert told[:2] == ["recorded", f"left {LEAVE_CODE}"]


def test_a_deadline_that_has_not_passed_ends_nothing(quick: None, database: Settings) -> None:
    fence = taken(database)
    told: list[object] = []
    with heartbeat(fence, on_overdue=lambda: told.append("overdue"), leave=told.append):
        claimed_until = job_now(fence.job_id).lease_until
        until(lambda: job_now(fence.job_id).lease_until > claimed_until)  # type: ignore[operator]
    assert not told


def test_no_database_for_a_lease_is_a_lost_lease_and_before_that_it_is_not(quick: None, database: Settings) -> None:
    fence = taken(database)
    with heartbeat(fence, lease_s=3) as beat:
        with database_away():
            beat.check()
            until(raises(errors.LeaseLost, beat), 10)
        until(lambda: not raises(errors.LeaseLost, beat)(), 10)  # nobody took the job: it goes on


def test_the_end_of_the_work_ends_the_heartbeat(quick: None, database: Settings) -> None:
    fence = taken(database)
    with heartbeat(fence) as beat:
        assert finish(fence)
    assert not beat._thread.is_alive()


HANGS = {
    "holding the GIL": "ctypes.PyDLL(None).sleep(60)",
    "in native code past its deadline": "ctypes.CDLL(None).sleep(60)",
}


def hang(database_url: str, fence: Fence, how: str, lease_s: float) -> subprocess.CompletedProcess[str]:
    """A child of a worker, with everything real but the work."""
    child = f"""
        import ctypes, errors, uuid
        from config import get_settings
        from jobs import claim
        from jobs.progress import Fence, Heartbeat
        from jobs.retry import Cause

        fence = Fence(uuid.UUID("{fence.job_id}"), {fence.attempt})
        def record():
            claim.fail(fence, errors.DeadlinePassed("deadline"), get_settings(), cause=Cause.LOSS, worker="host:1:2")
        with Heartbeat(fence, lease_s={lease_s}, is_draining=lambda: False, on_overdue=record):
            {how}
    """
    environment = {**inherited_environment(), "DATABASE_URL": database_url}
    return subprocess.run(
        (sys.executable, "-c", dedent(child)),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=45,
    )


def test_a_hang_that_holds_the_interpreter_lock_is_ended_within_a_lease(database: Settings) -> None:
    ended = hang(database.database_url, taken(database), HANGS["holding the GIL"], lease_s=2)
    assert ended.returncode != 0
    assert "Timeout" in ended.stderr  # faulthandler's: where it hung is in the log
    assert "<module>" in ended.stderr


def test_a_database_that_holds_up_the_heartbeat_for_more_than_a_lease_ends_nobody(database: Settings) -> None:
    fence = taken(database)
    with other_connection() as cursor:
        cursor.execute("BEGIN; SELECT 1 FROM transcription_jobs FOR UPDATE")
        ended = hang(database.database_url, fence, "ctypes.CDLL(None).sleep(4)", lease_s=2)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_native_hang_is_ended_at_its_deadline_and_counted_as_a_loss(database: Settings) -> None:
    fence = taken(database)
    with transaction() as session:
        move_back(session, fence.job_id, 3600, "deadline_at")
    ended = hang(database.database_url, fence, HANGS["in native code past its deadline"], lease_s=8)
    job = job_now(fence.job_id)
    assert ended.returncode == LEAVE_CODE
    assert (job.status, job.losses, job.error_code, job.retrying) == ("pending", 1, "hung", True)
