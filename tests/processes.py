"""Waiting for processes, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


def until(condition: Callable[[], T], within_s: float = 30) -> T:
    """The first true value of `condition`."""
    end = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < end, f"still not after {within_s:g} s: {condition}"
        time.sleep(0.02)
    return value


def is_gone(pid: int) -> bool:
    """Also true for a zombie: dead, but its parent (a container's process 1, say) has not collected it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
