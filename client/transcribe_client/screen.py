"""What people see on stderr while it goes on: bars in a terminal, plain lines elsewhere. stdout is for results.

In a terminal only what is active has a bar, and the whole: the screen stays as small for hundreds of recordings.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

LONGEST_NAME = 40
SHOWN = 8  # bars of jobs, beside those of uploads


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    done: float
    total: float | None  # None: nobody knows
    note: str


class Screen(Protocol):
    is_live: bool

    def show(self, rows: Sequence[Row], whole: Row) -> None: ...
    def say(self, text: str) -> None:
        """One line that stays."""

    def put(self, text: str) -> None:
        """A result."""


class Lines:
    is_live = False

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, rows: Sequence[Row], whole: Row) -> None:
        pass

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def put(self, text: str) -> None:
        _write(text)


class Bars:
    is_live = True

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: list[TaskID] = []
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=LONGEST_NAME)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            redirect_stdout=False,  # it may be a pipe, which the results must reach
            redirect_stderr=False,
        )

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, rows: Sequence[Row], whole: Row) -> None:
        lines = [*rows, whole]
        while len(self._tasks) < len(lines):
            self._tasks.append(self._progress.add_task("", note=""))
        for number, task in enumerate(self._tasks):
            if number >= len(lines):
                self._progress.update(task, visible=False)
                continue
            row = lines[number]
            self._progress.update(
                task, description=row.name, completed=row.done, total=row.total, note=row.note, visible=True
            )
            if row.total is None:
                self._progress.update(task, total=None)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def put(self, text: str) -> None:
        """In the same terminal the bars must know of it, or they would erase it."""
        if sys.stdout.isatty():
            self._console.print(text, markup=False, highlight=False, soft_wrap=True, end="")
        else:
            _write(text)


@contextmanager
def opened(console: Console) -> Iterator[Screen]:
    if not console.is_terminal:
        yield Lines(console)
        return
    bars = Bars(console)
    bars.start()
    try:
        yield bars
    finally:
        bars.stop()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
