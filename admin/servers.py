"""Checks of `doctor` that ask somebody: database, Redis, storage, their clocks, and who gave a sign of life."""

import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import time

import redis
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from sqlalchemy import text

import errors
from access.gate import any_key_exists
from admin.finding import Finding, fail, ok, warn
from config import Settings
from database import check_db_connection, database_url, transaction
from jobs import presence, read, routing
from storage import new_key, open_storage
from storage.keys import MARKER

ROOT = Path(__file__).parents[1]
MB = 1024**2
OLDEST_POSTGRES, OLDEST_REDIS = 15, (6, 2)
SLOW_MS = 50.0  # a job makes some dozens of round trips
REDIS_TIMEOUT_S = 3
CLOCK_WARN_S = 2.0
OF_A_CHILD, OF_A_RELAY = 4, 4  # connections that one uses at once, at most: its work, heartbeat, signs of life, orders
OTHER_CHILDREN = 2  # worker-retry and worker-webhooks
PROBE = b"doctor"
UNMARKED = f"API and relay mark a new one; in one that is yours for certain make the empty file {MARKER}."
Now = Callable[[], float]


def database(settings: Settings) -> Finding:
    url = database_url(settings)
    try:
        latency_ms = min(check_db_connection() for _ in range(3))  # the first one connects
    except errors.Unavailable:
        return fail(
            f"PostgreSQL at {url.host or 'a local socket'} does not answer, or refuses us",
            "Check that it runs, and user, password and name in DATABASE_URL.",
        )
    with transaction() as session:
        version = int(session.scalar(text("SELECT current_setting('server_version_num')")) or 0) // 10_000
    found = f"PostgreSQL {version} at {url.host or 'a local socket'}, {latency_ms:.1f} ms"
    if version < OLDEST_POSTGRES:
        return fail(found, f"PostgreSQL {OLDEST_POSTGRES} or later is needed: upgrade it (docs/operations.md).")
    if latency_ms > SLOW_MS:
        return warn(found, "It is far away or busy: put it beside the service.")
    return ok(found)


def migrations(settings: Settings) -> Finding:
    scripts = ScriptDirectory.from_config(AlembicConfig(ROOT / "alembic.ini"))
    head = scripts.get_current_head()
    with transaction() as session:
        has_table = session.scalar(text("SELECT to_regclass('alembic_version')")) is not None
        at = session.scalar(text("SELECT version_num FROM alembic_version")) if has_table else None
    if at == head:
        return ok(f"at {at}, the newest")
    if at is None:
        return fail("the database has no tables of this service", "Start it, or run `alembic upgrade head`.")
    if at not in {script.revision for script in scripts.walk_revisions()}:
        return fail(f"the database is at {at}, which this code does not know", "Bring the code to that version.")
    return fail(f"the database is at {at}, this version needs {head}", "Start it, or run `alembic upgrade head`.")


def connections(settings: Settings) -> Finding:
    """The most that could be open at once, against what the server allows."""
    with transaction() as session:
        allowed = int(session.scalar(text("SELECT current_setting('max_connections')")) or 0)
        used = session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")) or 0
    children = settings.celery_concurrency + OTHER_CHILDREN
    pool = settings.db_pool_size
    needed = (pool + 1) + min(pool, OF_A_RELAY) + 1 + children * min(pool, OF_A_CHILD)  # and two that listen
    found = f"{used} of {allowed} open; an API, a relay and the workers of one machine take up to {needed}"
    if needed > allowed or used > 0.9 * allowed:
        return warn(found, "Raise max_connections of PostgreSQL, or lower DB_POOL_SIZE or CELERY_CONCURRENCY.")
    return ok(found)


def database_clock(settings: Settings, now: Now = time) -> Finding:
    def ask() -> float:
        with transaction() as session:
            return float(session.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)

    return _clock(ask, settings, now)


def redis_clock(settings: Settings, now: Now = time) -> Finding:
    """By which rate limits are counted."""
    with closing(_redis(settings)) as client:

        def ask() -> float:
            seconds, microseconds = client.time()
            return float(seconds) + microseconds / 1e6

        return _clock(ask, settings, now)


def _clock(ask: Callable[[], float], settings: Settings, now: Now) -> Finding:
    ask()  # connects
    before = now()
    theirs = ask()
    off_s = (before + now()) / 2 - theirs
    found = f"this machine is {abs(off_s):.2f} s {'ahead' if off_s > 0 else 'behind'}"
    advice = "Set both clocks by NTP (chrony, systemd-timesyncd)."
    if abs(off_s) > settings.lease_seconds / 3:
        return fail(found, advice)
    return warn(found, advice) if abs(off_s) > CLOCK_WARN_S else ok(found)


def redis_server(settings: Settings) -> Finding:
    if not settings.redis_url.get_secret_value():
        return fail("REDIS_URL is not set", "Set it, or start everything with `make run`.")
    with closing(_redis(settings)) as client:
        told = client.info()
    version, policy, limit = told["redis_version"], told["maxmemory_policy"], int(told["maxmemory"])
    used_mb, limit_mb = int(told["used_memory"]) / MB, limit / MB
    room = f"{used_mb:.0f} of {limit_mb:.0f} MiB" if limit else f"{used_mb:.0f} MiB, no limit"
    found = f"version {version}, {room}, {policy}"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        return fail(found, "Redis 6.2 or later, or Valkey, is needed: upgrade it.")
    if policy != "noeviction":
        return fail(found, "It may throw queues away: set maxmemory-policy noeviction.")
    if limit and used_mb > 0.9 * limit_mb:
        return warn(found, "It is nearly full, and then refuses to wake workers: raise maxmemory.")
    return ok(found)


def _redis(settings: Settings) -> "redis.Redis":
    url = settings.redis_url.get_secret_value()
    return redis.Redis.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)


def recordings(settings: Settings) -> Finding:
    """Writes, reads and deletes a few bytes, as an upload and a job would."""
    if not settings.storage_url and _is_root_among_others(settings.data_dir):
        return warn("not tried: root would leave folders there that the service may not write", "Run it as its user.")
    try:
        storage, key = open_storage(settings), new_key()
    except ValueError as wrong:
        return fail(str(wrong), "Correct it in the environment or in .env.")
    if not storage.is_marked():
        return fail("it is away, or another one: its marker is missing", f"Mount it. {UNMARKED}")
    with storage.create(key) as writer:
        writer.write(PROBE)
        writer.commit()
    try:
        has_come_back = b"".join(storage.read(key)) == PROBE
    finally:
        storage.delete(key)
    place, free = "S3" if settings.storage_url else "local files", storage.free_bytes()
    found = f"{place}: written, read and deleted" + ("" if free == sys.maxsize else f"; {free // MB} MiB free")
    if not has_come_back:
        return fail(f"{place}: what was written came back changed", "Check the disk or the store.")
    if free < settings.min_free_disk_mb * MB:
        return fail(found, "Recordings are refused below MIN_FREE_DISK_MB: make room, or set RETENTION_DAYS.")
    return ok(found)


def _is_root_among_others(folder: Path) -> bool:
    return os.geteuid() == 0 and folder.exists() and folder.stat().st_uid != 0


def relay(settings: Settings) -> Finding:
    with transaction() as session:
        alive = read.alive(session, "relay", within_s=presence.seen_within_s(settings))
    if not alive:
        return fail("no relay is alive: jobs are accepted and wait", "Start it: `make run`, or `python relay.py`.")
    return ok(f"{len(alive)} alive")


def workers(settings: Settings) -> Finding:
    with transaction() as session:
        alive = read.alive(session, "worker", within_s=presence.seen_within_s(settings))
    if ill := [child for child in alive if presence.is_ill(child)]:
        who, why = f"{len(ill)} of {len(alive)} worker children are ill", presence.illnesses(ill)
        return (fail if len(ill) == len(alive) else warn)(f"{who}: {'; '.join(why)}", "They go on when it is mended.")
    cordoned = len({child.worker for child in alive if child.illness})
    drawn = {queue for child in alive if not child.illness for queue in child.queues}
    missing = [queue for queue in (routing.HIGH, routing.NORMAL) if queue not in drawn]
    if missing and cordoned:
        found = f"no worker that begins jobs draws from {' and '.join(missing)}; cordoned: {cordoned}"
        return fail(found, "`python -m admin workers list` says by whom; let one begin jobs: `workers uncordon`.")
    if missing:
        return fail(f"no worker draws from {' and '.join(missing)}", "Start one: `make run`, or `python worker.py`.")
    found = f"{len({child.worker for child in alive})} alive, with {len(alive)} children"
    if missing := [queue for queue in routing.QUEUES if queue not in drawn]:
        return warn(
            f"{found}; none draws from {' and '.join(missing)}", f"Start one with WORKER_QUEUES={','.join(missing)}."
        )
    return ok(found)


def access(settings: Settings) -> Finding:
    if settings.has_configured_access:
        return ok(f"HOST={settings.host}; everybody needs a key or token")
    if not settings.is_open_without_key:
        return ok(f"HOST={settings.host}: only this machine")
    if any_key_exists():
        return ok(f"HOST={settings.host}; everybody needs a key")
    return fail(
        f"HOST={settings.host} lets strangers in, so the API refuses to start",
        "Make a key (python -m admin keys create NAME), set API_KEY, or keep HOST=127.0.0.1.",
    )
