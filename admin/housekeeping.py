"""`sweep`: what the relay clears away every ten seconds, now and once. Leases that ran out are the relay's alone."""

import argparse

import errors
from admin.commands import Commands, add_command, print_json
from config import get_settings
from jobs.housekeeping import Housekeeper
from storage import open_storage


def add(groups: Commands) -> None:
    add_command(
        groups, "sweep", _sweep, about="delete now what is due, a bounded part of it; says what", example="sweep"
    )


def _sweep(asked: argparse.Namespace) -> None:
    settings = get_settings()
    housekeeper = Housekeeper(settings, open_storage(settings))
    housekeeper.go_round()  # the first looks which files there are
    has_more = housekeeper.go_round()
    done = housekeeper.stats()
    if done.pop("last_run") is None:
        raise errors.Conflict("A relay is clearing away in this moment. Nothing is left to do here; try again later.")
    if asked.json:
        print_json(done | {"has_more": has_more})
        return
    what = {"deleted_jobs": "jobs", "deleted_files": "files", "deleted_events": "events", "deleted_batches": "batches"}
    print("Deleted: " + ", ".join(f"{done[name]} {noun}" for name, noun in what.items()) + ".")
    if has_more:
        print("There is more: run it again, or let the relay do it.")
