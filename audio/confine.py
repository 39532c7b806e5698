"""A process that is about to read what a stranger sent takes from itself all that it will not need."""

import ctypes
import os
import resource
import signal
import sys
import time

PR_SET_PDEATHSIG = 1  # linux/prctl.h
OPENING_CPU_S = 60  # processor time until the first minute of sound


def confine(*, memory_mb: int, parent: int) -> None:
    """From here on: no file, no socket, no process, no core dump; memory and processor time are bounded."""
    if parent:
        _die_with(parent)
    if sys.platform == "linux":  # elsewhere these limits are missing or refuse values below what is in use
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20,) * 2)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # 0, 1 and 2 are taken: nothing can be opened
    allow_cpu(OPENING_CPU_S)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def allow_cpu(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, resource.RLIM_INFINITY))
