"""The state of every part, gathered without waiting long for any of them."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sqlalchemy.orm import Session

import errors
import tasks
from api.admission import Admission
from api.schemas import AdminHealth, Component
from config import VERSION, Settings
from database import check_db_connection, get_db_stats, transaction
from jobs import cordons, pauses, presence, read, routing
from jobs.states import Status
from models import Process
from storage import Storage, new_key

COUNTERS = ("hits", "misses", "evictions", "oom_fallbacks")


@dataclass(frozen=True, slots=True)
class _Books:
    """What the database says about everybody."""

    jobs: dict[str, Any]
    children: Sequence[Process]
    relays: Sequence[Process]
    backlog: dict[str, Any]
    paused: list[dict[str, Any]]
    cordoned: list[dict[str, Any]]


def survey(settings: Settings, storage: Storage, admission: Admission) -> AdminHealth:
    database, books = _from_database(settings, admission)
    redis, queues = _from_redis()
    workers = _workers(books.children, books.jobs) | {"cordoned": books.cordoned}
    devices = presence.devices_of(books.children)
    parts = {"database": database, "redis": redis, "relay": _relay(books.relays), "storage": _room(storage)}
    problems = [f"{name} is away" for name, part in parts.items() if not part.ok]
    problems += _problems(books.children) if database.ok else []
    if reason := books.backlog.get("reason"):
        problems.append(f"new recordings are refused: {reason}")
    return AdminHealth(
        status="degraded" if problems else "ok",
        version=VERSION,
        problems=problems,
        queues=queues,
        jobs=books.jobs,
        workers=workers,
        model_pool=_pool(devices),
        devices=[{name: value for name, value in one.items() if name not in COUNTERS} for one in devices],
        housekeeping=_housekeeping(books.relays),
        backlog=books.backlog,
        paused=books.paused,
        flower_url=settings.flower_url or None,
        **parts,
    )


def _from_database(settings: Settings, admission: Admission) -> tuple[Component, _Books]:
    within_s = presence.seen_within_s(settings)
    try:
        latency_ms = round(check_db_connection(), 2)
        with transaction() as session:
            children = read.transcribers(session, within_s=within_s)
            relays = read.alive(session, "relay", within_s=within_s)
            jobs = read.waiting(session)
            paused = [{"kind": one.kind, "name": one.name, "since": one.paused_at} for one in pauses.pauses(session)]
            cordoned = _cordoned(session, children)
        books = _Books(jobs, children, relays, admission.as_json(), paused, cordoned)
    except errors.Unavailable:
        return Component(ok=False), _Books({}, (), (), {}, [], [])
    return Component(ok=True, latency_ms=latency_ms, pool=get_db_stats()), books


def _cordoned(session: Session, children: Sequence[Process]) -> list[dict[str, Any]]:
    alive, names = {child.worker for child in children}, ("worker", "since", "ordered_by", "drains")
    return [{name: getattr(one, name) for name in names} for one in cordons.cordons(session) if one.worker in alive]


def _relay(relays: Sequence[Process]) -> Component:
    last_run = max((relay.seen_at for relay in relays), default=None)
    return Component(ok=bool(relays), alive=len(relays), last_run=last_run)


def _room(storage: Storage) -> Component:
    try:
        storage.exists(new_key())  # whether it answers: a bucket has no free room to ask for
        free = storage.free_bytes()
        return Component(ok=True, free_bytes=None if free == sys.maxsize else free)
    except errors.StorageError:
        return Component(ok=False)


def _housekeeping(relays: Sequence[Process]) -> dict[str, Any]:
    """What the relays that live have deleted since their start."""
    total: Counter[str] = Counter()
    for relay in relays:
        total.update({name: count for name, count in relay.stats.items() if name.startswith("deleted_")})
    runs = [relay.stats["last_run"] for relay in relays if relay.stats.get("last_run")]
    return {"last_run": max(runs, default=None), **total}


def _problems(children: Sequence[Process]) -> list[str]:
    well = [child for child in children if not child.illness]
    if not children:
        return ["no worker is alive"]
    found = []
    ill = [child for child in children if presence.is_ill(child)]
    if not well and not ill:
        return ["every worker is cordoned: none begins a job"]
    if ill:
        why = "; ".join(presence.illnesses(children))
        found.append(f"{len(ill)} of {len(children)} worker children are ill: {why}")
    drawn = {queue for child in well for queue in child.queues}
    missing = [queue for queue in routing.OF_JOBS if well and queue not in drawn]
    return found + [f"no worker that is well draws from {queue}" for queue in missing]


def _workers(children: Sequence[Process], jobs: dict[str, Any]) -> dict[str, Any]:
    well = [child for child in children if not child.illness]
    return {
        "alive": len({child.worker for child in children}),
        "concurrency": len(well),
        "busy": min(jobs.get(Status.PROCESSING, 0), len(well)),
        "by_queue": Counter(queue for child in well for queue in child.queues),
        "ill": [{"worker": child.id, **(child.illness or {})} for child in children if presence.is_ill(child)],
    }


def _pool(devices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The pools of all devices together; `loaded` names the process of each model."""
    total = {name: sum(one.get(name, 0) for one in devices) for name in COUNTERS}
    asked = total["hits"] + total["misses"]
    loaded = [
        {**model, "device": one["device"], "process": one["pid"]} for one in devices for model in one.get("loaded", ())
    ]
    return {**total, "hit_rate": round(total["hits"] / asked, 4) if asked else None, "loaded": loaded}


def _from_redis() -> tuple[Component, dict[str, Any]]:
    started = perf_counter()
    try:
        queues = tasks.queue_lengths()
        latency_ms = round((perf_counter() - started) * 1000, 2)
        return Component(ok=True, latency_ms=latency_ms, used_memory_bytes=tasks.redis_memory()), queues
    except tasks.BROKER_ERRORS:
        return Component(ok=False), {}
