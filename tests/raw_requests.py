"""Requests that no honest client sends, straight to the ASGI application: any header, any body, broken off anywhere."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Headers = (),
    chunks: Sequence[bytes] = (),
    *,
    breaks_off: bool = False,
) -> Answer:
    """Raises what the application raises; a server would answer 500 then. `breaks_off`: gone after the last chunk."""
    return asyncio.run(_request(app, _scope(method, path, headers), list(chunks), breaks_off=breaks_off))


async def _request(app: ASGIApp, scope: dict[str, Any], left: list[bytes], *, breaks_off: bool) -> Answer:
    answer = Answer()

    async def receive() -> Message:
        if left:
            chunk = left.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(left) or breaks_off}
        return {"type": "http.disconnect"} if breaks_off else {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


def _scope(method: str, path: str, headers: Headers) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *((name.lower(), value) for name, value in headers)],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }
