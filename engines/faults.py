"""What a script of the fake engine can do to a worker: wait, hang, take memory, raise, crash. For fault tests only."""

import ctypes
import os
import time
from pathlib import Path
from typing import Any

from engines.foreign import foreign_errors

_PIECE_S = 0.05  # `sleep` can be interrupted this often
_RAISED: dict[str, tuple[type[Exception], str]] = {  # what the real libraries raise, through the same table
    "oom": (RuntimeError, "CUDA failed with error out of memory"),
    "engine_error": (RuntimeError, "something that no table knows"),
    "engine_broken": (RuntimeError, "CUDA failed with error an illegal memory access was encountered"),
}
_RAISED_BARE = {"memory_error": MemoryError, "value_error": ValueError}  # past the boundary, as a bug of ours would be


def act(script: dict[str, Any]) -> None:
    """Do what the script says. Verbs, in this order:

    text: what was said · at: second whose window acts (0) · every: all windows act · only: sizes that act ·
    batch_above: act only in calls with more windows · times and marker: act n times, counted in the file `marker` ·
    allocate_mb · sleep, native_hang, gil_hang: seconds · segfault · exit: status · raise: oom engine_error
    engine_broken memory_error value_error
    """
    if "times" in script and _count(Path(script["marker"])) > script["times"]:
        return
    ballast = None
    with foreign_errors():
        if "allocate_mb" in script:
            ballast = b"\x01" * (script["allocate_mb"] << 20)  # written to, so that it is really taken
        _pass_time(script)
    del ballast
    if script.get("segfault"):
        ctypes.string_at(0)
    if "exit" in script:
        os._exit(script["exit"])
    kind = script.get("raise")
    if kind in _RAISED_BARE:
        raise _RAISED_BARE[kind]("raised by a script")
    if kind:
        foreign, text = _RAISED[kind]
        with foreign_errors():
            raise foreign(text)


def _count(marker: Path) -> int:
    """How often this marker was asked, this time included; across processes and crashes."""
    with marker.open("ab") as file:
        file.write(b".")
    return marker.stat().st_size


def _pass_time(script: dict[str, Any]) -> None:
    end = time.monotonic() + script.get("sleep", 0.0)
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _PIECE_S))
    if "native_hang" in script:
        _hang(ctypes.CDLL(None), script["native_hang"])
    if "gil_hang" in script:
        _hang(ctypes.PyDLL(None), script["gil_hang"])  # keeps Python's lock: no thread of this process runs


def _hang(library: ctypes.CDLL, seconds: float) -> None:
    """Wait in native code for a mutex that nobody releases: unlike sleep(), no signal ends it early."""
    mutex = ctypes.create_string_buffer(64)  # all zeros is an initialised mutex on Linux
    end = time.time() + seconds
    until = (ctypes.c_long * 2)(int(end), int(end % 1 * 1e9))  # struct timespec
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_timedlock(mutex, until)
    library.pthread_mutex_unlock(mutex)
