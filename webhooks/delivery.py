"""One try of one delivery: claim the row, send, record. A try is committed before its first byte is sent.

A worker that dies in between leaves a row that is due again after its lease: at least once, under the same webhook-id.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

import errors
from models import DisabledReceiver, Job, WebhookDelivery
from outbound import Outbound
from telemetry import traces
from telemetry.events import emit
from webhooks.ledger import message_id
from webhooks.outcome import MOST_TRIES, Again, Delivered, Disabled, Failed, Outcome, Reply, plan, retry_after_s
from webhooks.signature import secret_numbers, signed_headers

LEASE_TIMEOUTS = 2  # so long after its claim a try that was not recorded is taken for dead
NEVER_ENDED = "Sending was begun too often and never ended; the operator's log may tell why."
UNEXPECTED = "Sending failed in an unexpected way; the operator's log has the details."


@dataclass(frozen=True, slots=True)
class Try:
    """What is being sent. `tries`, with this one, is the fence."""

    id: UUID
    owner: str
    url: str
    payload: dict[str, Any]
    tries: int
    secret_numbers: tuple[int, ...]  # newest first
    traceparent: str | None = None  # of the request that made the job


def claim(session: Session, delivery_id: UUID, *, timeout_s: float) -> Try | None:
    """Count the try and lease the row. None: delivered, given up, leased by somebody else or not due."""
    origin = select(Job.traceparent).where(Job.id == WebhookDelivery.job_id).correlate(WebhookDelivery)
    claimed = session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.id == delivery_id,
            WebhookDelivery.state == "pending",
            WebhookDelivery.next_try_at <= func.now(),
        )
        .values(
            tries=WebhookDelivery.tries + 1,
            next_try_at=func.now() + timedelta(seconds=LEASE_TIMEOUTS * timeout_s),
            published_at=None,
        )
        .returning(WebhookDelivery, origin.scalar_subquery())
    ).one_or_none()
    if claimed is None:
        return None
    row, parent = claimed
    return Try(row.id, row.owner, row.url, row.payload, row.tries, secret_numbers(session, row.owner).signing, parent)


def send(one: Try, outbound: Outbound, secrets: Sequence[bytes], *, timeout_s: float) -> Reply:
    """Raises nothing: whatever happens is a reply."""
    if one.tries > MOST_TRIES:
        return Reply(error=NEVER_ENDED, is_final=True)
    body = json.dumps(one.payload, ensure_ascii=False).encode()
    headers = signed_headers(message_id(one.id), int(time()), body, secrets)
    if parent := traces.traceparent():
        headers["traceparent"] = parent
    try:
        answer = outbound.post(one.url, body=body, headers=headers, timeout_s=timeout_s)
    except errors.AddressRefused as reason:
        return Reply(error=str(reason), is_final=True)
    except errors.FetchFailed as reason:
        return Reply(error=str(reason))
    except Exception as bug:  # noqa: BLE001 without a record it would be sent again after every lease
        emit("webhook.crashed", delivery_id=str(one.id), exc_info=bug)
        return Reply(error=UNEXPECTED)
    return Reply(answer.status, retry_after_s(answer.headers.get("retry-after", ""), datetime.now(UTC)))


def outcome_of(one: Try, reply: Reply) -> Outcome:
    return plan(reply, tries=one.tries, chance=random.random())  # noqa: S311


def record(session: Session, one: Try, reply: Reply, outcome: Outcome) -> bool:
    """False: the lease was over and somebody else has tried, so nothing was written."""
    written = session.scalar(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == one.id, WebhookDelivery.state == "pending", WebhookDelivery.tries == one.tries)
        .values(response_status=reply.status, error=outcome.error, **_follows(outcome))
        .returning(WebhookDelivery.id)
    )
    if written is None:
        return False
    if isinstance(outcome, Delivered):
        _enable(session, one)
    elif isinstance(outcome, Disabled):
        _disable(session, one)
    return True


def _follows(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Again):
        return {"next_try_at": func.now() + timedelta(seconds=outcome.delay_s)}
    return {"state": _state(outcome), "next_try_at": None, "finished_at": func.now()}


def _state(outcome: Delivered | Failed | Disabled) -> str:
    return type(outcome).__name__.lower()


def _enable(session: Session, one: Try) -> None:
    receiver = (DisabledReceiver.owner == one.owner, DisabledReceiver.url == one.url)
    session.execute(delete(DisabledReceiver).where(*receiver))


def _disable(session: Session, one: Try) -> None:
    """Nothing more is sent there. What somebody else has locked asks for itself: to wait could be a deadlock."""
    session.execute(insert(DisabledReceiver).values(owner=one.owner, url=one.url).on_conflict_do_nothing())
    same = (WebhookDelivery.owner == one.owner, WebhookDelivery.url == one.url, WebhookDelivery.state == "pending")
    others = select(WebhookDelivery.id).where(*same).with_for_update(skip_locked=True).cte("others")
    ended = {"state": "disabled", "next_try_at": None, "finished_at": func.now()}
    session.execute(update(WebhookDelivery).where(WebhookDelivery.id == others.c.id).values(ended))


def tell(one: Try, reply: Reply, outcome: Outcome) -> None:
    """Of the address only the server: paths and queries of webhooks are often secrets."""
    verb = "retrying" if isinstance(outcome, Again) else _state(outcome)
    emit(
        f"webhook.{verb}",
        delivery_id=str(one.id),
        receiver=re.split("[/?#]", one.url.partition("://")[2])[0].rpartition("@")[2],
        tries=one.tries,
        status=reply.status,
        reason=outcome.error,
    )
