"""The deliveries as their owners see them: list, show, replay. Sends nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

import errors
from models import WebhookDelivery, made_at


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    owner: str | None = None  # None: everybody's
    job_id: UUID | None = None
    batch_id: UUID | None = None
    state: str | None = None


def message_id(delivery_id: UUID) -> str:
    """The webhook-id: the same at every try, so that a receiver can tell a second one."""
    return f"msg_{delivery_id.hex}"


def list_deliveries(
    session: Session, wanted: DeliveryFilter, *, limit: int, after: UUID | None
) -> Sequence[WebhookDelivery]:
    """Newest first. Raises NotFound where nothing tells when `after` was."""
    query = select(WebhookDelivery).order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc())
    for column, value in (
        (WebhookDelivery.owner, wanted.owner),
        (WebhookDelivery.job_id, wanted.job_id),
        (WebhookDelivery.batch_id, wanted.batch_id),
        (WebhookDelivery.state, wanted.state),
    ):
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        moment = _moment(session, after, wanted.owner)
        query = query.where(tuple_(WebhookDelivery.created_at, WebhookDelivery.id) < (moment, after))
    return session.scalars(query.limit(limit)).all()


def _moment(session: Session, delivery_id: UUID, owner: str | None) -> datetime:
    """When this delivery was recorded, also of one that is gone with its job."""
    is_gone = session.get(WebhookDelivery, delivery_id) is None
    return (made_at(delivery_id) if is_gone else None) or get_delivery(session, delivery_id, owner).created_at


def get_delivery(session: Session, delivery_id: UUID, owner: str | None = None) -> WebhookDelivery:
    """Raises NotFound, also for one of somebody else than `owner` (None: anybody's)."""
    delivery = session.get(WebhookDelivery, delivery_id)
    if delivery is None or owner not in (None, delivery.owner):
        raise errors.NotFound("There is no webhook delivery with this id. GET /webhooks/deliveries lists them.")
    return delivery


def replay(session: Session, delivery_id: UUID, owner: str | None = None) -> WebhookDelivery:
    """The same message once more, with every try before it; also to a receiver that is disabled.

    Raises NotFound, or Conflict while it is pending.
    """
    get_delivery(session, delivery_id, owner)
    afresh = {"state": "pending", "tries": 0, "next_try_at": func.now(), "published_at": None, "finished_at": None}
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.state != "pending")
        .values(afresh)
        .returning(WebhookDelivery)
    )
    delivery = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if delivery is None:
        raise errors.Conflict("The delivery is still pending: it is tried again at its next_try_at. Nothing to replay.")
    return delivery
