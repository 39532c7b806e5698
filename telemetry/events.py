"""What the domain says happened. Rooms call `emit`; only here does an event become a log line."""

import structlog

_LEVELS = {"dead": "error", "lost": "warning", "retrying": "warning", "refused": "warning", "oom": "warning"}


def emit(name: str, **fields: object) -> None:
    """`name` is `noun.verb` (job.completed, pool.evicted); the verb decides the level."""
    level = _LEVELS.get(name.rpartition(".")[2], "info")
    getattr(structlog.get_logger("events"), level)(name, **fields)
