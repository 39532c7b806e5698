"""/webhooks: what the owner of a delivery sees, and nobody else does."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from standardwebhooks import Webhook, WebhookVerificationError

from access import keys
from config import Settings
from database import transaction
from jobs import cancel
from models import DisabledReceiver
from tests.far_server import Exchange, far_server
from tests.webhook_play import NOWHERE, answers, deliver, deliveries, delivery, ended, new_batch, rung
from webhooks.doorbells import Doorbell


@pytest.fixture
def allowing(settings: Settings, configure: Callable[..., Settings]) -> Settings:
    """Loopback may be called."""
    return configure(outbound_allow="127.0.0.0/8", webhook_timeout_seconds=1)


def make_key(settings: Settings, name: str, role: str = "user") -> tuple[str, dict[str, str]]:
    with transaction() as session:
        key, token = keys.create(session, keys.KeyRequest(name, role), settings)
        return f"key:{key.id}", {"Authorization": f"Bearer {token}"}


def test_the_secret_that_is_shown_is_the_one_that_signs(client: TestClient, allowing: Settings) -> None:
    shown = client.get("/webhooks/secret")
    assert shown.headers["cache-control"] == "no-store"
    first = shown.json()
    assert first["secret"].startswith("whsec_")
    assert first["previous_valid_until"] is None
    second = client.post("/webhooks/secret/rotate").json()
    assert second["secret"] != first["secret"]
    until_ = datetime.fromisoformat(second["previous_valid_until"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < until_ <= timedelta(hours=24)
    assert client.get("/webhooks/secret").json() == second
    with far_server(answers(200)) as receiver:
        ended(allowing, receiver.url())
        deliver(delivery())
        for secret in (first, second):
            assert signature_holds(receiver.seen[0], secret["secret"])
        third = client.post("/webhooks/secret/rotate").json()
        client.post(f"/webhooks/deliveries/{delivery().id}/replay")
        deliver(delivery())
        assert [signature_holds(receiver.seen[1], one["secret"]) for one in (first, second, third)] == [
            False,
            True,
            True,
        ]


def signature_holds(exchange: Exchange, secret: str) -> bool:
    try:
        Webhook(secret).verify(exchange.received, dict(exchange.headers))
    except WebhookVerificationError:
        return False
    return True


def test_every_owner_has_a_secret_of_its_own_and_rotates_only_that(client: TestClient, settings: Settings) -> None:
    (_, alice), (_, bob) = (make_key(settings, name) for name in ("alice", "bob"))
    before = [client.get("/webhooks/secret", headers=who).json()["secret"] for who in (alice, bob)]
    assert before[0] != before[1]
    client.post("/webhooks/secret/rotate", headers=alice)
    after = [client.get("/webhooks/secret", headers=who).json()["secret"] for who in (alice, bob)]
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert client.get("/webhooks/secret").status_code == 401


def test_a_user_sees_only_his_own_deliveries_and_an_admin_all(client: TestClient, settings: Settings) -> None:
    (alice, as_alice), (bob, as_bob), (_, as_admin) = (
        make_key(settings, name, role) for name, role in (("alice", "user"), ("bob", "user"), ("root", "admin"))
    )
    for owner in (alice, bob):
        ended(settings, NOWHERE, owner=owner)
    mine, others = delivery(owner=alice), delivery(owner=bob)

    def listed(who: dict[str, str], **query: str) -> list[str]:
        return [row["id"] for row in client.get("/webhooks/deliveries", headers=who, params=query).json()["data"]]

    assert listed(as_alice) == [str(mine.id)]
    assert listed(as_bob) == [str(others.id)]
    assert listed(as_admin) == [str(others.id), str(mine.id)]
    assert listed(as_alice, job_id=str(others.job_id)) == []
    for path in (f"/{others.id}", f"?after={others.id}"):
        assert client.get(f"/webhooks/deliveries{path}", headers=as_alice).status_code == 404
    assert client.post(f"/webhooks/deliveries/{others.id}/replay", headers=as_alice).status_code == 404
    assert client.get(f"/webhooks/deliveries/{others.id}", headers=as_admin).json()["payload"] == others.payload


def test_deliveries_are_listed_newest_first_by_pages_and_filters(client: TestClient, settings: Settings) -> None:
    for _ in range(5):
        ended(settings, NOWHERE)
    batch_id = new_batch(NOWHERE)
    ended(settings, None, batch_id=batch_id)
    newest = [str(row.id) for row in reversed(deliveries())]

    def page(**query: Any) -> Any:
        return client.get("/webhooks/deliveries", params={"limit": 4, **query}).json()

    first = page()
    assert (first["object"], first["has_more"], first["last_id"]) == ("list", True, newest[3])
    second = page(after=first["last_id"])
    assert [row["id"] for row in first["data"] + second["data"]] == newest
    assert not second["has_more"]
    assert [row["id"] for row in page(batch_id=str(batch_id))["data"]] == newest[:1]
    assert [row["job_id"] for row in page(job_id=str(deliveries()[0].job_id))["data"]] == [str(deliveries()[0].job_id)]
    assert page(state="failed")["data"] == []
    assert len(page(state="pending")["data"]) == 4
    assert client.get("/webhooks/deliveries?state=lost").status_code == 422
    assert "whsec_" not in str(first)
    with transaction() as session:
        cancel.purge(session, uuid.UUID(first["data"][3]["job_id"]))
    assert page(after=first["last_id"]) == second, "the page before ended with what was purged meanwhile"


def test_what_is_pending_cannot_be_replayed_and_what_is_unknown_is_not_found(
    client: TestClient, settings: Settings
) -> None:
    ended(settings, NOWHERE)
    answer = client.post(f"/webhooks/deliveries/{delivery().id}/replay")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert client.post(f"/webhooks/deliveries/{uuid.uuid4()}/replay").status_code == 404


def test_a_replay_sends_the_same_message_under_the_same_id(client: TestClient, allowing: Settings) -> None:
    with far_server(answers(200)) as receiver:
        ended(allowing, receiver.url())
        row = deliver(delivery())
        answer = client.post(f"/webhooks/deliveries/{row.id}/replay")
        assert answer.status_code == 202
        assert (answer.json()["state"], answer.json()["tries"]) == ("pending", 0)
        assert rung(allowing) == [Doorbell(row.id, 0)]
        assert deliver(row).state == "delivered"
        first, second = receiver.seen
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == answer.json()["webhook_id"]
    assert first.received == second.received


def test_a_replay_that_succeeds_opens_a_receiver_that_was_gone(client: TestClient, allowing: Settings) -> None:
    with far_server(answers(410, 410, 200)) as receiver:
        ended(allowing, receiver.url())
        row = deliver(delivery())
        for expected in ("disabled", "delivered"):
            assert client.post(f"/webhooks/deliveries/{row.id}/replay").status_code == 202
            assert deliver(row).state == expected
    with transaction() as session:
        assert session.scalar(select(DisabledReceiver.url)) is None
    ended(allowing, receiver.url())
    assert [one.state for one in deliveries()] == ["delivered", "pending"]


def test_a_failed_delivery_can_be_replayed_with_every_try_before_it(client: TestClient, settings: Settings) -> None:
    ended(settings, NOWHERE)
    assert deliver(delivery()).state == "failed"
    assert client.post(f"/webhooks/deliveries/{delivery().id}/replay").status_code == 202
    assert (delivery().state, delivery().tries) == ("pending", 0)
