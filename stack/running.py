"""A whole stack as one object, for end-to-end tests and benches: the real supervisor, in a process of its own."""

import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from config import inherited_environment
from stack.home import free_port
from stack.plan import answers
from stack.process import Process, ServiceSpec
from stack.state import SUPERVISOR, Entry, read_state

READY_WITHIN_S = 180


class Stack:
    """`with Stack(folder, lease_seconds=3) as stack: get(stack.url)`. Settings by their names, in small letters."""

    def __init__(self, data_dir: Path, *, fast: bool = True, **settings: object) -> None:
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{settings.setdefault('port', free_port())}"
        told = {name.upper(): str(value) for name, value in settings.items()} | {"DATA_DIR": str(data_dir)}
        spec = ServiceSpec(
            name=SUPERVISOR,
            argv=(sys.executable, "-m", "stack", *(["--fast"] if fast else [])),
            env=inherited_environment() | told,
            ready=lambda: answers(f"{self.url}/health/ready"),
            ready_within_s=READY_WITHIN_S,
            stop_within_s=60,
            death_signal=signal.SIGTERM,  # it takes the others down itself
        )
        self._process = Process(spec, data_dir / "logs" / "stack.log")

    def start(self) -> Self:
        self._process.start().wait_ready()
        return self

    def stop(self) -> int | None:
        """As Ctrl-C does. Returns the exit code."""
        self._process.stop()
        return self._process.exit_code

    def kill(self) -> None:
        """kill -9 of the supervisor alone; the kernel tells the others."""
        self._process.kill()

    def entries(self) -> list[Entry]:
        return read_state(self.data_dir / "stack.json")

    def pid_of(self, name: str) -> int:
        """Raises LookupError where it does not run."""
        return next((entry.pid for entry in self.entries() if entry.name == name), None) or _missing(name)

    @property
    def output(self) -> str:
        """What a person would have seen in the terminal."""
        return self._process.log.read_text()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _missing(name: str) -> int:
    raise LookupError(f"no process named {name} in stack.json")
