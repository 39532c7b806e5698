"""Keeps a device's engine server alive: `python -m engines.supervisor SOCKET DEVICE`, started by the worker.

A process, since the worker's main process forks children and must not have threads.
"""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from types import FrameType

from config import Settings, inherited_environment
from parent import die_with_parent
from telemetry.events import emit

ROOT = Path(__file__).parents[1]
STEADY_S = 30.0  # a server that lived so long is started again at once, another one after a growing pause
LONGEST_PAUSE_S = 10.0


@contextmanager
def engine_servers(settings: Settings, folder: Path) -> Iterator[list[Path]]:
    """One for each device; the sockets on which they will listen, in a folder that only we can enter."""
    paths = [folder / f"engine-{number}" for number in range(len(settings.devices) if settings.is_served else 0)]
    supervisors = [
        start_supervisor(path, device, inherited_environment())
        for path, device in zip(paths, settings.devices, strict=False)
    ]
    try:
        yield paths
    finally:
        for supervisor in supervisors:
            supervisor.terminate()
            supervisor.wait()


def start_supervisor(path: Path, device: str, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """It holds a lock for as long as it lives: `is_supervised` tells by that."""
    with _lock_file(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _start("engines.supervisor", path, device, environment, pass_fds=(lock.fileno(),))


def is_supervised(path: Path) -> bool:
    """Whether a server that died will be started again."""
    try:
        with _lock_file(path).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _lock_file(path: Path) -> Path:
    return path.with_suffix(".lock")


def _start(
    module: str, path: Path, device: str, environment: Mapping[str, str], *, pass_fds: Collection[int] = ()
) -> "subprocess.Popen[bytes]":
    command = (sys.executable, "-m", module, str(path), device)
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, pass_fds=pass_fds)


def keep_alive(path: Path, device: str) -> None:
    """Until the worker ends."""
    pause_s = 0.0
    while True:
        path.unlink(missing_ok=True)
        started = monotonic()
        with _start("engines.server", path, device, inherited_environment()) as server:
            signal.signal(signal.SIGTERM, partial(_leave, server))
            status = server.wait()
        lived_s = monotonic() - started
        emit("engine.died", device=device, status=status, seconds=round(lived_s, 1))
        pause_s = 0.0 if lived_s > STEADY_S else min(LONGEST_PAUSE_S, 2 * pause_s + 0.1)
        Event().wait(pause_s)


def _leave(server: "subprocess.Popen[bytes]", signum: int, frame: FrameType | None) -> None:
    """The worker stops: nothing is left behind."""
    server.kill()
    os.waitpid(server.pid, 0)  # not server.wait(): we stand in the middle of one
    os._exit(0)


def main() -> None:
    from telemetry import metrics  # not in the worker, which imports us and says later where counters are kept

    die_with_parent()
    metrics.start()
    keep_alive(Path(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
