"""Runs migrations against DATABASE_URL. Rule: the code before a migration must run on the schema after it."""

import time

from alembic import context
from sqlalchemy import Connection, create_engine

import models
from config import get_settings
from database import connect_arguments, database_url

# A migration waits at most this long for a lock, so that it never queues up the service behind it.
LOCK_TIMEOUT = "SET lock_timeout = '5s'; SET statement_timeout = '15min'"
ALONE, LOOK_AGAIN_S = "SELECT pg_try_advisory_lock(7203411)", 0.2  # two migrate jobs at once are safe


def wait_for_others(connection: Connection) -> None:
    """In no transaction: an index that another one builds would wait for ours, and ours for the lock."""
    while not connection.exec_driver_sql(ALONE).scalar():
        connection.commit()
        time.sleep(LOOK_AGAIN_S)
    connection.commit()


def run() -> None:
    settings = get_settings()
    engine = create_engine(database_url(settings), connect_args=connect_arguments(settings, application="migrate"))
    with engine.connect() as connection:
        connection.exec_driver_sql(LOCK_TIMEOUT)
        connection.commit()
        wait_for_others(connection)
        context.configure(
            connection=connection,
            target_metadata=models.Base.metadata,
            compare_type=True,
            transaction_per_migration=True,  # an index is built between two
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
