"""`python -m bench [--quick] [BENCH ...]`: benches 1 to 5, each in a process of its own, one after the other.

Others run where they are named.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from bench.measure import RESULTS

BENCHES = {  # name: arguments for a run of minutes
    "engine": ("--sizes", "tiny", "base", "--seconds", "240", "--rounds", "3"),
    "service": ("--share", "0.1", "--rounds", "1"),
    "priority": ("--rounds", "3"),
    "short_windows": ("--windows", "4"),
    "stages": ("--rounds", "3"),
    "queue": ("--jobs", "40", "--rounds", "3"),
    "access": ("--rounds", "3"),
    "scrape": ("--rounds", "3"),
    "memory_of_models": ("--size", "base", "--children", "1", "2"),
}
NAMED = {  # an hour and 12 GB
    "waiting": ("--jobs", "200000", "--rounds", "3"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "benches", nargs="*", metavar="BENCH", help=f"of {', '.join(BENCHES)}; all of these, or {', '.join(NAMED)}"
    )
    parser.add_argument("--quick", action="store_true", help="smaller loads, fewer rounds: minutes instead of hours")
    given = parser.parse_args()
    every = BENCHES | NAMED
    if unknown := set(given.benches) - set(every):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    failed = [name for name in given.benches or BENCHES if not run(name, every[name] if given.quick else ())]
    print(f"Results are in {RESULTS}; bench/README.md says how to read them.")
    if failed:
        print(f"Ended early: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, arguments: tuple[str, ...]) -> bool:
    print(f"\n{name}", flush=True)
    command = (sys.executable, "-m", f"bench.{name}", *arguments)
    return subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
