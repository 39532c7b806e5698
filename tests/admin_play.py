"""What the tests of the operator's commands share, where they run in the test's own process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def logs_put_back() -> Iterator[None]:
    """A command routes every logger of its process; the tests after it want theirs."""
    root = logging.getLogger()
    before, handlers, level = structlog.get_config(), root.handlers[:], root.level
    try:
        yield
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
        root.handlers[:] = handlers
        root.setLevel(level)
