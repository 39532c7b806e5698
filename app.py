"""The API process: create_app(), lifespan, error handlers, mounts. No rule of its own, no model, no media."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import socket
from typing import Any

import anyio.to_thread
import uvicorn
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware
from sqlalchemy.exc import ProgrammingError

import errors
import ui
from access.gate import Gate, any_key_exists
from access.limits import RateLimiter
from api import (
    asr,
    batches,
    corrections,
    document,
    engines,
    events,
    health,
    jobs,
    keys,
    openai,
    operate,
    problems,
    recording,
    steering,
    submit,
    transcribe,
    webhooks,
)
from api import (
    metrics as exposition,
)
from api.admission import Admission
from api.edge import Edge
from api.head import Head
from api.intake import Intake
from api.measured import Measured
from api.threads import Threads
from api.watch import Watchers
from config import VERSION, Settings, get_settings, split_list
from database import transaction
from jobs.files import adopt
from storage import Storage, open_storage
from telemetry import metrics, traces
from telemetry.logs import configure_logs

ROOT = Path(__file__).parent
EXPOSED = (
    "X-Request-ID Location Retry-After RateLimit-Limit RateLimit-Remaining RateLimit-Reset Idempotent-Replayed "
    "Content-Disposition ETag Preference-Applied Asr-Engine"
).split()
CORS: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"], "expose_headers": EXPOSED}
DESCRIPTION = """Submit recordings, poll for transcripts. Nothing accepted is ever lost.

`curl -F file=@meeting.mp3 http://localhost:8000/transcribe/` answers with a `job_id`;
`curl http://localhost:8000/transcribe/{job_id}` shows how far it is and, in the end, the text."""


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or get_settings()
    app = FastAPI(title="Whisper Queue", version=VERSION, description=DESCRIPTION, lifespan=_lifespan)
    app.state.settings = settings
    app.state.storage = open_storage(settings)
    app.state.admission = Admission(settings, app.state.storage)
    app.state.intake = Intake(settings)
    app.state.threads = Threads()
    app.state.gate = Gate(settings)
    app.state.rate_limiter = RateLimiter(settings)
    app.state.watchers = Watchers(settings)
    app.state.schema_head = schema_head()
    app.add_middleware(Head)
    if origins := split_list(settings.cors_origins):
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CORS)
    app.add_middleware(Edge)
    app.add_middleware(Measured)
    problems.install(app)
    document.install(app)
    for room in (
        submit,
        transcribe,
        corrections,
        recording,
        events,
        batches,
        jobs,
        openai,
        asr,
        webhooks,
        operate,
        steering,
        engines,
        keys,
        health,
        exposition,
    ):
        app.include_router(room.router)
    ui.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """As many request threads as database connections, for which a request then hardly ever waits (api/threads.py)."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = app.state.settings.db_pool_size
    await run_in_threadpool(_adopt, app.state.storage)
    async with app.state.watchers:
        yield


def _adopt(storage: Storage) -> None:
    """Where the database or the store is away, or its tables are not made yet, the relay does it later."""
    with suppress(errors.Unavailable, errors.StorageError, ProgrammingError), transaction() as session:
        adopt(session, storage)


class Server(uvicorn.Server):
    """Ends what is followed before it waits for its connections: uvicorn tells open streams nothing."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self.config.app.state.watchers.stop()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def schema_head() -> str | None:
    """The migration that this version needs."""
    return ScriptDirectory.from_config(AlembicConfig(ROOT / "alembic.ini")).get_current_head()


def main() -> None:
    settings = get_settings()
    settings.require_servers()
    configure_logs(level=settings.log_level, fmt=settings.log_format, process="api")
    metrics.start()
    traces.start(settings, "api")
    if settings.is_open_without_key and not any_key_exists():
        raise SystemExit(
            f"HOST={settings.host} is open to others: make a key (python -m admin keys create NAME), "
            "set API_KEY (openssl rand -hex 24), or keep HOST=127.0.0.1"
        )
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        http="h11",  # Edge refuses headers over its limit, which was tried with this parser
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise SystemExit(3)  # as uvicorn's own command; its log says why


if __name__ == "__main__":
    main()
