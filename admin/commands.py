"""What all commands share: how one is added, what happens before it runs, how an error is said and a table printed."""

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import ProgrammingError

from config import adopt_running_stack, get_settings
from telemetry.logs import configure_logs

Commands = Any  # argparse gives what add_subparsers() returns no public name
Run = Callable[[argparse.Namespace], int | None]


def add_group(groups: Commands, name: str, *, about: str) -> Commands:
    group = groups.add_parser(name, help=about, description=about)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(commands: Commands, name: str, run: Run, *, about: str, example: str) -> argparse.ArgumentParser:
    """Every command knows `--json`."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about, epilog=f"Example: python -m admin {example}"
    )
    command.add_argument("--json", action="store_true", help="for programs: one JSON value")
    command.set_defaults(run=run)
    return command


def prepare() -> None:
    """Raises ValidationError where the settings are wrong."""
    adopt_running_stack()
    configure_logs(level="WARNING", fmt=get_settings().log_format, process="admin")


def explained(error: Exception) -> str:
    match error:
        case ValidationError():
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()} {e['msg']}" for e in error.errors())
            return f"Settings are wrong: {wrong}"
        case ProgrammingError():
            return (
                "The database has other tables than this version needs: start the service, or `alembic upgrade head`."
            )
        case PermissionError():
            return f"{error.filename} belongs to another user. Run this as the user who runs the service."
    return str(error)


def positive(text: str) -> int:
    """An argument's type."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1000000, not {text!r}")
    return int(text)


def print_json(value: object) -> None:
    print(json.dumps(value, default=lambda it: it.isoformat() if isinstance(it, datetime) else str(it)))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """As wide as what stands in it."""
    lines = [columns, *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: dict[str, Any]) -> None:
    """A line each; none for what is not there."""
    for name, value in fields.items():
        if value is not None and value != "":
            print(f"{name + ':':18} {_cell(value)}")


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "-" if value is None else str(value).replace("\n", " ")
