"""What happens to a job, as it happens: server-sent events, and the same over a WebSocket."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from typing import Annotated
from uuid import UUID

import anyio
from fastapi import APIRouter, Header, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection

import errors
from api.deps import CallerOf, authenticated, get_settings
from api.problems import documented
from api.telling import Event, cursor_of, told
from api.watch import Changes, Cursor, Watchers
from config import split_list

HEARTBEAT_S = 15.0  # proxies close what is silent for longer, most of them after 60 s
RETRY_MS = 2000
BATCH = 100  # events that are written at once: the client's pace decides about the next
BEARER = "bearer"
MAX_REASON = 123  # bytes of a close frame
router = APIRouter(tags=["events"])


async def _batches(
    following: AsyncGenerator[Changes | None, None], cursor: Cursor
) -> AsyncGenerator[Sequence[Event], None]:
    """Never empty, but for a heartbeat; none at all where there is nothing left to tell."""
    async with aclosing(following):
        async for changes in following:
            if changes is None:
                yield ()
                continue
            news = told(changes, cursor)
            while batch := tuple(islice(news, BATCH)):
                yield batch
            cursor = changes.cursor


def _watching(
    connection: HTTPConnection, job_id: UUID, owner: str | None, cursor: Cursor
) -> AsyncGenerator[Sequence[Event], None]:
    watchers: Watchers = connection.app.state.watchers
    return _batches(watchers.follow(job_id, owner, cursor, heartbeat_s=HEARTBEAT_S), cursor)


async def _whole(
    first: Sequence[Event], rest: AsyncGenerator[Sequence[Event], None]
) -> AsyncGenerator[Sequence[Event], None]:
    async with aclosing(rest):
        yield first
        async for batch in rest:
            yield batch


@router.get(
    "/transcribe/{job_id}/events",
    response_class=Response,
    responses={
        **documented(401, 404, 422, 429, 503),
        200: {
            "description": "Events, until the job is final.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "Everything up to the closing status was seen: do not connect again."},
    },
)
async def get_events(
    job_id: UUID,
    request: Request,
    caller: CallerOf,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Only what came after this event.", examples=["12.34"])
    ] = None,
) -> Response:
    """Follow a job by server-sent events: `status` and `segment`, each once, `progress` when it changes.

    Ends with the `status` that is final. A connection that breaks off before is opened again with `Last-Event-ID`, as
    an `EventSource` does by itself, and goes on where it was.
    """
    batches = _watching(request, job_id, caller.scope, cursor_of(last_event_id, "Last-Event-ID"))
    first = await anext(batches, None)  # errors become an answer only as long as none has begun
    if first is None:
        return Response(status_code=204)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_as_text(_whole(first, batches)), media_type="text/event-stream", headers=headers)


async def _as_text(batches: AsyncGenerator[Sequence[Event], None]) -> AsyncIterator[str]:
    """No empty line but after an event: some clients take one for an event."""
    async with aclosing(batches):
        yield f"retry: {RETRY_MS}\n"
        async for batch in batches:
            yield "".join(event.as_text() for event in batch) or ": keep-alive\n"


@router.websocket("/ws/jobs/{job_id}")
async def watch_job(socket: WebSocket, job_id: str) -> None:
    """The events as JSON: {"event", "id", "data"}; `?last_event_id=` to go on. Closes with 1000 after the final status,
    with 1012 where it is to be opened again, 1013 while the service cannot answer, 4000 + HTTP status if it refuses.
    """
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(BEARER if offered[:1] == [BEARER] else None)  # browsers see the code of an accepted one only
    try:
        code, reason = await _serve(socket, job_id), ""
    except errors.ServiceError as error:
        code = 1013 if isinstance(error, errors.Unavailable) else 4000 + error.status
        reason = str(error).encode()[:MAX_REASON].decode(errors="ignore")
    except WebSocketDisconnect:
        return
    with suppress(RuntimeError, WebSocketDisconnect):  # it has closed meanwhile
        await socket.close(code, reason)


async def _serve(socket: WebSocket, job_id: str) -> int:
    """The code to close with."""
    _check_origin(socket)
    caller = await authenticated(_with_key(socket))
    cursor = cursor_of(socket.query_params.get("last_event_id"), "last_event_id")
    batches = _watching(socket, _job_id(job_id), caller.scope, cursor)
    first = await anext(batches, None)
    if first is None:
        return 1000
    return 1000 if await _send(socket, _whole(first, batches)) else 1012


def _check_origin(socket: WebSocket) -> None:
    """A page of elsewhere may open WebSockets from its visitor's browser, wherever that one can reach."""
    origin = socket.headers.get("origin")
    allowed = split_list(get_settings(socket).cors_origins)
    if origin is None or origin in allowed or "*" in allowed:
        return
    _, _, host = origin.partition("://")
    if not host or host.lower() != socket.headers.get("host", "").lower():
        raise errors.Forbidden("Pages of this origin may not connect. Add the origin to CORS_ORIGINS.")


def _with_key(socket: WebSocket) -> HTTPConnection:
    """A page cannot set headers: its key comes as the subprotocol after `bearer`."""
    match socket.scope.get("subprotocols"):
        case [str(first), str(key), *_] if first == BEARER and "authorization" not in socket.headers:
            given = (b"authorization", f"Bearer {key}".encode("latin-1"))
            return HTTPConnection({**socket.scope, "headers": [*socket.scope["headers"], given]})
    return socket


def _job_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise errors.NotFound(
            "There is no job with this id. It is a UUID, as POST /transcribe/ has given it."
        ) from None


async def _send(socket: WebSocket, batches: AsyncGenerator[Sequence[Event], None]) -> bool:
    """Whether the job is final. Returns early when the client is gone."""
    is_final = False
    async with aclosing(batches), anyio.create_task_group() as group:
        group.start_soon(_cancel_when_gone, socket, group.cancel_scope)
        with suppress(WebSocketDisconnect):
            async for batch in batches:
                for event in batch:
                    await socket.send_text(event.as_frame())
                    is_final = event.is_final
        group.cancel_scope.cancel()
    return is_final


async def _cancel_when_gone(socket: WebSocket, scope: anyio.CancelScope) -> None:
    heard = ""
    while heard != "websocket.disconnect":
        heard = (await socket.receive())["type"]  # what a client says is not listened to
    scope.cancel()
