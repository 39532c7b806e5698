"""/admin/models: which models are loaded, and orders to load or unload one. Loads nothing itself."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, status
from pydantic import BaseModel, Field

import errors
from access.caller import Caller
from api.deps import Admin, AppSettings, ReadSession, an_admin
from api.problems import documented
from api.schemas import MOMENT
from config import MODEL_SIZES, Settings
from database import transaction
from engines.catalog import canonical
from jobs import audit, orders, presence, read
from jobs.orders import Wanted
from jobs.submit import JobRequest, validate
from models import ModelOrder
from telemetry.events import emit

Size = Annotated[str, Path(description="A size such as `small`, or a path below MODEL_ALLOWED_PATHS.")]
Row = dict[str, Any]
router = APIRouter(prefix="/admin/models", tags=["admin"], dependencies=[Depends(an_admin)])


class LoadedModel(BaseModel):
    """In one process: an engine server, which all children of its worker use, or a child with an engine of its own."""

    worker: str = Field(examples=["host:4711.1f2e3d4c"])
    device: str = Field(examples=["cuda"])
    process: int = Field(examples=[4720])
    compute_type: str = Field(examples=["float16"])
    memory_bytes: int = Field(examples=[480_000_000])
    use_count: int = Field(description="How often it was leased.", examples=[12])
    in_use: int = Field(description="Leases now.", examples=[0])
    loaded_at: datetime = Field(examples=[MOMENT])
    last_used: datetime = Field(examples=[MOMENT])


class LastOrder(BaseModel):
    wanted: Wanted = Field(examples=["loaded"])
    ordered_at: datetime = Field(examples=[MOMENT])


class ModelState(BaseModel):
    size: str = Field(description="`large-v3` for `large`, `large-v3-turbo` for `turbo`.", examples=["small"])
    is_default: bool = Field(description="What a request gets that names none.", examples=[True])
    loaded: list[LoadedModel] = Field(description="As told by the last heartbeats, seconds ago.")
    ordered: LastOrder | None = Field(description="Null: nobody ordered anything about it.")


class ModelStates(BaseModel):
    object: Literal["list"] = Field("list", examples=["list"])
    data: list[ModelState]


class Ordered(BaseModel):
    """Taken down. GET /admin/models shows what became of it."""

    size: str = Field(examples=["small"])
    wanted: Wanted = Field(examples=["loaded"])
    ordered_at: datetime = Field(examples=[MOMENT])


@router.get("", responses=documented(401, 503))
def list_models(session: ReadSession, settings: AppSettings) -> ModelStates:
    """Every model that is loaded somewhere or was ordered, and the default one."""
    loaded = _loaded(presence.devices_of(read.transcribers(session, within_s=presence.seen_within_s(settings))))
    ordered = {order.size: order for order in orders.placed(session)}
    default = canonical(settings.whisper_model_size)
    return ModelStates(
        data=[
            ModelState(
                size=size,
                is_default=size == default,
                loaded=loaded.get(size, []),
                ordered=_last_order(ordered.get(size)),
            )
            for size in sorted({default, *loaded, *ordered})
        ]
    )


@router.post("/{size:path}", status_code=status.HTTP_202_ACCEPTED, responses=documented(401, 404, 422, 503))
def load_model(size: Size, settings: AppSettings, admin: Admin) -> Ordered:
    """Have every worker that lives load it on each of its devices, within seconds and however long loading takes.

    Also the one that only tries failed jobs again. A process that starts later does not: MODEL_WARMUP is for that.
    Where loading fails, the worker's log says why (`pool.order_failed`).
    """
    return _order(size, "loaded", settings, admin)


@router.delete("/{size:path}", status_code=status.HTTP_202_ACCEPTED, responses=documented(401, 404, 422, 503))
def unload_model(size: Size, settings: AppSettings, admin: Admin) -> Ordered:
    """Have every worker that lives give back its memory, within seconds.

    A model in use serves the batch that it works on and then goes. A job that needs it after that loads it again, a
    running job too: order it once such jobs are done.
    """
    return _order(size, "unloaded", settings, admin)


def _order(size: str, wanted: Wanted, settings: Settings, admin: Caller) -> Ordered:
    _refuse_unknown(size, settings)
    with transaction() as session:
        order = orders.place(session, canonical(size), wanted)
        audit.note(session, admin.name, f"model.{wanted}", order.size)
    emit("model.ordered", size=order.size.rpartition("/")[2], wanted=wanted)
    return Ordered(size=order.size, wanted=wanted, ordered_at=order.ordered_at)


def _refuse_unknown(size: str, settings: Settings) -> None:
    """What a job may ask for, an order may."""
    try:
        validate(JobRequest(size), settings)
    except errors.InvalidOption as error:
        expected = f"expected one of {', '.join(MODEL_SIZES)}, or a path below MODEL_ALLOWED_PATHS"
        raise errors.NotFound(f"There is no such model: {expected}.") from error


def _loaded(devices: list[Row]) -> dict[str, list[LoadedModel]]:
    """By size."""
    found: dict[str, list[LoadedModel]] = {}
    for device in devices:
        place = {"worker": device["worker"], "device": device["device"], "process": device["pid"]}
        for model in device.get("loaded", ()):
            found.setdefault(model["size"], []).append(LoadedModel(**place, **model))
    return found


def _last_order(order: ModelOrder | None) -> LastOrder | None:
    return LastOrder.model_validate(order, from_attributes=True) if order else None
