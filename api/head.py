"""HEAD wherever there is GET (RFC 9110, 9.3.2): the same answer without its content. Pure ASGI: no thread."""

from anyio import CancelScope
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # shared: what is noted there is for whoever stands around us
        as_get = {**scope, "method": "GET"}
        has_ended = False

        async def send_head(message: Message) -> None:
            nonlocal has_ended
            if message["type"] == "http.response.start":
                scope.update({name: as_get[name] for name in ("route",) if name in as_get})
                await send(message)
            elif not has_ended:
                has_ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                if message.get("more_body"):  # a recording, or a stream without end: nothing more is read of it
                    rest.cancel()

        with CancelScope() as rest:
            await self._app(as_get, receive, send_head)
