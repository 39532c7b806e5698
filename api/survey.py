"""The state of every part, gathered without waiting long for any of them."""

from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import tasks
from api.schemas import AdminHealth, Component
from config import VERSION, Settings
from database import check_db_connection, get_db_stats, transaction
from errors import Unavailable
from jobs import presence, read, routing
from jobs.states import Status
from models import Process
from storage import Storage

SIGNS_MISSED = 3  # a process that missed so many signs of life counts as gone
COUNTERS = ("hits", "misses", "evictions", "oom_fallbacks")


def survey(settings: Settings, storage: Storage) -> AdminHealth:
    database, jobs, workers, pool, relay = _from_database(settings)
    redis, queues = _from_redis()
    parts = {"database": database, "redis": redis, "relay": relay}
    problems = [f"{name} is away" for name, part in parts.items() if not part.ok]
    if not workers["alive"]:
        problems.append("no worker is alive")
    return AdminHealth(
        status="degraded" if problems else "ok",
        version=VERSION,
        problems=problems,
        queues=queues,
        jobs=jobs,
        workers=workers,
        model_pool=pool,
        storage=Component(ok=True, free_bytes=storage.free_bytes()),
        **parts,
    )


def _from_database(
    settings: Settings,
) -> tuple[Component, dict[str, Any], dict[str, Any], dict[str, Any], Component]:
    within_s = SIGNS_MISSED * presence.interval_s(settings)
    try:
        latency_ms = round(check_db_connection(), 2)
        with transaction() as session:
            children = read.alive(session, "worker", within_s=within_s)
            relays = read.alive(session, "relay", within_s=within_s)
            jobs = read.waiting(session)
    except Unavailable:
        gone = Component(ok=False)
        return gone, {}, {"alive": 0}, {}, gone
    database = Component(ok=True, latency_ms=latency_ms, pool=get_db_stats())
    last_run = max((relay.seen_at for relay in relays), default=None)
    relay = Component(ok=bool(relays), alive=len(relays), last_run=last_run)
    return database, jobs, _workers(children, jobs), _pool(children), relay


def _workers(children: Sequence[Process], jobs: dict[str, Any]) -> dict[str, Any]:
    return {
        "alive": len({child.worker for child in children}),
        "concurrency": len(children),
        "busy": min(jobs[Status.PROCESSING], len(children)),
        "by_queue": Counter(queue for child in children for queue in child.queues),
    }


def _pool(children: Sequence[Process]) -> dict[str, Any]:
    """The pools of all children together; `loaded` names the child of each model."""
    total: Counter[str] = Counter()
    for child in children:
        total.update({name: child.pool.get(name, 0) for name in COUNTERS})
    asked = total["hits"] + total["misses"]
    loaded = [{**model, "process": child.id} for child in children for model in child.pool.get("loaded", ())]
    counters = {name: total[name] for name in COUNTERS}
    return {**counters, "hit_rate": round(total["hits"] / asked, 4) if asked else None, "loaded": loaded}


def _from_redis() -> tuple[Component, dict[str, Any]]:
    started = perf_counter()
    try:
        queues = {queue: tasks.queue_length(queue) for queue in routing.QUEUES}
        latency_ms = round((perf_counter() - started) * 1000 / len(queues), 2)
        return Component(ok=True, latency_ms=latency_ms, used_memory_bytes=tasks.redis_memory()), queues
    except tasks.BROKER_ERRORS:
        return Component(ok=False), {}
