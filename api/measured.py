"""Counts every answer by its route, and puts a span around every request. Pure ASGI: no thread, no buffering."""

from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry import traces
from telemetry.events import count

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
NO_ROUTE = "other"  # a label for each address that strangers try would fill the memory
UNTRACED = ("/health", "/metrics")


class Measured:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, method = monotonic(), scope["method"] if scope["method"] in METHODS else NO_ROUTE

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = route_of(scope)
                count(
                    "http.answered", method=method, route=route, status=message["status"], seconds=monotonic() - started
                )
                if span is not None:
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.response.status_code", message["status"])
            await send(message)

        if scope["path"].startswith(UNTRACED):
            span = None
            await self._app(scope, receive, send_counted)
            return
        parent = Headers(scope=scope).get("traceparent")
        with traces.span(method, parent, kind="server", **{"http.request.method": method}) as span:
            await self._app(scope, receive, send_counted)


def route_of(scope: Scope) -> str:
    """The template, such as /transcribe/{job_id}."""
    return getattr(scope.get("route"), "path", NO_ROUTE)
