"""The relay as a process of its own, with a real PostgreSQL and a real Redis: what it misses is not missed for long."""

import base64
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import pytest
import redis
from sqlalchemy import select, text, update

import errors
import relay as relay_module
import tasks
from celery_app import app
from config import Settings, inherited_environment
from database import transaction
from jobs import routing, sweep
from jobs.progress import Fence
from jobs.retry import Cause
from jobs.states import Status
from models import Job
from models import Process as ProcessRow
from relay import Instant
from stack.process import Process, ServiceSpec
from storage import new_key
from tests.checker import (
    check_invariants,
    database_away,
    dead_letter_of,
    everything_about,
    fail,
    job_in,
    job_now,
    new_job,
    other_connection,
    take,
    taken,
    wait_over,
    worker_falls_silent,
)
from tests.processes import until

ROOT = Path(__file__).parents[1]
RARELY_S = 300  # a tick so long that only a notification explains what happens
LISTENERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'relay-listen' AND datname = current_database()"
)

CUT_ALL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database()"""


@pytest.fixture(autouse=True)
def books(settings: Settings) -> Iterator[None]:
    yield
    with transaction() as session:
        check_invariants(session)


class Relay:
    """`python relay.py`; it dies with the test."""

    def __init__(self, log: Path, **environment: object) -> None:
        changed = {"RELAY_TICK_SECONDS": "0.2", **{name: str(value) for name, value in environment.items()}}
        self.process = Process(
            ServiceSpec(
                name="relay",
                argv=(sys.executable, str(ROOT / "relay.py")),
                env={**inherited_environment(), **changed},
                ready=self.is_signed_in,
            ),
            log,
        )

    def is_signed_in(self) -> bool:
        return self.signs() is not None

    def signs(self) -> Any:
        """When it was last seen."""
        with transaction() as session:
            return session.scalar(select(ProcessRow.seen_at).where(ProcessRow.id.endswith(f":{self.process.pid}")))

    def goes_round(self) -> None:
        """At least one whole tick, from beginning to end."""
        first = self.signs()
        until(lambda: self.signs() != first)
        second = self.signs()
        until(lambda: self.signs() != second)

    def has_said(self, event: str) -> bool:
        return event in self.process.log.read_text()


def listeners() -> int:
    with transaction() as session:  # a new one each time: statistics stand still within a transaction
        return session.scalar(LISTENERS) or 0


Start = Callable[..., Relay]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """`start(LEASE_SECONDS=1)` starts a relay; all are killed after the test."""
    relays: list[Relay] = []

    def begin(**environment: object) -> Relay:
        relays.append(Relay(settings.data_dir / f"relay-{len(relays)}.log", **environment))
        relays[-1].process.start().wait_ready()
        until(lambda: listeners() == len(relays))
        return relays[-1]

    yield begin
    for relay in relays:
        relay.process.kill()


@pytest.fixture
def bells(settings: Settings) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=60) as client:
        yield client


def message(raw: Any) -> tuple[str, str]:
    """The task and its only argument."""
    sent = json.loads(raw)
    return sent["headers"]["task"], json.loads(base64.b64decode(sent["body"]))[0][0]


def waiting(bells: "redis.Redis") -> list[tuple[str, str, str]]:
    """Queue, task and argument of every message in Redis."""
    return sorted((queue, *message(raw)) for queue in routing.QUEUES for raw in bells.lrange(queue, 0, -1))


def hear(bells: "redis.Redis", within_s: float = 20) -> tuple[str, str]:
    """Take the next doorbell as a worker would: its queue, and its job."""
    heard: Any = bells.brpop(list(routing.QUEUES), timeout=within_s)
    assert heard is not None, "no doorbell"
    return heard[0].decode(), message(heard[1])[1]


def test_a_doorbell_rings_in_the_right_queue_within_a_second_of_the_submit(start: Start, bells: "redis.Redis") -> None:
    start(RELAY_TICK_SECONDS=RARELY_S)
    delays = []
    for priority in ("normal", "high", "normal", "high", "normal"):
        job_id = new_job(priority=priority)
        submitted = monotonic()
        assert hear(bells) == (f"transcription.{priority}", str(job_id))
        delays.append(monotonic() - submitted)
    assert median(delays) < 1


def test_what_waits_when_a_relay_starts_is_rung_each_in_its_queue(
    settings: Settings, start: Start, bells: "redis.Redis"
) -> None:
    retried = taken(settings).job_id
    fail(Fence(retried, 1), MemoryError(), settings, Cause.LOSS)
    wait_over(retried)
    normal, urgent = new_job(), new_job(priority="high")
    start(RELAY_TICK_SECONDS=RARELY_S)
    expected = {(routing.RETRY, str(retried)), (routing.NORMAL, str(normal)), (routing.HIGH, str(urgent))}
    assert {hear(bells) for _ in range(3)} == expected


def test_redis_that_forgets_everything_is_told_again(start: Start, bells: "redis.Redis") -> None:
    start(REPUBLISH_SECONDS=1)
    job_id = new_job()
    until(lambda: waiting(bells))
    bells.flushall()
    assert hear(bells) == (routing.NORMAL, str(job_id))


@pytest.mark.parametrize("redis_answers", [False, None], ids=["refuses", "is frozen"])
def test_leases_expire_also_while_redis(settings: Settings, start: Start, *, redis_answers: bool | None) -> None:
    fence = taken(settings)
    worker_falls_silent(fence.job_id)
    with a_port(is_open=redis_answers is None) as port:
        start(REDIS_URL=f"redis://127.0.0.1:{port}/0", LEASE_SECONDS=1)
        until(lambda: job_now(fence.job_id).status == "pending", 10)
        worker_falls_silent(take(fence.job_id, settings).fence.job_id)
        until(lambda: job_now(fence.job_id).status == "pending", 10)
    assert job_now(fence.job_id).infra_losses == 2


@contextmanager
def a_port(*, is_open: bool) -> Iterator[int]:
    """Where nobody listens, or somebody who never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_open:
            server.listen(100)
        yield server.getsockname()[1]


def test_a_relay_that_does_not_lead_does_nothing_until_it_does(
    settings: Settings, start: Start, bells: "redis.Redis"
) -> None:
    silent = taken(settings)
    worker_falls_silent(silent.job_id)
    with other_connection() as leader:  # whose lock is a session's: held however long the relay takes to start
        leader.execute("SELECT pg_advisory_lock(%s)", (sweep.LEADER_LOCK,))
        relay = start(LEASE_SECONDS=1)
        job_id = new_job()
        relay.goes_round()
        assert waiting(bells) == []
        assert job_now(silent.job_id).status == "processing"
    assert {hear(bells)[1], hear(bells)[1]} == {str(job_id), str(silent.job_id)}


def test_two_relays_ring_each_doorbell_once_and_one_goes_on_alone(start: Start, bells: "redis.Redis") -> None:
    relays = [start(LEASE_SECONDS=1) for _ in range(2)]
    job_ids = [new_job() for _ in range(3)]
    until(lambda: len(waiting(bells)) >= 3)
    for relay in relays:
        relay.goes_round()
    assert waiting(bells) == sorted((routing.NORMAL, "transcribe", str(job_id)) for job_id in job_ids)
    relays[0].process.kill()
    bells.flushall()
    job_id = new_job()
    assert hear(bells) == (routing.NORMAL, str(job_id))


def test_a_dead_letter_rings_once_while_nobody_answers(settings: Settings, start: Start, bells: "redis.Redis") -> None:
    relay = start(LEASE_SECONDS=1)
    letter = dead_letter_of(settings, errors.NoAudioStream("There is no sound in it."))
    until(lambda: bells.llen(routing.DLQ))
    relay.goes_round()
    dead = [message for message in waiting(bells) if message[0] == routing.DLQ]
    assert dead == [(routing.DLQ, "dead_letter", str(letter.id))]


def test_a_relay_whose_connections_are_cut_goes_on_and_ends_when_it_is_told_to(
    start: Start, bells: "redis.Redis"
) -> None:
    relay = start()
    with other_connection() as cursor:
        for _ in range(3):
            cursor.execute(CUT_ALL)
            job_id = str(new_job())
            while hear(bells)[1] != job_id:  # a relay that was cut before its COMMIT rings the last one again
                pass
    relay.process.stop()
    assert relay.process.exit_code == 0
    assert not relay.is_signed_in()


def test_what_is_submitted_while_nobody_listens_is_not_left_to_the_tick(start: Start, bells: "redis.Redis") -> None:
    start(RELAY_TICK_SECONDS=RARELY_S)
    with other_connection() as cursor:
        cursor.execute(CUT_ALL)
    job_id = str(new_job())
    assert hear(bells)[1] == job_id


LEASE_S = 30.0
SLEPT_S = 3600.0


@pytest.mark.parametrize(
    ("moments", "allowed"),
    [
        ([(0, 0), (1, 1), (29, 29)], False),  # just started: who knows for how long nobody could renew
        ([(0, 0), *((s, s) for s in range(1, 31))], True),
        ([(0, 0), *((s, s) for s in range(1, 31)), (31, 31 + SLEPT_S)], False),  # the machine slept
        ([(0, 0), *((s, s) for s in range(1, 31)), (70, 70)], False),  # the relay was stopped, or its query hung
        ([(0, 0), *((s, s - SLEPT_S) for s in range(1, 31))], True),  # the clock was put back
    ],
)
def test_workers_have_a_lease_to_renew_after_any_silence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, moments: list[tuple[float, float]], *, allowed: bool
) -> None:
    relay = relay_module.Relay(settings.model_copy(update={"lease_seconds": LEASE_S, "relay_tick_seconds": 1}))
    for moment in moments:
        monkeypatch.setattr(relay_module, "Instant", lambda at=moment: Instant(*at))
        answer = relay._may_expire()
        relay._ticked_at = Instant(*moment)
    assert answer is allowed


@pytest.mark.parametrize("program", ["relay.py", "worker.py", "app.py"])
def test_a_process_started_alone_says_what_it_lacks(program: str) -> None:
    environment = {**inherited_environment(), "DATABASE_URL": "", "REDIS_URL": ""}
    ended = subprocess.run(
        (sys.executable, ROOT / program), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        "DATABASE_URL and REDIS_URL must be set. Set it, or start everything with `make run`."
    )


def test_a_claim_waits_for_no_doorbell_that_is_on_its_way_to_redis(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are published after the COMMIT that notes them, all in one call."""
    job_ids, claimed = {new_job(), new_job(priority="high")}, set[uuid.UUID]()

    def slowly(jobs: Sequence[sweep.Doorbell], *_: object) -> None:
        for doorbell in jobs:
            claimed.add(take(doorbell.job_id, settings).fence.job_id)  # where the row is locked, lock_timeout ends it

    monkeypatch.setattr(tasks, "publish", slowly)
    assert relay_module.Relay(settings)._ring() == 2
    assert claimed == job_ids


def test_doorbells_that_redis_refused_ring_as_soon_as_it_takes_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not only after REPUBLISH_SECONDS."""
    job_id, published = new_job(), list[uuid.UUID]()

    def refuse(*_: object) -> None:
        raise redis.ConnectionError

    relay = relay_module.Relay(settings)
    monkeypatch.setattr(tasks, "publish", refuse)
    assert relay._ring() == 0
    monkeypatch.setattr(tasks, "publish", lambda jobs, *_: published.extend(one.job_id for one in jobs))
    assert relay._ring() == 1
    assert published == [job_id]


def test_a_doorbell_for_a_redis_that_refuses_fails_at_once() -> None:
    """The relay waits for it in every tick."""
    job_id = uuid.uuid4()
    with a_port(is_open=False) as port, app.connection_for_write(f"redis://127.0.0.1:{port}/0") as connection:
        started = monotonic()
        with pytest.raises(tasks.BROKER_ERRORS):
            tasks.transcribe.apply_async((str(job_id),), queue=routing.NORMAL, connection=connection)  # type: ignore[call-arg]
        assert monotonic() - started < 2


def test_a_relay_deletes_what_its_caller_wanted_deleted_and_counts_it(settings: Settings, start: Start) -> None:
    job = job_in(Status.CANCELLED, settings, delete_after_s=0)
    with transaction() as session:
        session.execute(update(Job).values(storage_key=new_key()))
    relay = start()
    until(lambda: not everything_about(job.id))

    def deleted() -> bool:
        with transaction() as session:
            (row,) = session.scalars(select(ProcessRow).where(ProcessRow.kind == "relay"))
        return bool(row.stats["deleted_jobs"] == 1 and row.stats["last_run"])

    until(deleted)
    relay.process.stop()
    assert relay.process.exit_code == 0


def test_after_an_absence_of_the_database_workers_have_a_lease_to_come_back(
    settings: Settings, start: Start, bells: "redis.Redis"
) -> None:
    """Nobody could renew. Doorbells do not wait for that."""
    fence = taken(settings)
    relay = start(LEASE_SECONDS=3)
    with database_away():
        until(lambda: relay.has_said("relay.database_away"))
        back = monotonic()
    worker_falls_silent(fence.job_id)
    job_id = new_job()
    assert hear(bells) == (routing.NORMAL, str(job_id))
    until(lambda: job_now(fence.job_id).status == "pending")
    assert monotonic() - back > 2
