"""Runs migrations against DATABASE_URL. Rule: the code before a migration must run on the schema after it."""

from alembic import context
from sqlalchemy import create_engine

import models
from config import get_settings
from database import connect_arguments, database_url

# A migration waits at most this long for a lock, so that it never queues up the service behind it.
LOCK_TIMEOUT = "SET lock_timeout = '5s'; SET statement_timeout = '15min'"


def run() -> None:
    settings = get_settings()
    engine = create_engine(database_url(settings), connect_args=connect_arguments(settings, application="migrate"))
    with engine.connect() as connection:
        connection.exec_driver_sql(LOCK_TIMEOUT)
        connection.commit()
        context.configure(connection=connection, target_metadata=models.Base.metadata, compare_type=True)
        with context.begin_transaction():
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7203411)")  # two migrate jobs at once are safe
            context.run_migrations()
    engine.dispose()


run()
