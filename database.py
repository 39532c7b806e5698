"""Engine, session, transaction: one synchronous stack for API and workers. Commits only inside `transaction()`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from time import perf_counter
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

import errors
from config import Settings, get_settings

READ_ONLY = "25006"  # a standby that is about to take over, or one that was demoted
# A half-open connection is given up within seconds, never waited for (docs/operations.md).
_CONNECT: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}


def database_url(settings: Settings) -> URL:
    """DATABASE_URL with the driver that we use, whatever dialect name it was given with."""
    if not settings.database_url:
        raise errors.Unavailable("DATABASE_URL is not set. Set it, or start everything with `make run`.")
    return make_url(settings.database_url).set(drivername="postgresql+psycopg2")


def connect_arguments(settings: Settings, *, application: str = "whisper-queue") -> dict[str, Any]:
    timeouts = (
        f"-c statement_timeout={settings.db_statement_timeout_ms} "
        "-c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000 -c timezone=UTC"
    )
    return {**_CONNECT, "options": timeouts, "application_name": application}


@lru_cache
def get_engine() -> Engine:
    settings = get_settings()
    return create_engine(
        database_url(settings),
        connect_args=connect_arguments(settings),
        poolclass=QueuePool,
        pool_size=settings.db_pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        pool_recycle=1800,
    )


def init_db() -> None:
    """Forget inherited connections: call first thing in a forked process."""
    if get_engine.cache_info().currsize:
        get_engine().dispose(close=False)
        get_engine.cache_clear()


def is_connection_lost(error: BaseException) -> bool:
    """True where the server may be away; what was in flight may or may not have been committed."""
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeout)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "pgcode", None) == READ_ONLY


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits at the end of the block, or rolls back. Raises Unavailable when the server is away."""
    try:
        with Session(get_engine(), expire_on_commit=False) as session, session.begin():
            yield session
    except (DBAPIError, PoolTimeout) as error:
        if is_connection_lost(error):
            raise errors.Unavailable("The database is away or too slow. Try again in a few seconds.") from error
        raise


def check_db_connection() -> float:
    """Round trip in milliseconds."""
    started = perf_counter()
    with transaction() as session:
        session.execute(text("SELECT 1"))
    return (perf_counter() - started) * 1000


def schema_is_current(head: str | None) -> bool:
    """Whether the database is at migration `head`."""
    with transaction() as session:
        if session.scalar(text("SELECT to_regclass('alembic_version')")) is None:
            return False
        return bool(session.scalar(text("SELECT version_num FROM alembic_version")) == head)


def get_db_stats() -> dict[str, int]:
    """Connections of this process's pool."""
    pool = get_engine().pool
    assert isinstance(pool, QueuePool)
    return {"size": pool.size(), "checked_out": pool.checkedout(), "idle": pool.checkedin()}
