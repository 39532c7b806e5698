"""Webhooks, with a real database and a real receiver: recorded with the job, signed, sent once."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text, update
from standardwebhooks import WebhookVerificationError

import tasks
from config import Settings
from database import transaction
from jobs.cancel import purge
from jobs.states import Status, move
from models import WebhookDelivery, WebhookSecret
from tests.checker import finish, job_now, new_job, result_of, take
from tests.far_server import Exchange, far_server
from tests.processes import until
from tests.webhook_play import (
    NOWHERE,
    answers,
    begun,
    deliver,
    deliveries,
    delivery,
    due_now,
    ended,
    new_batch,
    verified,
)
from webhooks import announce_batch, signature
from webhooks import delivery as trying

Configure = Callable[..., Settings]


@pytest.fixture
def allowing(settings: Settings, configure: Configure) -> Settings:
    """Loopback may be called, and a receiver has a second to answer."""
    return configure(outbound_allow="127.0.0.0/8", webhook_timeout_seconds=1)


# What is told


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_what_a_job_came_to_is_told_under_its_own_type(database: Settings, status: Status) -> None:
    job = job_now(ended(database, NOWHERE, status, owner="key:1", metadata={"customer": 7}))
    row = delivery()
    assert (row.owner, row.job_id, row.url, row.state, row.tries) == ("key:1", job.id, NOWHERE, "pending", 0)
    assert row.type == row.payload["type"] == f"transcription.{status}"
    assert row.payload["data"] == {"job_id": str(job.id), "status": status, "metadata": {"customer": 7}}
    assert row.payload["timestamp"].endswith("Z")
    assert datetime.fromisoformat(row.payload["timestamp"]) == job.completed_at


def test_nothing_is_told_where_nobody_asked(database: Settings) -> None:
    ended(database, None)
    ended(database, None, batch_id=new_batch(None))
    assert deliveries() == []


def test_a_delivery_is_recorded_with_its_job_or_not_at_all(database: Settings) -> None:
    fence = begun(database, NOWHERE)
    with transaction() as session:
        assert move(session, fence.job_id, Status.PROCESSING, Status.COMPLETED, fence=fence.attempt)
        assert session.scalar(select(WebhookDelivery.id)) is not None
        session.rollback()
    assert deliveries() == []
    assert finish(fence)
    assert len(deliveries()) == 1


def test_a_job_that_is_replayed_is_told_of_again(client: TestClient, settings: Settings) -> None:
    job_id = ended(settings, NOWHERE, Status.FAILED)
    letter = client.get("/admin/errors").json()["data"][0]["id"]
    assert client.post(f"/admin/errors/{letter}/replay").status_code == 202
    assert finish(take(job_id, settings).fence)
    assert [row.type for row in deliveries()] == ["transcription.failed", "transcription.completed"]


def test_a_delivery_goes_with_its_job(database: Settings) -> None:
    job_id = ended(database, NOWHERE)
    with transaction() as session:
        purge(session, job_id)
    assert deliveries() == []


def test_a_batch_is_told_of_when_its_last_job_is_final(database: Settings) -> None:
    batch_id = new_batch(NOWHERE)
    jobs = [new_job(batch_id=batch_id) for _ in range(3)]
    assert finish(take(jobs[0], database).fence)
    ended(database, None, Status.FAILED, batch_id=batch_id)
    ended(database, None, Status.CANCELLED, batch_id=batch_id)
    assert finish(take(jobs[1], database).fence)
    assert deliveries() == []
    assert finish(take(jobs[2], database).fence)
    row = delivery()
    assert (row.batch_id, row.job_id, row.type) == (batch_id, None, "batch.completed")
    assert row.payload["data"] == {
        "batch_id": str(batch_id),
        "status": "completed",
        "request_counts": {"total": 5, "completed": 3, "failed": 1, "cancelled": 1},
    }
    assert datetime.fromisoformat(row.payload["timestamp"]) == job_now(jobs[2]).completed_at


def test_a_message_about_a_job_of_a_batch_names_the_batch(database: Settings) -> None:
    batch_id = new_batch(None)
    job_id = ended(database, NOWHERE, batch_id=batch_id)
    assert delivery(job_id=job_id).payload["data"]["batch_id"] == str(batch_id)


def test_a_batch_without_a_single_job_can_be_told_of_too(database: Settings) -> None:
    batch_id = new_batch(NOWHERE)
    for _ in range(2):
        with transaction() as session:
            announce_batch(session, batch_id)
    assert delivery().payload["data"]["request_counts"] == {"total": 0, "completed": 0, "failed": 0, "cancelled": 0}


def test_the_last_two_jobs_of_a_batch_that_end_at_once_tell_of_it_once(database: Settings) -> None:
    batches = [new_batch(NOWHERE) for _ in range(20)]
    with ThreadPoolExecutor(2) as pool:
        for batch_id in batches:
            fences = [begun(database, None, batch_id=batch_id) for _ in range(2)]
            both = Barrier(2)
            assert all(pool.map(lambda fence, both=both: both.wait() < 2 and finish(fence), fences))
            assert delivery(batch_id=batch_id).payload["data"]["request_counts"]["completed"] == 2


def test_of_two_jobs_that_end_together_the_second_sees_what_the_first_has_not_committed_yet(
    database: Settings,
) -> None:
    batch_id = new_batch(NOWHERE)
    first, second = (begun(database, None, batch_id=batch_id) for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        with transaction() as session:
            assert move(session, first.job_id, Status.PROCESSING, Status.COMPLETED, fence=first.attempt)
            session.add(result_of(first))
            session.flush()
            other = pool.submit(finish, second)
            until(somebody_waits_for_a_lock)
        assert other.result()
    assert delivery().payload["data"]["request_counts"]["completed"] == 2


def somebody_waits_for_a_lock() -> bool:
    query = text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
    with transaction() as session:
        return session.scalar(query) is not None


# What is sent


def test_a_receiver_can_verify_what_it_is_sent(allowing: Settings) -> None:
    with far_server(answers(204)) as receiver:
        job_id = ended(allowing, receiver.url("/hook?token=1"), owner="key:1", metadata={"who": "Ünï\u2028 ☃"})
        row = deliver(delivery())
        (seen,) = receiver.seen
    assert (row.state, row.tries, row.response_status, row.error) == ("delivered", 1, 204, None)
    assert row.finished_at is not None
    message = verified(seen, allowing, owner="key:1")
    assert message == row.payload
    assert message["data"]["job_id"] == str(job_id)
    assert (seen.command, seen.path) == ("POST", "/hook?token=1")
    assert seen.headers["webhook-id"] == f"msg_{row.id.hex}"
    assert seen.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        verified(seen, allowing, owner="key:2")


def test_every_try_has_the_same_id_and_body_and_a_time_of_its_own(
    allowing: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC).timestamp()
    with far_server(answers(500, 200)) as receiver:
        ended(allowing, receiver.url())
        deliver(delivery())
        monkeypatch.setattr(trying, "time", lambda: now + 60)
        deliver(due_now(delivery()))
        first, second = receiver.seen
    assert verified(first, allowing) == verified(second, allowing)
    assert first.received == second.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) == int(now + 60)
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_while_a_secret_rotates_both_sign_and_later_only_the_new_one(allowing: Settings) -> None:
    with transaction() as session:
        numbers = signature.rotate(session, "")
    assert numbers.signing == (2, 1)
    with far_server(answers(200)) as receiver:
        ended(allowing, receiver.url())
        deliver(delivery())
        with transaction() as session:
            session.execute(update(WebhookSecret).values(rotated_at=WebhookSecret.rotated_at - timedelta(hours=24)))
        ended(allowing, receiver.url("/later"))
        deliver(delivery(url=receiver.url("/later")))
        rotating, later = receiver.seen
    assert verified(rotating, allowing, number=1) == verified(rotating, allowing, number=2)
    assert len(rotating.headers["webhook-signature"].split()) == 2
    assert verified(later, allowing, number=2)
    with pytest.raises(WebhookVerificationError):
        verified(later, allowing, number=1)


def test_a_doorbell_that_rings_twice_sends_once(allowing: Settings) -> None:
    def play(exchange: Exchange) -> None:
        exchange.server.closing.wait(0.2)
        exchange.answer(200)

    with far_server(play) as receiver, ThreadPoolExecutor(8) as pool:
        ended(allowing, receiver.url())
        row = delivery()
        list(pool.map(lambda _: tasks.deliver_webhook(str(row.id)), range(8)))
        deliver(row)
        assert len(receiver.seen) == 1
    assert (delivery().state, delivery().tries) == ("delivered", 1)


def test_a_doorbell_of_what_is_gone_is_harmless(allowing: Settings) -> None:
    tasks.deliver_webhook(str(uuid.uuid4()))
