"""/webhooks: the secret that signs a caller's messages, and what has become of each message."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from access.caller import Caller
from access.secret import derive
from api.deps import AppSettings, CallerOf, ReadSession
from api.present import edges
from api.problems import documented
from api.schemas import JOB_ID, MOMENT, ListOut
from config import Settings
from database import transaction
from jobs import read
from jobs.states import wake_relay
from models import WebhookDelivery
from telemetry.events import emit
from webhooks import ledger, signature
from webhooks.ledger import DeliveryFilter

DELIVERY_ID = "0d3f1f8e-6c1a-4d53-9a53-0a4b7f9d2c11"
StateName = Literal["pending", "delivered", "failed", "disabled"]
router = APIRouter(prefix="/webhooks", tags=["webhooks"])


class SecretOut(BaseModel):
    secret: str = Field(
        description="Verify webhook-signature with it, as by standardwebhooks.com.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="],
    )
    previous_valid_until: datetime | None = Field(
        description="Until then messages are signed with the secret before as well.", examples=[None]
    )


class DeliveryOut(BaseModel):
    id: UUID = Field(examples=[DELIVERY_ID])
    webhook_id: str = Field(description="As sent; the same at every try.", examples=["msg_0d3f1f8e6c1a4d53"])
    type: str = Field(examples=["transcription.completed"])
    job_id: UUID | None = Field(examples=[JOB_ID])
    batch_id: UUID | None = Field(description="Of a message about a whole batch.", examples=[None])
    url: str = Field(examples=["https://example.com/hook"])
    state: StateName = Field(examples=["pending"])
    tries: int = Field(description="Begun so far.", examples=[1])
    next_try_at: datetime | None = Field(description="Null unless pending.", examples=[MOMENT])
    response_status: int | None = Field(description="Of the last try; null without an answer.", examples=[503])
    error: str | None = Field(description="Why the last try failed.", examples=["The server did not answer in time."])
    created_at: datetime = Field(examples=[MOMENT])
    finished_at: datetime | None = Field(examples=[None])


class DeliveryDetail(DeliveryOut):
    payload: dict[str, Any] = Field(description="The body of the message.", examples=[{"type": "batch.completed"}])


class DeliveryQuery(BaseModel):
    """Filters of GET /webhooks/deliveries; each narrows."""

    model_config = ConfigDict(extra="forbid")

    job_id: UUID | None = None
    batch_id: UUID | None = Field(None, description="Only the message about the batch, not those about its jobs.")
    state: StateName | None = None
    limit: int = Field(20, ge=1, le=100)
    after: UUID | None = Field(None, description="`last_id` of the page before.")


@router.get("/secret", responses=documented(401, 429, 503))
def get_secret(session: ReadSession, settings: AppSettings, caller: CallerOf, response: Response) -> SecretOut:
    """What your webhooks are signed with."""
    return _secret(signature.secret_numbers(session, caller.owner), caller, settings, response)


@router.post("/secret/rotate", responses=documented(401, 429, 503))
def rotate_secret(settings: AppSettings, caller: CallerOf, response: Response) -> SecretOut:
    """A new secret. For 24 hours messages carry a signature of the one before, too; never of any older one."""
    with transaction() as session:
        numbers = signature.rotate(session, caller.owner)
    emit("webhook.secret_rotated", owner=caller.owner, number=numbers.current)
    return _secret(numbers, caller, settings, response)


@router.get("/deliveries", responses=documented(401, 404, 422, 429, 503))
def list_deliveries(
    session: ReadSession, caller: CallerOf, query: Annotated[DeliveryQuery, Query()]
) -> ListOut[DeliveryOut]:
    """Webhook messages, newest first: yours, or everybody's for an admin."""
    wanted = DeliveryFilter(caller.scope, query.job_id, query.batch_id, query.state)
    rows = ledger.list_deliveries(session, wanted, limit=query.limit + 1, after=query.after)
    page = read.page_of(rows, query.limit)
    return ListOut[DeliveryOut](data=[DeliveryOut(**_columns(row)) for row in page.rows], **edges(page))


@router.get("/deliveries/{delivery_id}", responses=documented(401, 404, 422, 429, 503))
def get_delivery(delivery_id: UUID, session: ReadSession, caller: CallerOf) -> DeliveryDetail:
    """One message, with its body."""
    delivery = ledger.get_delivery(session, delivery_id, caller.scope)
    return DeliveryDetail(**_columns(delivery), payload=delivery.payload)


@router.post(
    "/deliveries/{delivery_id}/replay",
    status_code=status.HTTP_202_ACCEPTED,
    responses=documented(401, 404, 409, 422, 429, 503),
)
def replay_delivery(delivery_id: UUID, caller: CallerOf) -> DeliveryOut:
    """Send it again under the same webhook-id. One that succeeds opens a disabled receiver for all that follows."""
    with transaction() as session:
        delivery = ledger.replay(session, delivery_id, caller.scope)
        wake_relay(session, "webhook")
    emit("webhook.replayed", delivery_id=str(delivery_id))
    return DeliveryOut(**_columns(delivery))


def _secret(numbers: signature.SecretNumbers, caller: Caller, settings: Settings, response: Response) -> SecretOut:
    response.headers["Cache-Control"] = "no-store"
    secret = derive(settings, signature.PURPOSE, signature.seed(caller.owner, numbers.current))
    return SecretOut(secret=signature.written(secret), previous_valid_until=numbers.previous_valid_until)


def _columns(delivery: WebhookDelivery) -> dict[str, Any]:
    names = DeliveryOut.model_fields.keys() - {"webhook_id"}
    return {"webhook_id": ledger.message_id(delivery.id), **{name: getattr(delivery, name) for name in names}}
