"""What routes depend on: settings, storage, a session, who is calling; and the request id around every request."""

import hmac
import re
import uuid
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import errors
from config import Settings
from database import transaction
from storage import Storage
from telemetry.logs import log_context

_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")


def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def get_storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def reading() -> Iterator[Session]:
    """A session for reads. What writes opens its own: a commit here would come after the response has gone out."""
    with transaction() as session:
        yield session


def require_key(request: Request) -> None:
    """`Authorization: Bearer KEY` or `X-API-Key: KEY`, where the operator has set one."""
    expected = get_settings(request).api_key.get_secret_value()
    if not expected:
        return
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise errors.Unauthorized("This service needs an API key: send it as 'Authorization: Bearer KEY'.")


ReadSession = Annotated[Session, Depends(reading, scope="function")]
AppSettings = Annotated[Settings, Depends(get_settings)]
AppStorage = Annotated[Storage, Depends(get_storage)]


class RequestId:
    """Gives every request an id, in its log lines and in the X-Request-ID header of the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = _given_id(scope) or uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[tuple[bytes, bytes]] = message.setdefault("headers", [])
                headers.append((b"x-request-id", request_id.encode()))
            await send(message)

        with log_context(request_id=request_id):
            await self._app(scope, receive, send_with_id)


def _given_id(scope: dict[str, Any] | Scope) -> str | None:
    """The caller's own id, if it is fit for a log line."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return None
