"""What goes around every request: its id, the headers of every answer. Pure ASGI: no thread, no buffering."""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.logs import log_context

_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
MOST_HEADER_BYTES = 16 * 1024  # uvicorn's own limit holds only where they come in more than one piece
PAGE = "/ui/"  # ui/ serves it
PAGE_HEADERS = {
    # The last two: text never becomes markup; innerHTML and its kin throw
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types worker-address",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",  # kept, but asked for by its ETag each time
}
PAGES = ("/docs", "/docs/oauth2-redirect", "/redoc")  # FastAPI's own, which load their scripts from a CDN


class Edge:
    """Gives every request an id, in its log lines and in X-Request-ID; adds the headers that protect a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = _given_id(scope) or uuid.uuid4().hex
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                _add_headers(MutableHeaders(scope=message), scope)
            await send(message)

        with log_context(request_id=request_id):
            if scope["type"] == "http" and _header_bytes(scope) > MOST_HEADER_BYTES:
                refusal = HTTPException(431, f"The headers are larger than {MOST_HEADER_BYTES} bytes. Send fewer.")
                await _answer(HTTPException, refusal, scope, receive, send_with_headers)
                return
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                if scope["type"] == "http" and not has_started:
                    # Starlette would answer outside of us: without our headers and the request's id
                    await _answer(Exception, error, scope, receive, send_with_headers)
                raise  # the server closes the connection, and a test sees it


async def _answer(kind: type[Exception], error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """As the application answers errors of this kind."""
    handler: Callable[..., Any] | None = scope["app"].exception_handlers.get(kind)
    if handler is not None:
        answer = handler(Request(scope), error)
        response: ASGIApp = await answer if isinstance(answer, Awaitable) else answer
        await response(scope, receive, send)


def _header_bytes(scope: Scope) -> int:
    return sum(len(name) + len(value) for name, value in scope["headers"])


def _add_headers(headers: MutableHeaders, scope: Scope) -> None:
    own = PAGE_HEADERS if scope["path"].startswith(PAGE) else {}
    for name, value in (SECURITY_HEADERS | own).items():
        headers.setdefault(name, value)
    if scope["path"] not in PAGES:
        headers.setdefault("Content-Security-Policy", POLICY)
    headers["X-Request-ID"] = scope["request_id"]
    headers.update(scope.get("state", {}).get("rate_headers", {}))


def _given_id(scope: Scope) -> str | None:
    """The caller's own id, if it is fit for a log line."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return None
