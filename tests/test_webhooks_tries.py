"""What follows from a try: again, given up, the receiver gone, a worker that died in the middle of it."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import select, update

from config import Settings
from database import transaction
from models import WebhookDelivery
from tests.far_server import Exchange, far_server, say_nothing
from tests.webhook_play import (
    NOWHERE,
    answers,
    deliver,
    deliveries,
    delivery,
    due_now,
    ended,
    waits_s,
)
from webhooks import delivery as trying
from webhooks import outcome
from webhooks.outcome import Again, Reply

Configure = Callable[..., Settings]


@pytest.fixture
def allowing(settings: Settings, configure: Configure) -> Settings:
    """Loopback may be called, and a receiver has a second to answer."""
    return configure(outbound_allow="127.0.0.0/8", webhook_timeout_seconds=1)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 500])
def test_any_answer_but_success_is_tried_again_and_no_redirect_is_followed(allowing: Settings, status: int) -> None:
    with far_server(answers(status, Location="/elsewhere")) as receiver:
        ended(allowing, receiver.url())
        row = deliver(delivery())
        assert len(receiver.seen) == 1
    assert (row.state, row.tries, row.response_status) == ("pending", 1, status)
    assert f"answered {status}" in (row.error or "")
    assert 0 < waits_s(row) <= 5


def test_a_receiver_that_does_not_answer_in_time_is_tried_again(allowing: Settings) -> None:
    with far_server(say_nothing) as receiver:
        ended(allowing, receiver.url())
        row = deliver(delivery())
    assert (row.state, row.response_status, row.error) == ("pending", None, "The server did not answer in time.")


def test_a_receiver_that_feeds_its_answer_in_drips_is_left_in_time(allowing: Settings) -> None:
    def play(exchange: Exchange) -> None:
        exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        exchange.drip()

    with far_server(play) as receiver:
        ended(allowing, receiver.url())
        begin = datetime.now(UTC)
        row = deliver(delivery())
        assert datetime.now(UTC) - begin < timedelta(seconds=5)
    assert (row.state, row.response_status) == ("pending", None)


def test_a_receiver_that_nobody_listens_at_is_told_without_its_address(allowing: Settings) -> None:
    with far_server(answers(200)) as receiver:
        url = receiver.url()
    ended(allowing, url)
    row = deliver(delivery())
    assert row.state == "pending"
    assert row.error
    assert "127.0.0.1" not in row.error


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_says_when_to_come_back_is_obeyed(allowing: Settings, status: int) -> None:
    with far_server(answers(status, Retry_After="120")) as receiver:
        ended(allowing, receiver.url())
        row = deliver(delivery())
    assert 100 < waits_s(row) <= 120


def test_a_private_address_is_not_called_and_not_tried_again(settings: Settings) -> None:
    with far_server(answers(200)) as receiver:
        ended(settings, receiver.url())
        row = deliver(delivery())
        assert receiver.seen == []
    assert (row.state, row.tries, row.response_status) == ("failed", 1, None)
    assert "not public" in (row.error or "")


def test_a_receiver_that_is_gone_is_sent_nothing_more(allowing: Settings) -> None:
    with far_server(answers(410)) as receiver:
        for url in (receiver.url(), receiver.url(), receiver.url("/other")):
            ended(allowing, url)
        ended(allowing, receiver.url(), owner="key:1")
        deliver(deliveries()[0])
        ended(allowing, receiver.url())
        for row in deliveries(url=receiver.url(), owner=""):
            deliver(row)
        assert len(receiver.seen) == 1
    states = [(row.owner, row.url == receiver.url(), row.state, row.response_status) for row in deliveries()]
    assert states == [
        ("", True, "disabled", 410),
        ("", True, "disabled", None),
        ("", False, "pending", None),
        ("key:1", True, "pending", None),
        ("", True, "disabled", None),
    ]


def test_many_answers_of_a_receiver_that_is_gone_do_not_block_each_other(
    allowing: Settings, configure: Configure
) -> None:
    configure(webhook_timeout_seconds=20)
    all_here = Barrier(8)

    def play(exchange: Exchange) -> None:
        all_here.wait(15)
        exchange.answer(410)

    with far_server(play) as receiver, ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            ended(allowing, receiver.url())
        list(pool.map(deliver, deliveries()))
        assert len(receiver.seen) == 8
    assert {row.state for row in deliveries()} == {"disabled"}


def test_who_records_that_a_receiver_is_gone_waits_for_nobody_else(allowing: Settings) -> None:
    """Two that each have one row and wait for the other's would be a deadlock."""
    for _ in range(3):
        ended(allowing, NOWHERE)
    mine, busy, _ = deliveries()
    with transaction() as session:
        one = trying.claim(session, mine.id, timeout_s=1)
    assert one is not None
    with transaction() as other:
        other.execute(select(WebhookDelivery).where(WebhookDelivery.id == busy.id).with_for_update())
        assert recorded(one, Reply(410))
    assert [row.state for row in deliveries()] == ["disabled", "pending", "disabled"]


@pytest.mark.parametrize(
    "url", ["https://user:hush@far.example:8443/hush?hush", "http://far.example?hush", "http://[far"]
)
def test_the_log_names_no_more_of_an_address_than_its_server(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr(trying, "emit", lambda _, **fields: told.append(fields))
    one = trying.Try(uuid.uuid4(), "", url, {}, 1, (1,))
    trying.tell(one, Reply(500), Again(1, "No."))
    assert told[0]["receiver"] in ("far.example:8443", "far.example", "[far")


def test_a_message_is_given_up_after_the_last_try(allowing: Settings) -> None:
    with far_server(answers(500)) as receiver:
        ended(allowing, receiver.url())
        with transaction() as session:
            session.execute(update(WebhookDelivery).values(tries=outcome.MOST_TRIES - 1))
        row = deliver(delivery())
    assert (row.state, row.tries, row.response_status) == ("failed", outcome.MOST_TRIES, 500)
    assert "Given up after 11 tries" in (row.error or "")


def test_a_message_under_which_workers_die_is_given_up_without_another(allowing: Settings) -> None:
    with far_server(answers(200)) as receiver:
        ended(allowing, receiver.url())
        with transaction() as session:
            session.execute(update(WebhookDelivery).values(tries=outcome.MOST_TRIES))
        row = deliver(delivery())
        assert receiver.seen == []
    assert (row.state, row.error) == ("failed", trying.NEVER_ENDED)


def test_what_a_bug_interrupts_is_tried_again_later(allowing: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(trying, "signed_headers", lambda *_: {"webhook-id": None})
    ended(allowing, NOWHERE)
    assert (deliver(delivery()).error, delivery().state) == (trying.UNEXPECTED, "pending")


def test_a_try_whose_worker_died_is_due_after_its_lease_and_its_late_record_counts_no_more(allowing: Settings) -> None:
    ended(allowing, NOWHERE)
    row = delivery()
    with transaction() as session:
        dead = trying.claim(session, row.id, timeout_s=1)
    assert dead is not None
    with far_server(answers(200)) as receiver:
        with transaction() as session:
            session.execute(update(WebhookDelivery).values(url=receiver.url()))
        assert deliver(row).tries == 1
        assert 0 < waits_s(delivery()) <= 2
        assert receiver.seen == []
        due_now(row)
        with transaction() as session:
            second = trying.claim(session, row.id, timeout_s=1)
        assert not recorded(dead, Reply(500))
        assert delivery().error is None
        assert second is not None
        assert recorded(second, Reply(200))
        assert not recorded(second, Reply(500))
    assert (delivery().state, delivery().tries, delivery().response_status) == ("delivered", 2, 200)


def recorded(one: trying.Try, reply: Reply) -> bool:
    with transaction() as session:
        return trying.record(session, one, reply, outcome.plan(reply, tries=one.tries, chance=0.5))
