"""Bench 2: from HTTP to result, ours (a whole stack, durable) against a FastAPI service with a lock and faster-whisper.

`python -m bench.service`. Same recordings, same model file, same options; both run at once and take turns.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.clients import peer, service, through_ours, through_peer
from bench.measure import Report, compare, head, interleave
from bench.models import FOLDER, model
from bench.sounds import write_wav


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    count: int
    seconds: float
    at_least: float
    tokens: int = 100  # that the model says in a window: as many as people say in the time
    short_windows: bool = False


LOADS = {
    "clips": Load("clips", 32, 20, 2.0, tokens=70),
    "short": Load("short", 200, 3, 2.0, tokens=12),
    "short-windows": Load("short-windows", 200, 3, 5.0, tokens=12, short_windows=True),
    "long": Load("long", 4, 600, 1.0),
}


def measure(report: Report, urls: tuple[str, str], load: Load, *, share: float, rounds: int, budget_s: float) -> None:
    ours, theirs = urls
    count = max(2, round(load.count * share))
    sides = {
        "ours": lambda: with_new(load, count, partial(through_ours, ours)),
        "peer": lambda: with_new(load, count, partial(through_peer, theirs)),
    }
    found = interleave(sides, rounds=rounds, budget_s=budget_s)
    work = count * load.seconds
    name = f"{count} x {load.seconds:g} s" + (", SHORT_WINDOWS" if load.short_windows else "")
    report.add(compare(name, found, ("ours", "peer"), work=work, unit="x real time", at_least=load.at_least))


def with_new(load: Load, count: int, send: Callable[[list[Path]], float]) -> float:
    """Recordings that nobody has heard before; each begins elsewhere in the speech."""
    with tempfile.TemporaryDirectory() as name:
        places = [Path(name) / f"{number}.wav" for number in range(count)]
        return send([write_wav(path, load.seconds, skip_s=7 * at % 58) for at, path in enumerate(places)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.service", description=__doc__)
    parser.add_argument("--loads", nargs="+", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--size", default="base")
    parser.add_argument("--share", type=float, default=1.0, help="of the recordings of each load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=1800.0, help="seconds a load, after which no round is begun")
    parser.add_argument("--name", default="service", help="of the file with the results")
    given = parser.parse_args()
    report = Report(given.name)
    print(head())
    for load in (LOADS[name] for name in given.loads):
        folder = model(given.size, length=load.tokens)
        settings = {"whisper_model_size": folder, "model_allowed_paths": FOLDER, "short_windows": load.short_windows}
        with service(**settings) as stack, peer(str(folder)) as theirs:
            warm_up(stack.url, theirs)
            limits = {"share": given.share, "rounds": given.rounds, "budget_s": given.budget}
            measure(report, (stack.url, theirs), load, **limits)
    report.write()


def warm_up(ours: str, theirs: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_wav(Path(folder) / f"warm-{number}.wav", 10) for number in range(4)]
        through_ours(ours, paths)
        through_peer(theirs, paths)


if __name__ == "__main__":
    main()
