"""/admin/keys: make, list and revoke API keys. Shows a key once, when it is made."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, status
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from access import keys
from access.caller import LONGEST_NAME, is_name
from api.deps import Admin, AppSettings, ReadSession, an_admin
from api.problems import documented
from api.schemas import MOMENT
from database import transaction
from jobs import audit
from telemetry.events import emit

KEY_ID = "4f1c2a1e-9d0b-4c39-8a51-0f6e1f3f2b7a"
REFUSALS = (401, 403, 422, 429, 503)
Role = Literal["user", "admin"]
Limit = Annotated[int | None, Field(ge=0)]
router = APIRouter(prefix="/admin/keys", tags=["admin"], dependencies=[Depends(an_admin)])


def _printable(name: str) -> str:
    if not is_name(name):
        raise ValueError("may hold only characters that can be printed")
    return name


class KeyIn(BaseModel):
    """Null or left out: as the settings say. 0: no limit."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(_printable)] = Field(
        min_length=1, max_length=LONGEST_NAME, description="Whose it is, for people.", examples=["newsroom"]
    )
    role: Role = Field("user", description="`user` sees its own jobs; `admin` all of them, and /admin.")
    expires_at: AwareDatetime | None = Field(None, description="Within 100 years.", examples=["2099-01-31T00:00:00Z"])
    rate_limit_per_minute: Limit = Field(None, le=keys.MOST_REQUESTS, description="Requests.", examples=[600])
    quota_waiting_jobs: Limit = Field(None, le=keys.MOST_JOBS, description="Jobs that may wait.", examples=[100])
    quota_audio_hours_per_day: float | None = Field(
        None, ge=0, le=keys.MOST_HOURS, allow_inf_nan=False, description="Hours of audio in 24 hours.", examples=[50.0]
    )
    delete_after_seconds: int | None = Field(
        None, ge=1, le=keys.LONGEST_KEPT_S, description="Its jobs are deleted so long after they are final, or sooner."
    )


class KeyOut(BaseModel):
    id: UUID = Field(examples=[KEY_ID])
    name: str = Field(examples=["newsroom"])
    role: Role = Field(examples=["user"])
    hint: str = Field(description="How the key begins.", examples=["tk_Jx81a"])
    state: keys.State = Field(examples=["active"])
    rate_limit_per_minute: int | None = Field(examples=[600])
    quota_waiting_jobs: int | None = Field(examples=[100])
    quota_audio_hours_per_day: float | None = Field(examples=[50.0])
    delete_after_seconds: int | None = Field(examples=[None])
    created_at: datetime = Field(examples=[MOMENT])
    expires_at: datetime | None = Field(examples=[None])
    revoked_at: datetime | None = Field(examples=[None])
    last_used_at: datetime | None = Field(description="To the minute.", examples=[MOMENT])


class KeyMade(KeyOut):
    key: str = Field(description="Shown this once.", examples=["tk_Jx81aEXAMPLEonlyNotARealKey"])


class KeyList(BaseModel):
    object: Literal["list"] = Field("list", examples=["list"])
    data: list[KeyOut]


@router.get("", responses=documented(401, 403, 429, 503))
def list_keys(session: ReadSession) -> KeyList:
    """All keys, newest first, also revoked ones. Never the keys themselves."""
    return KeyList(data=[KeyOut(**keys.shown(key)) for key in keys.list_keys(session)])


@router.post("", status_code=status.HTTP_201_CREATED, responses=documented(400, *REFUSALS))
def create_key(wanted: KeyIn, request: Request, settings: AppSettings, admin: Admin) -> KeyMade:
    """Make a key. With the first one, a service that was open on its own machine asks everybody for a key."""
    values = wanted.model_dump(exclude={"delete_after_seconds"})
    asked = keys.KeyRequest(**values, delete_after_s=wanted.delete_after_seconds)
    with transaction() as session:
        key, token = keys.create(session, asked, settings)
        audit.note(session, admin.name, "key.created", str(key.id), name=key.name, role=key.role)
    request.app.state.gate.forget()
    emit("key.created", key_id=str(key.id), owner_name=key.name, role=key.role)
    return KeyMade(**keys.shown(key), key=token)


@router.delete("/{key_id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(404, *REFUSALS))
def revoke_key(key_id: UUID, request: Request, admin: Admin) -> Response:
    """Refuse a key from now on: at once in the process that answers, within seconds in others. Jobs stay."""
    with transaction() as session:
        key = keys.revoke(session, key_id)
        audit.note(session, admin.name, "key.revoked", str(key.id), name=key.name)
    request.app.state.gate.forget()
    emit("key.revoked", key_id=str(key.id), owner_name=key.name)
    return Response(status_code=status.HTTP_204_NO_CONTENT)
