"""`keys`: API keys are made, listed and revoked. A key itself is shown once, when it is made."""

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

from access import keys
from admin.commands import Commands, add_command, add_group, print_json
from config import get_settings
from database import transaction

SPAN = re.compile(r"(\d{1,5})([hdw])")
SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
COLUMNS = "{:36}  {:20}  {:5}  {:8}  {:8}  {:10}  {:10}"


def add(groups: Commands) -> None:
    commands = add_group(groups, "keys", about="API keys: who may call")
    _add_create(commands)
    add_command(commands, "list", _list, about="show all keys; never the keys themselves", example="keys list")
    revoked = add_command(
        commands,
        "revoke",
        _revoke,
        about="refuse a key from now on (a running API: within seconds)",
        example="keys revoke 0b7c0e1e-5f5e-4b57-9d0e-2a7b4e3f8c11",
    )
    revoked.add_argument("id", type=UUID, metavar="ID", help="as `keys list` shows it")


def _add_create(commands: Commands) -> None:
    create = add_command(
        commands,
        "create",
        _create,
        about="make a key and print it: the only time that it can be seen",
        example="keys create newsroom --expires 90d",
    )
    create.add_argument("name", metavar="NAME", help="whose it is, for people")
    create.add_argument("--role", choices=keys.ROLES, default="user", help="admin sees all jobs and /admin")
    create.add_argument("--expires", type=_moment, metavar="WHEN", help="90d, 12h, 4w, or 2027-01-31 (UTC)")
    create.add_argument("--rate-limit", type=int, metavar="N", help="requests a minute; 0: any; default: the setting's")
    create.add_argument("--waiting-jobs", type=int, metavar="N", help="jobs that may wait at once; 0: any")
    create.add_argument("--audio-hours", type=float, metavar="H", help="hours of audio in 24 hours; 0: any")
    create.add_argument("--delete-after", type=int, metavar="SECONDS", help="its jobs are deleted so long after")


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
        print_json(keys.shown(key) | {"key": token})
        return
    print(token)  # alone on stdout, for KEY=$(python -m admin keys create ...)
    print(f"This is the only time that the key is shown. Its id, to revoke it: {key.id}", file=sys.stderr)


def _list(asked: argparse.Namespace) -> None:
    with transaction() as session:
        shown = [keys.shown(key) for key in keys.list_keys(session)]
    if asked.json:
        print_json(shown)
        return
    print(COLUMNS.format("ID", "NAME", "ROLE", "KEY", "STATE", "LAST USED", "EXPIRES"))
    for key in shown:
        days = (f"{key[name]:%Y-%m-%d}" if key[name] else "never" for name in ("last_used_at", "expires_at"))
        print(COLUMNS.format(str(key["id"]), key["name"][:20], key["role"], key["hint"], key["state"], *days))


def _revoke(asked: argparse.Namespace) -> None:
    with transaction() as session:
        key = keys.revoke(session, asked.id)
    if asked.json:
        print_json(keys.shown(key))
        return
    print(f"The key of {key.name} is revoked. A running API refuses it within seconds.")
