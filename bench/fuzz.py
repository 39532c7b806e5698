"""tests/test_fuzz.py and test_openapi_true.py with many more examples and a seed of one's choice, round after round.

`python -m bench.fuzz --minutes 10 --seed N`: exit status 1 with the command that shows the same again.
"""

import argparse
import secrets
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("tests/test_fuzz.py", "tests/test_openapi_true.py")
EXAMPLES = 150  # a test and round; 10,000 requests from the OpenAPI document
ROUND_S = 1800  # no round takes so long: one that does hangs


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the first round")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="for each test in a round")
    given = parser.parse_args()
    end = time.monotonic() + given.minutes * 60
    seed = given.seed
    while True:
        command = round_of(seed, given.examples)
        if not holds(command):
            print(f"\nSeed {seed} found something. The same again: {' '.join(command)}")
            return 1
        if time.monotonic() >= end:
            break
        seed += 1
    print(f"Nothing found. Seeds {given.seed} to {seed}, {given.examples} examples a test.")
    return 0


def round_of(seed: int, examples: int) -> tuple[str, ...]:
    pytest = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "-q")
    return ("env", f"FUZZ_EXAMPLES={examples}", *pytest, f"--hypothesis-seed={seed}", *TESTS)


def holds(command: tuple[str, ...]) -> bool:
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=ROUND_S)
    except subprocess.TimeoutExpired as late:
        print(late)
        return False
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-5000:])
    else:
        print(f"{command[-1 - len(TESTS)]}: nothing in {time.monotonic() - started:.0f} s", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
