"""`python -m admin GROUP COMMAND`: the operator's commands, at the database itself: they work while the API is away.

Exit code 0: done; 1: could not be done, stderr says why; 2: wrong arguments.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.exc import ProgrammingError

import errors
from access import keys
from config import adopt_running_stack, get_settings
from database import transaction
from telemetry.logs import configure_logs

SPAN = re.compile(r"(\d{1,5})([hdw])")
SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
COLUMNS = "{:36}  {:20}  {:5}  {:8}  {:8}  {:10}  {:10}"
Commands = Any  # argparse gives what add_subparsers() returns no public name


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    try:
        adopt_running_stack()
        configure_logs(level="WARNING", fmt=get_settings().log_format, process="admin")
        run: Callable[[argparse.Namespace], None] = asked.run
        run(asked)
    except (errors.ServiceError, ValidationError, ProgrammingError, OSError) as error:
        print(_explained(error), file=sys.stderr)
        return 1
    return 0


def _explained(error: Exception) -> str:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m admin", description="Commands for the operator of this service.")
    groups = parser.add_subparsers(title="groups", metavar="GROUP", required=True)
    for add in GROUPS:
        add(groups)
    return parser


def _add_keys(groups: Commands) -> None:
    commands = groups.add_parser("keys", help="API keys: who may call").add_subparsers(metavar="COMMAND", required=True)
    _add_create(commands)
    listed = commands.add_parser("list", help="show all keys; never the keys themselves")
    listed.add_argument("--json", action="store_true", help="one JSON array")
    listed.set_defaults(run=_list)
    revoked = commands.add_parser("revoke", help="refuse a key from now on (a running API: within seconds)")
    revoked.add_argument("id", type=UUID, metavar="ID", help="as `keys list` shows it")
    revoked.set_defaults(run=_revoke)


def _add_create(commands: Commands) -> None:
    create = commands.add_parser("create", help="make a key and print it: the only time that it can be seen")
    create.add_argument("name", metavar="NAME", help="whose it is, for people")
    create.add_argument("--role", choices=keys.ROLES, default="user", help="admin sees all jobs and /admin")
    create.add_argument("--expires", type=_moment, metavar="WHEN", help="90d, 12h, 4w, or 2027-01-31 (UTC)")
    create.add_argument("--rate-limit", type=int, metavar="N", help="requests a minute; 0: any; default: the setting's")
    create.add_argument("--waiting-jobs", type=int, metavar="N", help="jobs that may wait at once; 0: any")
    create.add_argument("--audio-hours", type=float, metavar="H", help="hours of audio in 24 hours; 0: any")
    create.add_argument("--delete-after", type=int, metavar="SECONDS", help="its jobs are deleted so long after")
    create.add_argument("--json", action="store_true", help="one JSON object, with the key as `key`")
    create.set_defaults(run=_create)


GROUPS = (_add_keys,)


def _moment(text: str) -> datetime:
    if span := SPAN.fullmatch(text):
        return datetime.now(UTC) + int(span[1]) * SPANS[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"expected a span such as 90d, or a date such as 2027-01-31, not {text!r}"
        raise argparse.ArgumentTypeError(message) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _create(asked: argparse.Namespace) -> None:
    wanted = keys.KeyRequest(
        name=asked.name,
        role=asked.role,
        expires_at=asked.expires,
        rate_limit_per_minute=asked.rate_limit,
        quota_waiting_jobs=asked.waiting_jobs,
        quota_audio_hours_per_day=asked.audio_hours,
        delete_after_s=asked.delete_after,
    )
    with transaction() as session:
        key, token = keys.create(session, wanted, get_settings())
    if asked.json:
        print(_as_json(keys.shown(key) | {"key": token}))
        return
    print(token)  # alone on stdout, for KEY=$(python -m admin keys create ...)
    print(f"This is the only time that the key is shown. Its id, to revoke it: {key.id}", file=sys.stderr)


def _list(asked: argparse.Namespace) -> None:
    with transaction() as session:
        shown = [keys.shown(key) for key in keys.list_keys(session)]
    if asked.json:
        print(_as_json(shown))
        return
    print(COLUMNS.format("ID", "NAME", "ROLE", "KEY", "STATE", "LAST USED", "EXPIRES"))
    for key in shown:
        days = (f"{key[name]:%Y-%m-%d}" if key[name] else "never" for name in ("last_used_at", "expires_at"))
        print(COLUMNS.format(str(key["id"]), key["name"][:20], key["role"], key["hint"], key["state"], *days))


def _revoke(asked: argparse.Namespace) -> None:
    with transaction() as session:
        key = keys.revoke(session, asked.id)
    print(f"The key of {key.name} is revoked. A running API refuses it within seconds.")


def _as_json(value: object) -> str:
    return json.dumps(value, default=lambda it: it.isoformat() if isinstance(it, datetime) else str(it))


if __name__ == "__main__":
    sys.exit(main())
