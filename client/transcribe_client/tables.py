"""Tables: framed for people in a terminal, with tabs for programs that read a pipe."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transcribe_client.wording import plain

STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan", "ok": "green"}
Cell = object


def put(console: Console, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, title: str = "") -> None:
    """Without a terminal: no title, no names of columns, nothing cut off."""
    if not console.is_terminal:
        for row in rows:
            sys.stdout.write("\t".join(plain(cell) for cell in row) + "\n")
        return
    table = Table(title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def put_pairs(console: Console, pairs: Iterable[tuple[str, Cell]]) -> None:
    """`name  value`, line by line; without values that are None."""
    shown = [(name, value) for name, value in pairs if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        console.print(Text(f"{name:<{width}}  ", "bold"), _cell(value), sep="", soft_wrap=True)


def _cell(value: Cell) -> Text:
    text = plain(value)
    return Text(text, STYLES.get(text, ""))
