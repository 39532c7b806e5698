"""The LISTEN connection of an API process: who has changed, as soon as it is committed.

Driven by the event loop; opened again when it is lost. It says nothing about what was missed meanwhile.
"""

import asyncio
from collections.abc import Callable
from contextlib import closing, suppress

import psycopg2
from psycopg2 import extensions
from starlette.concurrency import run_in_threadpool

from config import Settings
from database import connect_arguments, database_url
from jobs.states import EVENTS_CHANNEL
from telemetry.events import emit

RECONNECT_S = 1.0


async def listen(settings: Settings, *, on_begin: Callable[[], None], on_notice: Callable[[str], None]) -> None:
    """For ever. `on_begin`: from now on nothing is missed; `on_notice`: the id of a job."""
    while True:
        with suppress(psycopg2.Error, OSError):  # it is away: tried again
            with closing(await run_in_threadpool(_connect, settings)) as connection:
                await _heed(connection, on_begin, on_notice)
            emit("watchers.database_away")
        await asyncio.sleep(RECONNECT_S)


def _connect(settings: Settings) -> extensions.connection:
    url = database_url(settings).set(drivername="postgresql")
    arguments = connect_arguments(settings, application="api-listen")
    connection: extensions.connection = psycopg2.connect(url.render_as_string(hide_password=False), **arguments)
    connection.set_isolation_level(extensions.ISOLATION_LEVEL_AUTOCOMMIT)
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {EVENTS_CHANNEL}")
    return connection


async def _heed(
    connection: extensions.connection, on_begin: Callable[[], None], on_notice: Callable[[str], None]
) -> None:
    """Until the connection is lost."""
    lost = asyncio.Event()

    def receive() -> None:
        try:
            connection.poll()
        except (psycopg2.Error, OSError):
            lost.set()
        for notice in connection.notifies:
            on_notice(notice.payload)
        connection.notifies.clear()

    loop, descriptor = asyncio.get_running_loop(), connection.fileno()
    loop.add_reader(descriptor, receive)
    try:
        on_begin()
        await lost.wait()
    finally:
        loop.remove_reader(descriptor)
