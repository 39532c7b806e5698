"""When a message is tried again, and which due ones get a doorbell."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from config import Settings
from database import transaction
from models import WebhookDelivery
from tests.webhook_play import NOWHERE, deliver, deliveries, delivery, due_now, ended, rung
from webhooks import doorbells, outcome
from webhooks.doorbells import Doorbell
from webhooks.outcome import Again, Delivered, Disabled, Failed, Reply

Configure = Callable[..., Settings]


@pytest.fixture
def allowing(settings: Settings, configure: Callable[..., Settings]) -> Settings:
    """Loopback may be called."""
    return configure(outbound_allow="127.0.0.0/8", webhook_timeout_seconds=1)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_tries_are_spread_over_about_a_day_and_never_over_more(chance: float) -> None:
    waits = [outcome.plan(Reply(500), tries=n, chance=chance) for n in range(1, outcome.MOST_TRIES)]
    assert all(isinstance(wait, Again) for wait in waits)
    total_s = sum(wait.delay_s for wait in waits if isinstance(wait, Again))
    assert 11 * 3600 < total_s <= outcome.DAY_S
    assert isinstance(outcome.plan(Reply(500), tries=outcome.MOST_TRIES, chance=chance), Failed)
    assert [outcome.delay_s(n, chance) for n in range(1, outcome.MOST_TRIES)] == sorted(
        outcome.delay_s(n, chance) for n in range(1, outcome.MOST_TRIES)
    )


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(200), Delivered()),
        (Reply(299), Delivered()),
        (Reply(410), Disabled("The receiver answered 410 Gone; nothing more is sent to it until a replay succeeds.")),
        (Reply(error="No.", is_final=True), Failed("No.")),
        (Reply(error="Slow."), Again(5, "Slow.")),
        (Reply(400, retry_after_s=100), Again(5, "The receiver answered 400; expected 200 to 299.")),
        (Reply(429, retry_after_s=100), Again(100, "The receiver answered 429; expected 200 to 299.")),
        (Reply(503, retry_after_s=1), Again(5, "The receiver answered 503; expected 200 to 299.")),
        (Reply(503, retry_after_s=10**9), Again(86_400, "The receiver answered 503; expected 200 to 299.")),
    ],
)
def test_what_follows_from_an_answer(reply: Reply, expected: outcome.Outcome) -> None:
    assert outcome.plan(reply, tries=1, chance=1) == expected


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Sat, 31 Jan 2026 09:31:00 GMT", 60),
        ("Sat, 31 Jan 2026 09:31:00 -0000", 60),
        ("Saturday, 31-Jan-26 09:31:00 GMT", 60),
        ("Sat, 31 Jan 2026 09:29:00 GMT", 0),
        ("9" * 400, 9_999_999_999),
        ("", 0),
        ("-5", 0),
        ("soon", 0),
        ("\u0663", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float) -> None:
    assert outcome.retry_after_s(header, datetime(2026, 1, 31, 9, 30, tzinfo=UTC)) == seconds


# Doorbells


def test_what_is_due_gets_one_doorbell_until_that_is_stale(database: Settings) -> None:
    ended(database, NOWHERE)
    row = delivery()
    assert rung(database) == [Doorbell(row.id, 0)]
    assert rung(database) == []
    with transaction() as session:
        session.execute(update(WebhookDelivery).values(published_at=row.created_at - timedelta(seconds=46)))
    assert rung(database) == [Doorbell(row.id, 0)]


def test_what_is_not_due_or_not_pending_gets_none(database: Settings) -> None:
    for _ in range(2):
        ended(database, NOWHERE)
    later, done = deliveries()
    with transaction() as session:
        soon = {"next_try_at": later.created_at + timedelta(minutes=1)}
        over = {"state": "failed", "next_try_at": None, "finished_at": later.created_at}
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id == later.id).values(soon))
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id == done.id).values(over))
    assert rung(database) == []


def test_a_try_that_failed_gets_a_doorbell_as_soon_as_it_is_due_again(allowing: Settings) -> None:
    ended(allowing, NOWHERE)
    assert len(rung(allowing)) == 1
    due_now(deliver(delivery()))
    assert rung(allowing) == [Doorbell(delivery().id, 1)]


def test_the_queue_never_holds_more_than_its_window(database: Settings, configure: Configure) -> None:
    settings = configure(webhook_concurrency=2)
    for _ in range(12):
        ended(settings, NOWHERE)
    assert len(rung(settings, in_queue=5)) == 3
    assert rung(settings, in_queue=8) == []
    assert len(rung(settings)) == 8
    assert len(rung(settings)) == 1


def test_a_flood_for_one_receiver_does_not_hold_up_another(database: Settings, configure: Configure) -> None:
    settings = configure(webhook_concurrency=1)
    for _ in range(20):
        ended(settings, NOWHERE)
    ended(settings, "http://127.0.0.1:9/other")
    other = delivery(url="http://127.0.0.1:9/other")
    assert other.id in {bell.delivery_id for bell in rung(settings)}


def test_a_doorbell_that_redis_does_not_take_is_rung_at_the_next_tick(database: Settings) -> None:
    ended(database, NOWHERE)
    chosen = rung(database)
    assert (len(chosen), rung(database)) == (1, [])
    with transaction() as session:
        doorbells.unring(session, chosen)
    assert len(rung(database)) == 1
