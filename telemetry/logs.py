"""Log lines: text or JSON, with request_id and job_id on every line. Never a secret, never a request body."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars

_SHARED: list[Any] = [
    merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


TELL_SECRETS = ("botocore", "urllib3", "httpcore", "uvicorn.error")  # headers and signatures, at DEBUG


def configure_logs(*, level: str, fmt: str, process: str) -> None:
    """Route every logger of this process, libraries' too, to one line an event on stderr."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(fmt))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in TELL_SECRETS:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    structlog.contextvars.bind_contextvars(process=process)


def _formatter(fmt: str) -> logging.Formatter:
    render: Any = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.dev.ConsoleRenderer(
            colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            render,
        ],
    )


@contextmanager
def log_context(**values: str | None) -> Iterator[None]:
    """Put `values` (request_id, job_id) on every line logged inside the block."""
    with bound_contextvars(**{key: value for key, value in values.items() if value is not None}):
        yield
