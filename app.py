"""The API process: create_app(), lifespan, error handlers, mounts. No rule of its own, no model, no media."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import uvicorn
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from fastapi import FastAPI

from api import batches, deps, health, jobs, operate, problems, transcribe
from api.admission import Admission
from config import VERSION, Settings, get_settings
from storage import open_storage
from telemetry.logs import configure_logs

ROOT = Path(__file__).parent
DESCRIPTION = """Submit recordings, poll for transcripts. Nothing accepted is ever lost.

`curl -F file=@meeting.mp3 http://localhost:8000/transcribe/` answers with a `job_id`;
`curl http://localhost:8000/transcribe/{job_id}` shows how far it is and, in the end, the text."""


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or get_settings()
    app = FastAPI(title="Whisper Queue", version=VERSION, description=DESCRIPTION, lifespan=_lifespan)
    app.state.settings = settings
    app.state.storage = open_storage(settings)
    app.state.admission = Admission(settings, app.state.storage)
    app.state.schema_head = schema_head()
    app.add_middleware(deps.RequestId)
    problems.install(app)
    for room in (transcribe, batches, jobs, operate, health):
        app.include_router(room.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """As many request threads as database connections: a request that runs never waits for a connection."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = app.state.settings.db_pool_size
    yield


def schema_head() -> str | None:
    """The migration that this version needs."""
    return ScriptDirectory.from_config(AlembicConfig(ROOT / "alembic.ini")).get_current_head()


def main() -> None:
    settings = get_settings()
    settings.require_servers()
    configure_logs(level=settings.log_level, fmt=settings.log_format, process="api")
    if settings.is_open_without_key:
        raise SystemExit(
            f"HOST={settings.host} is open to others: set API_KEY (openssl rand -hex 24), or HOST=127.0.0.1"
        )
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
