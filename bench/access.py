"""What keys, rate limits and quotas cost a caller: submits a second with all of them on, and with the door open.

`python -m bench.access`. Two whole stacks take turns; their workers are occupied, so that only the API is measured.
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from access import keys
from bench.clients import service
from bench.measure import Report, compare, head, interleave, timed, warm
from bench.queue import SETTINGS, script
from bench.soak import database
from config import Settings
from stack.running import Stack

SECRET = "5d41402abc4b2a76b9719d911017c592"  # noqa: S105 (of two stacks that live for one bench)
CALLERS = 8
PROMISED = 0.9
LIMITED = {"secret_key": SECRET, "rate_limit_per_minute": 10_000_000, "quota_waiting_jobs": 10_000_000}


def new_key(stack: Stack) -> str:
    with Session(database(stack)) as session, session.begin():
        return keys.create(session, keys.KeyRequest("bench"), Settings(secret_key=SECRET))[1]


def submits(url: str, key: str, body: bytes, count: int) -> None:
    """From CALLERS at once, each over one connection."""
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(partial(_submits, url, key, body), [count // CALLERS] * CALLERS))


def _submits(url: str, key: str, body: bytes, count: int) -> None:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=b"} | ({"X-API-Key": key} if key else {})
    for _ in range(count):
        connection.request("POST", "/transcribe/", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 202:
            raise SystemExit(f"A submit was refused: {answer.status} {said[:300]!r}")
    connection.close()


def multipart(path: Path) -> bytes:
    begin = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return begin + path.read_bytes() + b"\r\n--b--\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.access", description=__doc__)
    parser.add_argument("--submits", type=int, default=400, help="a round")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    report = Report("access")
    with (
        tempfile.TemporaryDirectory() as folder,
        service(**SETTINGS) as open_,
        service(**SETTINGS, **LIMITED) as limited,
    ):
        body, key = multipart(script(Path(folder), 0)), new_key(limited)
        for url, token in ((open_.url, ""), (limited.url, key)):
            submits(url, token, multipart(script(Path(folder), 3600)), CALLERS)  # occupies the workers
        sides = {
            "open": timed(lambda: submits(open_.url, "", body, given.submits)),
            "keys and limits": timed(lambda: submits(limited.url, key, body, given.submits)),
        }
        print(head())
        found = interleave(warm(sides), rounds=given.rounds)
        report.add(
            compare(
                "submits", found, ("keys and limits", "open"), work=given.submits, unit="a second", at_least=PROMISED
            )
        )
    report.write()


if __name__ == "__main__":
    main()
