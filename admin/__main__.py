"""`python -m admin GROUP COMMAND`: the operator's commands, at the database itself: they work while the API is away.

Exit code 0: done; 1: could not be done, stderr says why; 2: wrong arguments.
"""

import argparse
import sys
from collections.abc import Callable

from pydantic import ValidationError
from sqlalchemy.exc import ProgrammingError

import errors
from admin import doctor, housekeeping, jobs, keys, letters, models, steering
from admin.commands import explained, prepare

GROUPS = (doctor.add, keys.add, jobs.add, letters.add, models.add, steering.add, housekeeping.add)


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int | None] = asked.run
    try:
        asked.prepare()
        return run(asked) or 0
    except (errors.ServiceError, ValidationError, ProgrammingError, OSError) as error:
        print(explained(error), file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m admin", description="Commands for the operator of this service.")
    parser.set_defaults(prepare=prepare)
    groups = parser.add_subparsers(title="groups", metavar="GROUP", required=True)
    for add in GROUPS:
        add(groups)
    return parser


if __name__ == "__main__":
    sys.exit(main())
