"""Real servers for the tests: one PostgreSQL and one Redis per pytest process, a database per test.

TEST_DATABASE_URL (a superuser's) replaces the embedded PostgreSQL, for runs against another version.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg2
import pytest
import redis
import structlog
from psycopg2 import sql
from sqlalchemy import make_url

import config
import database as database_module
from stack.home import Home
from stack.postgres import Postgres
from stack.redis import Redis
from storage import open_storage
from tests.real_models import fetched_or_skipped

if TYPE_CHECKING:  # the API is imported by the tests that ask for it, not by all
    from fastapi.testclient import TestClient

ROOT = Path(__file__).parents[1]
MEMORY, ROOM_BYTES = Path("/dev/shm"), 2 * 1024**3  # noqa: S108 (a folder made by mkdtemp below it)
EXTERNAL = os.environ.pop("TEST_DATABASE_URL", "")


def pytest_configure() -> None:
    """What the person has exported or written to .env must not change what is tested, least of all DATABASE_URL."""
    for name in config.Settings.model_fields:
        os.environ.pop(name.upper(), None)
    config.Settings.model_config["env_file"] = None
    *others, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, plain])  # where rich is installed, a traceback takes it seconds


@contextmanager
def _folder(parent: Path | None = None) -> Iterator[Path]:
    """Not below pytest's own folder: that one is closed to other users, and PostgreSQL is one when we are root."""
    path = Path(tempfile.mkdtemp(prefix="transcription-test-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """In memory where there is room: cloning a database takes 13 ms there, 50 on a disk."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    with _folder(MEMORY if has_room else None) as path:
        yield path


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with _folder() as path:
        yield path


class Server:
    """A PostgreSQL that the tests may fill with databases."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)

    def url_of(self, name: str) -> str:
        return self.url.set(database=name).render_as_string(hide_password=False)

    def create(self, name: str, *, template: str = "template1") -> str:
        """FILE_COPY, not WAL_LOG: half the time to make, a tenth to drop."""
        self._run("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, template)
        return self.url_of(name)

    def drop(self, name: str) -> None:
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _run(self, statement: str, *names: str) -> None:
        with closing(psycopg2.connect(self.url_of("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@pytest.fixture(scope="session")
def postgres(session_folder: Path) -> Iterator[Server]:
    if EXTERNAL:
        yield Server(EXTERNAL)
        return
    with Postgres(Home(session_folder), durable=False) as server:
        yield Server(server.url)


@pytest.fixture(scope="session")
def template(postgres: Server) -> Iterator[str]:
    """The name of a migrated database to clone."""
    name = f"template_{uuid4().hex[:12]}"
    migrate(postgres.create(name))
    try:
        yield name
    finally:
        postgres.drop(name)


def migrate(url: str, target: str = "head") -> None:
    subprocess.run(
        (sys.executable, "-m", "alembic", "upgrade" if target == "head" else "downgrade", target),
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url},
        check=True,
        timeout=60,
    )


@pytest.fixture
def database_url(postgres: Server, template: str) -> Iterator[str]:
    """A fresh, migrated database, dropped after the test: 20 to 60 ms."""
    name = f"test_{uuid4().hex[:12]}"
    url = postgres.create(name, template=template)
    try:
        yield url
    finally:
        postgres.drop(name)


@pytest.fixture
def empty_database_url(postgres: Server) -> Iterator[str]:
    """A database without a single table, for the migrations' own tests."""
    name = f"empty_{uuid4().hex[:12]}"
    url = postgres.create(name)
    try:
        yield url
    finally:
        postgres.drop(name)


@pytest.fixture(scope="session")
def redis_server(session_folder: Path) -> Iterator[Redis]:
    with Redis(Home(session_folder)) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """An empty Redis that nobody else uses during this test."""
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def real_models() -> Path:
    """A MODEL_CACHE_DIR with OpenAI's `base` and `tiny.en`; tests/real_models.py tells the folder of each."""
    return fetched_or_skipped()


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., config.Settings]]:
    """`configure(lease_seconds=3)`: sets the environment and returns the Settings that the whole process now sees."""

    def forget() -> None:
        config.get_settings.cache_clear()
        if database_module.get_engine.cache_info().currsize:
            database_module.get_engine().dispose()
            database_module.get_engine.cache_clear()

    def apply(**values: object) -> config.Settings:
        for name, value in values.items():
            assert name in config.Settings.model_fields, f"no setting named {name}"
            monkeypatch.setenv(name.upper(), str(value).lower() if isinstance(value, bool) else str(value))
        forget()
        return config.get_settings()

    with ExitStack() as after:
        after.callback(forget)
        yield apply


@pytest.fixture
def settings(
    configure: Callable[..., config.Settings], data_dir: Path, database_url: str, redis_url: str
) -> config.Settings:
    """Settings of this process and its children for one test: fresh database, empty Redis, marked folder of its own."""
    settings = configure(data_dir=data_dir, database_url=database_url, redis_url=redis_url)
    open_storage(settings).mark()
    return settings


@pytest.fixture
def database(configure: Callable[..., config.Settings], database_url: str) -> config.Settings:
    """Points `database.transaction()` at a fresh database. Cheaper than `settings`: no Redis, no folder."""
    return configure(database_url=database_url)


@pytest.fixture
def client(settings: config.Settings) -> Iterator["TestClient"]:
    """The API in this process, with a cap of 1 MiB for a file."""
    from fastapi.testclient import TestClient

    from app import create_app

    small = settings.model_copy(update={"max_upload_size_mb": 1})
    with TestClient(create_app(small), base_url="http://127.0.0.1") as client:
        yield client
