"""What the domain says happened. Rooms call `emit`; only here does an event become a log line, or reach a counter."""

from collections.abc import Callable, Mapping

import structlog

Subscriber = Callable[[str, Mapping[str, object]], object]
_LEVELS = {"dead": "error", "lost": "warning", "retrying": "warning", "refused": "warning", "oom": "warning"}
_subscribers: list[Subscriber] = []


def emit(name: str, **fields: object) -> None:
    """`name` is `noun.verb` (job.completed, pool.evicted); the verb decides the level."""
    level = _LEVELS.get(name.rpartition(".")[2], "info")
    getattr(structlog.get_logger("events"), level)(name, **fields)
    count(name, **fields)


def count(name: str, **fields: object) -> None:
    """As `emit`, for what happens too often to be a line in a log."""
    for subscriber in _subscribers:
        subscriber(name, fields)


def subscribe(subscriber: Subscriber) -> None:
    """It is told every event of this process, from now on, and must never raise."""
    _subscribers.append(subscriber)
