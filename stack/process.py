"""One child process: how it is started, told to stop, and made to die with us.

Knows nothing about what runs in it. Every pid that is signalled here was started here.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import config

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2); Linux only
ROOT = Path(config.__file__).parent  # where the modules are that the services run
LOG_LIMIT_BYTES = 20 * 1024 * 1024  # a log above this becomes <name>.log.1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None  # loaded before any fork


class StackError(Exception):
    """Something a person must put right; the message says what."""


def _nothing() -> None: ...


def _yes() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # complete; holds passwords, hence not in repr
    address: str = ""  # for people; never with a password
    user: pwd.struct_passwd | None = None  # who to run as; None: who we are
    stage: int = 0  # started in ascending order, stopped in descending
    prepare: Callable[[], None] = _nothing  # before every start
    ready: Callable[[], bool] = _yes
    ready_within_s: float = 60
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 30  # then SIGKILL
    talks: bool = False  # its stderr is for the person at the terminal
    death_signal: signal.Signals = signal.SIGKILL  # what it gets when we die without stopping it


class Process:
    """A service that runs, or has run, in its own process group."""

    def __init__(self, spec: ServiceSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._is_swept = True  # nothing of its process group is left

    @property
    def pid(self) -> int:
        """0 before the first start."""
        return 0 if self._child is None else self._child.pid

    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    def start(self) -> Self:
        self.spec.prepare()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        rotate(self.log)
        user = self.spec.user
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                self.spec.argv,
                env=dict(self.spec.env),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=None if self.spec.talks else subprocess.STDOUT,
                process_group=0,  # the terminal's Ctrl-C must reach us alone: we stop the others in order
                user=None if user is None else user.pw_uid,
                group=None if user is None else user.pw_gid,
                extra_groups=None if user is None else [],
                preexec_fn=_dying_with(os.getpid(), self.spec.death_signal),  # noqa: PLW1509 (one thread; prctl only)
            )
        self._is_swept = False
        return self

    def wait_ready(self) -> Self:
        """For a server that is used alone; the supervisor has a wait of its own, which can be interrupted."""
        end = time.monotonic() + self.spec.ready_within_s
        while not self.is_ready():
            if time.monotonic() > end:
                raise StackError(f"{self.spec.name} is not ready after {self.spec.ready_within_s:g} s: {self.log}")
            time.sleep(0.02)
        return self

    def is_ready(self) -> bool:
        """Raises StackError with the end of the log where it has died."""
        if self.spec.ready():
            return True
        self.check_alive()
        return False

    def check_alive(self) -> None:
        if not self.is_running():
            raise StackError(f"{self.spec.name} ended with {self.exit_code}, see {self.log}:\n{tail(self.log)}")

    def ask_to_stop(self) -> None:
        if self._child is not None and self.is_running():
            self._child.send_signal(self.spec.stop_signal)

    def stop(self) -> None:
        """Ask, wait, and kill what is left after `stop_within_s`."""
        self.ask_to_stop()
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(self.spec.stop_within_s)
        self.kill()

    def kill(self) -> None:
        """kill -9 for the whole process group, so that no grandchild outlives its parent."""
        if self._child is None or self._is_swept:  # once only: later the number may be somebody else's
            return
        with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._is_swept = True


def _dying_with(parent: int, death_signal: signal.Signals) -> Callable[[], None] | None:
    """What makes the kernel send `death_signal` to the child when the thread that started it ends, however it ends."""
    libc = _libc
    if libc is None:
        return None

    def in_the_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return in_the_child


def die_with_parent(death_signal: signal.Signals) -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(death_signal))


def become_reaper() -> None:
    """Orphaned grandchildren become our children, so that they can be reaped where process 1 does not (containers)."""
    if _libc is not None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap_orphans(ours: Collection[int]) -> None:
    """Collect dead children that we did not start; `ours` are left to their Popen, which wants the exit code."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours:
            return
        os.waitpid(found.si_pid, 0)


def rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))


def rotate_running(log: Path) -> None:
    """For a log that a process has open for appending: copied and emptied; a line written meanwhile may be lost."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)


def tail(log: Path, lines: int = 15) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16 * 1024))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
