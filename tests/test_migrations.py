"""The way from an empty database to the tables of models.py and back, as alembic walks it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

import models
from config import Settings, inherited_environment
from database import get_engine, schema_is_current, transaction

ROOT = Path(__file__).parents[1]
ALEMBIC = Config(ROOT / "alembic.ini")

# Names and definitions, as PostgreSQL prints them.
SCHEMA = """
    SELECT 'column', table_name, column_name, concat_ws(' ', data_type, is_nullable, column_default, is_identity)
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"""


@pytest.fixture
def blank(configure: Callable[..., Settings], empty_database_url: str) -> Settings:
    """Points everything at a database without a single table."""
    return configure(database_url=empty_database_url)


def schema() -> set[tuple[str, ...]]:
    with transaction() as session:
        rows = {tuple(map(str, row)) for row in session.execute(text(SCHEMA))}
    return {row for row in rows if row[1] != "alembic_version"}


def head() -> str:
    return ScriptDirectory.from_config(ALEMBIC).get_current_head() or ""


def test_up_down_and_up_again_leaves_the_same_tables(blank: Settings) -> None:
    command.upgrade(ALEMBIC, "head")
    first = schema()
    command.downgrade(ALEMBIC, "base")
    assert schema() == set()
    command.upgrade(ALEMBIC, "head")
    assert schema() == first
    assert {row[1] for row in first} == set(models.Base.metadata.tables)


def test_every_migration_can_be_undone_and_done_again(blank: Settings) -> None:
    script = ScriptDirectory.from_config(ALEMBIC)
    for revision in reversed(list(script.walk_revisions())):
        command.upgrade(ALEMBIC, revision.revision)
        after = schema()
        command.downgrade(ALEMBIC, "-1")
        command.upgrade(ALEMBIC, revision.revision)
        assert schema() == after


def test_the_migrated_tables_are_those_of_the_models(blank: Settings) -> None:
    """Alembic does not compare CHECK constraints and defaults; PostgreSQL's own description has them."""
    command.upgrade(ALEMBIC, "head")
    command.check(ALEMBIC)
    migrated = schema()
    command.downgrade(ALEMBIC, "base")
    models.Base.metadata.create_all(get_engine())
    assert migrated == schema()


def test_a_database_says_whether_it_is_at_the_newest_migration(blank: Settings) -> None:
    assert not schema_is_current(head())
    command.upgrade(ALEMBIC, "head")
    assert schema_is_current(head())
    assert not schema_is_current("9999")


def test_there_is_one_newest_migration() -> None:
    assert len(ScriptDirectory.from_config(ALEMBIC).get_heads()) == 1


def test_two_migrations_at_once_are_one(blank: Settings) -> None:
    environment = {**inherited_environment(), "DATABASE_URL": blank.database_url}
    both = [
        subprocess.Popen(
            (sys.executable, "-m", "alembic", "upgrade", "head"),
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert schema_is_current(head())
