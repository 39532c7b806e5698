"""Which due deliveries get a doorbell: a bounded window, the receivers in turn. Knows no queue by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from config import Settings
from models import WebhookDelivery

WINDOW = 4  # doorbells in the queue, for each delivery that a worker sends at once
LOOK_AT_MOST = 20_000  # due deliveries among which receivers take turns


@dataclass(frozen=True, slots=True)
class Doorbell:
    delivery_id: UUID
    tries: int  # before this one


def choose_due(session: Session, settings: Settings, *, length: int) -> list[Doorbell]:
    """Mark as rung what fills the queue, of `length`, up to its window. The caller publishes them after its COMMIT."""
    room = WINDOW * settings.webhook_concurrency - length
    chosen = _due(session, settings, limit=room) if room > 0 else []
    if chosen:
        _mark(session, chosen, rung=True)
    return chosen


def unring(session: Session, chosen: Sequence[Doorbell]) -> None:
    """Redis took none of these, or it is not known which: they are chosen again as soon as it is back."""
    _mark(session, chosen, rung=False)


def _mark(session: Session, chosen: Sequence[Doorbell], *, rung: bool) -> None:
    deliveries = update(WebhookDelivery).where(WebhookDelivery.id.in_([bell.delivery_id for bell in chosen]))
    marked = deliveries.values(published_at=func.now() if rung else None)
    session.execute(marked, execution_options={"synchronize_session": False})


def _due(session: Session, settings: Settings, *, limit: int) -> list[Doorbell]:
    """The first of each receiver, then the second of each: one that hangs must not hold up all others."""
    stale = func.now() - timedelta(seconds=settings.republish_seconds)
    waiting = (
        select(WebhookDelivery.id, WebhookDelivery.owner, WebhookDelivery.url, WebhookDelivery.next_try_at)
        .where(
            WebhookDelivery.state == "pending",
            WebhookDelivery.next_try_at <= func.now(),
            or_(WebhookDelivery.published_at.is_(None), WebhookDelivery.published_at < stale),
        )
        .order_by(WebhookDelivery.next_try_at)
        .limit(LOOK_AT_MOST)
        .subquery()
    )
    receiver = (waiting.c.owner, waiting.c.url)
    turn = func.row_number().over(partition_by=receiver, order_by=waiting.c.next_try_at)
    turns = select(waiting.c.id, waiting.c.next_try_at, turn.label("turn")).subquery()
    first = select(turns).order_by(turns.c.turn, turns.c.next_try_at).limit(limit).cte("first")
    query = (
        select(WebhookDelivery.id, WebhookDelivery.tries)
        .join(first, first.c.id == WebhookDelivery.id)
        .order_by(first.c.turn, first.c.next_try_at)
        .with_for_update(of=WebhookDelivery, skip_locked=True)
    )
    return [Doorbell(*row) for row in session.execute(query)]
