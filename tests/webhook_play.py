"""What the tests of webhooks share: receivers, jobs that become final, and looks at the deliveries."""

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from standardwebhooks import Webhook

import errors
import tasks
from access.secret import derive
from config import Settings
from database import transaction
from jobs.cancel import cancel
from jobs.progress import Fence
from jobs.states import Status
from jobs.submit import open_batch
from models import Job, WebhookDelivery
from tests.checker import fail, finish, new_job, take
from tests.far_server import Exchange, Play
from webhooks import doorbells, signature
from webhooks.doorbells import Doorbell

NOWHERE = "http://127.0.0.1:9/hook"


def answers(*statuses: int, body: bytes = b"", **headers: str) -> Play:
    """These, one after the other; the last one for ever."""
    left: Iterator[int] = chain(statuses, repeat(statuses[-1]))
    return lambda exchange: exchange.answer(next(left), body, **headers)


def begun(settings: Settings, url: str | None, *, owner: str = "", **request: Any) -> Fence:
    """A job of `owner` that a worker is busy with."""
    job_id = new_job(webhook_url=url, **request)
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(owner=owner))
    return take(job_id, settings).fence


def ended(settings: Settings, url: str | None, status: Status = Status.COMPLETED, **job: Any) -> UUID:
    fence = begun(settings, url, **job)
    if status is Status.COMPLETED:
        assert finish(fence)
    elif status is Status.FAILED:
        assert fail(fence, errors.NoAudioStream("There is no sound in it."), settings)
    else:
        with transaction() as session:
            cancel(session, fence.job_id)
    return fence.job_id


def new_batch(url: str | None) -> UUID:
    with transaction() as session:
        return open_batch(session, refused=[], webhook_url=url).id


def deliveries(**columns: object) -> list[WebhookDelivery]:
    """Oldest first."""
    query = select(WebhookDelivery).filter_by(**columns).order_by(WebhookDelivery.created_at)
    with transaction() as session:
        return list(session.scalars(query))


def delivery(**columns: object) -> WebhookDelivery:
    (found,) = deliveries(**columns)
    return found


def deliver(row: WebhookDelivery) -> WebhookDelivery:
    """As a worker does that hears its doorbell; the row as it is then."""
    tasks.deliver_webhook(str(row.id))
    return delivery(id=row.id)


def due_now(row: WebhookDelivery) -> WebhookDelivery:
    """The wait, or the lease, is over."""
    with transaction() as session:
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id == row.id).values(next_try_at=func.now()))
    return row


def waits_s(row: WebhookDelivery) -> float:
    with transaction() as session:
        now = session.scalar(select(func.now()))
    assert now is not None
    assert row.next_try_at is not None
    return float((row.next_try_at - now).total_seconds())


def verified(exchange: Exchange, settings: Settings, *, owner: str = "", number: int = 1) -> Any:
    """The message, as a receiver with this secret takes it. Raises WebhookVerificationError."""
    secret = signature.written(derive(settings, signature.PURPOSE, signature.seed(owner, number)))
    return Webhook(secret).verify(exchange.received, dict(exchange.headers))


def rung(settings: Settings, in_queue: int = 0) -> list[Doorbell]:
    with transaction() as session:
        return doorbells.choose_due(session, settings, length=in_queue)
