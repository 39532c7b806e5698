"""`pauses`, `workers`, `audit`: what is not begun, who begins nothing, and what operators changed."""

import argparse
import os
from getpass import getuser
from typing import Any

from admin.commands import Commands, add_command, add_group, positive, print_json, print_table
from config import get_settings
from database import transaction
from jobs import audit, cordons, pauses, presence
from jobs.workers import Worker, workers
from models import Pause

SOME = 50
LOGGED = ("at", "actor", "action", "target", "detail")
QUEUE_HELP = "transcription.high, transcription.normal or transcription.retry"
CALLER_HELP = "as `owner` in `jobs show`; empty: whoever needs no key"


def operator() -> str:
    """Who runs this, for the audit log."""
    try:
        name = getuser()
    except (KeyError, OSError):  # in a container whose user has no name
        name = f"user {os.getuid()}"
    return f"{name} (python -m admin)"


def add(groups: Commands) -> None:
    commands = add_group(groups, "pauses", about="queues and callers whose waiting jobs are not begun")
    add_command(commands, "list", _list, about="what is paused", example="pauses list")
    paused = add_command(
        commands, "add", _pause, about="pause; what runs goes on", example="pauses add --queue transcription.normal"
    )
    _add_target(paused)
    paused.add_argument("--reason", metavar="TEXT", help="for those who look later")
    example = "pauses remove --queue transcription.normal"
    _add_target(add_command(commands, "remove", _resume, about="begin its jobs again", example=example))
    of_workers = add_group(groups, "workers", about="who takes jobs; a worker that is cordoned begins none")
    cordoned = add_command(
        of_workers, "cordon", _cordon, about="have it begin no job, and live on", example="workers cordon HOST:PID.BORN"
    )
    cordoned.add_argument("--drain", action="store_true", help="it also gives back what it runs, uncounted")
    freed = add_command(
        of_workers, "uncordon", _uncordon, about="let it begin jobs again", example="workers uncordon HOST:PID.BORN"
    )
    for command in (cordoned, freed):
        command.add_argument("worker", metavar="WORKER", help="as `workers list` names it")
    add_command(of_workers, "list", _workers, about="those that live, with their cordons", example="workers list")
    logged = add_command(groups, "audit", _audit, about="what operators changed, newest first", example="audit")
    logged.add_argument("--limit", type=positive, default=SOME, metavar="N", help=f"so many at most; default {SOME}")


def _add_target(command: argparse.ArgumentParser) -> None:
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--queue", metavar="NAME", help=QUEUE_HELP)
    which.add_argument("--caller", metavar="OWNER", help=CALLER_HELP)


def _target(asked: argparse.Namespace) -> tuple[str, str]:
    return (pauses.QUEUE, asked.queue) if asked.queue is not None else (pauses.CALLER, asked.caller)


def _list(asked: argparse.Namespace) -> None:
    with transaction() as session:
        found = [_as_shown(one) for one in pauses.pauses(session)]
    _show(asked, found, "KIND NAME SINCE BY REASON")


def _pause(asked: argparse.Namespace) -> None:
    kind, name = _target(asked)
    with transaction() as session:
        found = _as_shown(pauses.pause(session, kind, name, actor=operator(), reason=asked.reason))
    _show(asked, [found], "KIND NAME SINCE BY REASON")


def _resume(asked: argparse.Namespace) -> None:
    kind, name = _target(asked)
    with transaction() as session:
        pauses.resume(session, kind, name, actor=operator())
    if not asked.json:
        print(f"The waiting jobs of this {kind} are begun again.")


def _cordon(asked: argparse.Namespace) -> None:
    with transaction() as session:
        cordons.cordon(session, asked.worker, drains=asked.drain, actor=operator())
    if not asked.json:
        print("It begins no job from its next sign of life on.")


def _uncordon(asked: argparse.Namespace) -> None:
    with transaction() as session:
        cordons.uncordon(session, asked.worker, actor=operator())
    if not asked.json:
        print("It begins jobs again.")


def _workers(asked: argparse.Namespace) -> None:
    with transaction() as session:
        found = [_as_listed(one) for one in workers(session, within_s=presence.seen_within_s(get_settings()))]
    if asked.json:
        print_json(found)
        return
    print_table("WORKER QUEUES CHILDREN ILL CORDON SINCE BY".split(), [_row(one) for one in found])


def _as_listed(one: Worker) -> dict[str, Any]:
    told = {name: getattr(one, name) for name in ("worker", "queues", "children", "started_at", "ill")}
    cordon = one.cordon and {name: getattr(one.cordon, name) for name in ("drains", "since", "ordered_by")}
    return told | {"cordon": cordon}


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    cordon = one["cordon"] or {}
    state = ("draining" if cordon["drains"] else "cordoned") if cordon else None
    ill = ", ".join(sorted({child["code"] for child in one["ill"]}))
    about = (one["worker"], ", ".join(one["queues"]), one["children"], ill or None)
    return (*about, state, cordon.get("since"), cordon.get("ordered_by"))


def _audit(asked: argparse.Namespace) -> None:
    with transaction() as session:
        entries = audit.entries(session, limit=asked.limit)
        found = [{name: getattr(one, name) for name in LOGGED} for one in entries]
    _show(asked, found, "AT ACTOR ACTION TARGET DETAIL")


def _as_shown(one: Pause) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("kind", "name", "paused_at", "paused_by", "reason")}


def _show(asked: argparse.Namespace, found: list[dict[str, Any]], columns: str) -> None:
    if asked.json:
        print_json(found)
    else:
        print_table(columns.split(), [tuple(row.values()) for row in found])
