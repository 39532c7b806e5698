"""What others may know of a running stack: `DATA_DIR/stack.json`, and the lock that lets only one run there."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from stack.home import write_whole
from stack.process import StackError

SUPERVISOR = "stack"


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    pid: int
    address: str = ""


def write_state(path: Path, entries: list[Entry]) -> None:
    write_whole(path, json.dumps([asdict(entry) for entry in entries], indent=1) + "\n")


def read_state(path: Path) -> list[Entry]:
    """Empty where no stack runs, or none has."""
    try:
        return [Entry(item["name"], item["pid"], item["address"]) for item in json.loads(path.read_text())]
    except FileNotFoundError:
        return []


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Locks the folder itself: nothing is left to clean up, and the kernel lets go however we end."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pids = [str(entry.pid) for entry in read_state(folder / "stack.json") if entry.name == SUPERVISOR]
        raise StackError(
            f"Another stack{f' (pid {pids[0]})' if pids else ''} runs on {folder}: stop it, or give another DATA_DIR."
        ) from None
    else:
        yield
    finally:
        os.close(descriptor)
