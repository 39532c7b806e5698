"""What Prometheus costs: submits a second while `/metrics` is scraped far too often, and while it is not.

`python -m bench.scrape`. One stack, whose workers are occupied. A share of 1 % is far below what a round can show, so
the scrapes come TIMES as often as the usual 15 s, and the processor time of one is read from the API's process.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

import psutil

from bench.access import CALLERS, multipart, submits
from bench.clients import service
from bench.measure import Report, compare, head, interleave, timed, warm
from bench.queue import SETTINGS, script
from stack.running import Stack

USUAL_S, TIMES = 15.0, 30
COUNTED = 40  # scrapes one after the other, whose processor time is read


@contextmanager
def scraped(url: str) -> Iterator[None]:
    done = Event()

    def ask() -> None:
        while not done.wait(USUAL_S / TIMES):
            scrape(url)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    yield
    done.set()
    thread.join()


def scrape(url: str) -> None:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    if not answer.read().startswith(b"#") or answer.status != 200:
        raise SystemExit(f"A scrape was refused: {answer.status}")
    connection.close()


def cpu_s(stack: Stack) -> float:
    """Processor time that one scrape takes of the API, beside nothing else."""
    api = psutil.Process(stack.pid_of("api"))
    before = sum(api.cpu_times()[:2])
    for _ in range(COUNTED):
        scrape(stack.url)
    return (sum(api.cpu_times()[:2]) - before) / COUNTED


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scrape", description=__doc__)
    parser.add_argument("--submits", type=int, default=400, help="a round")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    report = Report("scrape")
    with tempfile.TemporaryDirectory() as folder, service(**SETTINGS) as stack:
        body = multipart(script(Path(folder), 0))
        submits(stack.url, "", multipart(script(Path(folder), 3600)), CALLERS)  # occupies the workers

        def work() -> None:
            submits(stack.url, "", body, given.submits)

        def while_scraped() -> None:
            with scraped(stack.url):
                work()

        print(head())
        found = interleave(warm({"not scraped": timed(work), "scraped": timed(while_scraped)}), rounds=given.rounds)
        often = f"scraped {TIMES} x as often"
        row = compare(often, found, ("scraped", "not scraped"), work=given.submits, unit="a second")
        report.add(row)
        scrape_s = cpu_s(stack)
        report.note(every_s=USUAL_S, share_of_submits_lost=round((1 - row.ratio) / TIMES, 5), promised_at_most=0.01)
        report.note(scrape_cpu_ms=round(1000 * scrape_s, 2), share_of_one_core=round(scrape_s / USUAL_S, 5))
    report.write()


if __name__ == "__main__":
    main()
