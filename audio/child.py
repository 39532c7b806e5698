"""One process that reads a file on stdin and answers on two pipes; it is always killed and reaped.

Knows nothing of media. Time is measured only while we wait, so a slow consumer never looks like a stalled process.
"""

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Self

from config import inherited_environment
from errors import DecoderCrashed

COMPLAINT_BYTES = 4096  # of stderr, the newest, are kept
PIPE_BYTES = 1 << 20  # 32 s of sound: the child decodes the next window while we are busy with this one
KILL_S = 10  # a killed process is gone in milliseconds
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG")  # all that the child sees of our environment: no key, no secret


class Child:
    """Safe to start from a process with threads. Linux ends the child with the *thread* that started it."""

    def __init__(self, command: Sequence[str], stdin: BinaryIO, *, stall_s: float) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={name: value for name, value in inherited_environment().items() if name in PASSED_ON},
            start_new_session=True,  # its own group, so that nothing it may have started outlives it
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout, self._process.stderr
        self._stall_s = stall_s
        self._complaint = b""
        self._silent = False  # stderr is closed
        self._waiting = select.poll()
        for pipe in (self._out, self._err):
            self._waiting.register(pipe, select.POLLIN)
        if sys.platform == "linux":
            with suppress(OSError):  # a nicety; refused where the user holds many pipes
                fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def complaint(self) -> str:
        """The end of what it wrote to stderr."""
        return self._complaint.decode(errors="replace")

    def read(self, size: int) -> bytes:
        """At least one byte and at most `size` of its output; b"" at the end. Raises DecoderCrashed."""
        deadline = time.monotonic() + self._stall_s
        while True:
            ready = self._wait(deadline)
            if self._err.fileno() in ready and self._listen():
                deadline = time.monotonic() + self._stall_s
            if self._out.fileno() in ready:
                return os.read(self._out.fileno(), size)

    def end(self) -> int:
        """Wait until it is gone; its exit status, negative: the signal that ended it. Raises DecoderCrashed."""
        deadline = time.monotonic() + self._stall_s
        self._waiting.unregister(self._out)
        while not self._silent:
            self._wait(deadline)
            self._listen()
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._stalled() from None

    def interrupt(self) -> None:
        """End it and everything it started; whoever reads from it finds the end of its output."""
        if self._process.returncode is None:  # not reaped: the number of its group is still its own
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """As `interrupt`, and leave neither a zombie nor a pipe. Harmless a second time."""
        self.interrupt()
        with suppress(subprocess.TimeoutExpired):  # held by a disk that does not answer: not our wait
            self._process.wait(KILL_S)
        self._out.close()
        self._err.close()

    def _wait(self, deadline: float) -> list[int]:
        ready = [fd for fd, _ in self._waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)]
        if not ready:
            raise self._stalled()
        return ready

    def _stalled(self) -> DecoderCrashed:
        return DecoderCrashed(f"The decoder yielded nothing for {self._stall_s:g} s and was ended.")

    def _listen(self) -> bool:
        """Take what is on stderr; False once it is closed."""
        heard = os.read(self._err.fileno(), COMPLAINT_BYTES)
        if not heard:
            self._silent = True
            self._waiting.unregister(self._err)
        self._complaint = (self._complaint + heard)[-COMPLAINT_BYTES:]
        return bool(heard)
