"""`errors`: dead letters are listed, shown with their stack trace, replayed and resolved."""

import argparse
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

import errors
from admin.commands import Commands, add_command, add_group, positive, print_fields, print_json, print_table
from admin.jobs import as_shown
from database import transaction
from jobs import dead, read
from models import ErrorLog

SOME = 20
AT_ONCE = 100  # letters that are replayed in one transaction
LONGEST_MESSAGE = 80  # characters in a table
COLUMNS = ("ID", "JOB", "TYPE", "CREATED", "STATE", "MESSAGE")
SHOWN = (
    "id job_id error_type message attempt failures losses infra_losses worker created_at notified_at resolved_at "
    "resolution"
).split()
_ID = "3f0c7a52-94a5-4a4c-8f0b-6a1d8f0f4f7e"
_REFUSED = (errors.NotFound, errors.Conflict)


def add(groups: Commands) -> None:
    commands = add_group(groups, "errors", about="dead letters: jobs that failed for good")
    listed = add_command(
        commands, "list", _list, about="open ones, newest first", example="errors list --type out_of_memory"
    )
    listed.add_argument("--type", metavar="CODE", help="only of this error")
    listed.add_argument("--all", action="store_true", help="resolved ones too")
    listed.add_argument("--limit", type=positive, default=SOME, metavar="N", help=f"so many at most; default {SOME}")
    shown = add_command(
        commands, "show", _show, about="one, with its stack trace and its job's options", example=f"errors show {_ID}"
    )
    shown.add_argument("id", type=UUID, metavar="ID", help="as `errors list` shows it")
    _add_replay(commands)
    resolved = add_command(
        commands, "resolve", _resolve, about="close without trying again", example=f"errors resolve {_ID}"
    )
    resolved.add_argument("ids", type=UUID, nargs="+", metavar="ID")


def _add_replay(commands: Commands) -> None:
    replayed = add_command(
        commands,
        "replay",
        _replay,
        about="try the jobs again, with everything that was asked the first time",
        example="errors replay --type out_of_memory",
    )
    which = replayed.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", type=UUID, nargs="*", default=[], metavar="ID", help="these")
    which.add_argument("--type", metavar="CODE", help="all open ones of this error")
    which.add_argument("--all", action="store_true", help="all open ones")


def _list(asked: argparse.Namespace) -> None:
    resolved = None if asked.all else False
    with transaction() as session:
        page = dead.list_errors(session, resolved=resolved, error_type=asked.type, limit=asked.limit, after=None)
    if asked.json:
        print_json([_as_shown(letter) for letter in page.rows])
        return
    print_table(COLUMNS, [_row(letter) for letter in page.rows])
    if page.has_more:
        print(f"There are more than these {len(page.rows)}: --limit, or --type.", file=sys.stderr)


def _row(letter: ErrorLog) -> tuple[object, ...]:
    about = (letter.id, letter.job_id, letter.error_type, letter.created_at, letter.resolution or "open")
    return (*about, letter.message[:LONGEST_MESSAGE])


def _as_shown(letter: ErrorLog) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in SHOWN}


def _show(asked: argparse.Namespace) -> None:
    with transaction() as session:
        letter = dead.get_error(session, asked.id)
        job = as_shown(read.get_job(session, letter.job_id))
    if asked.json:
        print_json(_as_shown(letter) | {"stack_trace": letter.stack_trace, "job": job})
        return
    print_fields(_as_shown(letter))
    print("\nJob")
    print_fields(job)
    print(f"\nStack trace\n{letter.stack_trace or 'None: the process that ran it could not leave one.'}")


def _replay(asked: argparse.Namespace) -> int:
    if not asked.ids:
        _tell_replayed(asked, _replay_matching(asked.type))
        return 0
    done = _each(asked.ids, _replay_one)
    _tell_replayed(asked, list(done.values()))
    return int(len(done) < len(set(asked.ids)))


def _tell_replayed(asked: argparse.Namespace, job_ids: list[UUID]) -> None:
    if asked.json:
        print_json({"job_ids": job_ids})
        return
    for job_id in job_ids:
        print(job_id)
    print(f"{len(job_ids)} jobs are tried again.", file=sys.stderr)


def _replay_one(letter: UUID) -> UUID:
    with transaction() as session:
        return dead.replay(session, letter).id


def _replay_matching(error_type: str | None) -> list[UUID]:
    """No more than were open in the beginning: what fails at once again must not go round for ever."""
    done: list[UUID] = []
    left = _open_letters(error_type)
    while left > 0:
        with transaction() as session:
            some = dead.replay_matching(session, error_type=error_type, limit=min(left, AT_ONCE))
        if not some:
            break
        done += some
        left -= len(some)
    return done


def _open_letters(error_type: str | None) -> int:
    query = select(func.count()).select_from(ErrorLog).where(ErrorLog.resolved_at.is_(None))
    if error_type is not None:
        query = query.where(ErrorLog.error_type == error_type)
    with transaction() as session:
        return session.scalar(query) or 0


def _resolve(asked: argparse.Namespace) -> int:
    done = _each(asked.ids, _resolve_one)
    if asked.json:
        print_json([_as_shown(letter) for letter in done.values()])
    else:
        for letter in done.values():
            print(f"{letter.id} is closed ({letter.resolution}). Its job {letter.job_id} stays as it is.")
    return int(len(done) < len(set(asked.ids)))


def _resolve_one(letter: UUID) -> ErrorLog:
    with transaction() as session:
        return dead.resolve(session, letter)


def _each(ids: list[UUID], act: Callable[[UUID], Any]) -> dict[UUID, Any]:
    """Each in a transaction of its own: what one refuses does not hold up the others."""
    done = {}
    for letter in dict.fromkeys(ids):
        try:
            done[letter] = act(letter)
        except _REFUSED as reason:
            print(f"{letter}: {reason}", file=sys.stderr)
    return done
