"""transcribe health: whether every part of the service is well, for operators."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from transcribe_client import tables
from transcribe_client.commands import command
from transcribe_client.failures import Failure
from transcribe_client.session import Session
from transcribe_client.wording import ago, moment, plain, size

Health = Mapping[str, Any]


def register(app: typer.Typer) -> None:
    examples = ("transcribe health", "transcribe health --json", "transcribe health > /dev/null || echo not well")
    command(app, "health", examples=examples)(health)


def health(session: Session) -> None:
    """Show the state of database, Redis, queues, workers, devices and models. Exit code 1 when not all is well."""
    answer = session.api.call("GET", "/admin/health", ok=(503,))
    found = answer.json()
    if "problems" not in found:  # without its database the service cannot tell who asks
        raise Failure(plain(found.get("detail", "The service is not well.")), hint="Its log says more.")
    if session.as_json:
        session.put_json(found)
    else:
        _show(session, found)
    if found["status"] != "ok":
        raise typer.Exit(Failure.exit_code)


def _show(session: Session, found: Health) -> None:
    tables.put(session.out, ("part", "state", ""), _parts(found))
    queues = [(name, depth) for name, depth in found["queues"].items()]
    _section(session, "Queues", ("queue", "messages"), queues)
    devices = [
        (one.get("device", ""), one.get("worker", ""), one.get("pid", ""), len(one.get("loaded", ())))
        for one in found["devices"]
    ]
    _section(session, "Devices", ("device", "worker", "process", "models"), devices)
    _section(session, "Models", ("model", "device", "uses", "memory"), _models(found))
    for problem in found["problems"]:
        session.say(f"Not well: {plain(problem)}.")


def _section(session: Session, title: str, columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
    if not rows:
        return
    if session.out.is_terminal:
        session.out.print()
    tables.put(session.out, columns, rows, title=title)


def _parts(found: Health) -> Iterator[tuple[str, str, str]]:
    workers, jobs, backlog = found["workers"], found["jobs"], found["backlog"]
    yield "service", found["status"], f"version {found['version']}"
    yield "database", _state(found["database"]), _latency(found["database"])
    yield "redis", _state(found["redis"]), _latency(found["redis"])
    yield "relay", _state(found["relay"]), _last(found["relay"].get("last_run"))
    yield "storage", _state(found["storage"]), _free(found["storage"])
    busy = f"{workers.get('busy', 0)} of {workers.get('concurrency', 0)} busy"
    yield "workers", "ok" if workers.get("alive") else "away", f"{workers.get('alive', 0)} alive, {busy}"
    waiting = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in jobs.items() if isinstance(value, int))
    yield "jobs", "ok", waiting
    yield "intake", "ok" if backlog.get("accepting") else "closed", backlog.get("reason") or ""


def _state(part: Health) -> str:
    return "ok" if part["ok"] else "away"


def _latency(part: Health) -> str:
    told = [f"{part['latency_ms']} ms"] if "latency_ms" in part else []
    if "used_memory_bytes" in part:
        told.append(size(part["used_memory_bytes"]))
    return ", ".join(told)


def _free(part: Health) -> str:
    free = part.get("free_bytes")
    return "" if free is None else f"{size(free)} free"


def _last(text: str | None) -> str:
    return "" if text is None else f"last run {ago(moment(text))}"


def _models(found: Health) -> list[tuple[object, ...]]:
    return [
        (one.get("size", ""), one.get("device", ""), one.get("use_count", ""), _memory(one))
        for one in found["model_pool"].get("loaded", ())
    ]


def _memory(model: Health) -> str:
    count = model.get("memory_bytes")
    return "" if count is None else size(count)
