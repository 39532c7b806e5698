"""What routes depend on: settings, storage, a session, and who is calling."""

from base64 import b64decode
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

import errors
from access.caller import ANYBODY, Caller
from access.gate import Gate
from access.limits import RateLimiter
from api.nearby import refuse_all_but_neighbours
from api.threads import Threads, in_thread
from config import Settings
from database import transaction
from storage import Storage


def get_settings(request: HTTPConnection) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def get_storage(request: HTTPConnection) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def reading() -> Iterator[Session]:
    """A session for reads. What writes opens its own: a commit here would come after the response has gone out."""
    with transaction() as session:
        yield session


async def authenticated(request: HTTPConnection) -> Caller:
    """Who calls, by `Authorization: Bearer KEY`, `X-API-Key: KEY` or HTTP Basic; counted against their rate limit."""
    gate: Gate = request.app.state.gate
    token = _token(request)
    caller = gate.recall(token)
    if caller is None:
        caller = await run_in_threadpool(gate.admit, token)
    if caller is ANYBODY:
        refuse_all_but_neighbours(request, get_settings(request))
    if caller.rate_limit_per_minute:
        limiter: RateLimiter = request.app.state.rate_limiter
        threads: Threads = request.app.state.threads
        window = await in_thread(threads.redis, limiter.hit, caller)
        request.state.rate_headers = window.headers
        window.raise_if_exceeded()
    return caller


def _token(request: HTTPConnection) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if key := request.headers.get("x-api-key", ""):
        return key
    return _password(credentials) if scheme.lower() == "basic" else ""


def _password(credentials: str) -> str:
    """Of a tool that knows nothing but an address: http://any:tk_…@host, or http://tk_…@host."""
    try:
        user, _, password = b64decode(credentials).decode().partition(":")
    except ValueError:
        return ""
    return password or user


async def an_admin(caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
    if not caller.is_admin:
        raise errors.Forbidden("This needs a key with the role admin. Yours has the role user.")
    return caller


Admin = Annotated[Caller, Depends(an_admin)]
ReadSession = Annotated[Session, Depends(reading, scope="function")]
AppSettings = Annotated[Settings, Depends(get_settings)]
AppStorage = Annotated[Storage, Depends(get_storage)]
CallerOf = Annotated[Caller, Depends(authenticated)]
