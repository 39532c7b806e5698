"""`--verbose`: shows the services' logs in the terminal as they are written."""

from collections.abc import Callable
from pathlib import Path


class Mirror:
    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._seen = {log: log.stat().st_size for log in folder.glob("*.log")}  # what earlier runs wrote

    def __call__(self) -> None:
        for log in sorted(self._folder.glob("*.log")):
            for line in self._new_lines(log):
                self._say(f"{log.stem:>12} | {line}")

    def _new_lines(self, log: Path) -> list[str]:
        """Whole lines only; a log that has shrunk was rotated."""
        start = self._seen.get(log, 0)
        size = log.stat().st_size
        if size < start:
            start = 0
        with log.open("rb") as file:
            file.seek(start)
            whole = file.read(size - start).rpartition(b"\n")[0]
        self._seen[log] = start + (len(whole) + 1 if whole else 0)
        return whole.decode(errors="replace").splitlines()
