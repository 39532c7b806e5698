"""Bench 2: from HTTP to result, ours (a whole stack, durable) against a FastAPI service with a lock and faster-whisper.

`python -m bench.service`. Same recordings, same model file, same options; both run at once and take turns.
"""

import argparse
import tempfile
from dataclasses import dataclass
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

    def recordings(self, folder: Path, share: float) -> list[Path]:
        """Each begins elsewhere in the speech."""
        count = max(2, round(self.count * share))
        return [
            write_wav(folder / f"{self.name}-{number}.wav", self.seconds, skip_s=7 * number % 58)
            for number in range(count)
        ]


LOADS = {
    "clips": Load("clips", 32, 20, 2.0),
    "short": Load("short", 200, 3, 2.0),
    "long": Load("long", 4, 600, 1.0),
}


def measure(report: Report, urls: tuple[str, str], load: Load, *, share: float, rounds: int, budget_s: float) -> None:
    ours, theirs = urls
    with tempfile.TemporaryDirectory() as folder:
        paths = load.recordings(Path(folder), share)
        sides = {"ours": lambda: through_ours(ours, paths), "peer": lambda: through_peer(theirs, paths)}
        found = interleave(sides, rounds=rounds, budget_s=budget_s)
    work = len(paths) * load.seconds
    name = f"{len(paths)} x {load.seconds:g} s"
    report.add(compare(name, found, ("ours", "peer"), work=work, unit="x real time", at_least=load.at_least))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.service", description=__doc__)
    parser.add_argument("--loads", nargs="+", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--size", default="base")
    parser.add_argument("--share", type=float, default=1.0, help="of the recordings of each load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=1800.0, help="seconds a load, after which no round is begun")
    parser.add_argument("--name", default="service", help="of the file with the results")
    given = parser.parse_args()
    folder, report = model(given.size), Report(given.name)
    settings = {"whisper_model_size": folder, "model_allowed_paths": FOLDER}
    with service(**settings) as stack, peer(str(folder)) as theirs:
        print(head())
        warm_up(stack.url, theirs)
        for name in given.loads:
            limits = {"share": given.share, "rounds": given.rounds, "budget_s": given.budget}
            measure(report, (stack.url, theirs), LOADS[name], **limits)
    report.write()


def warm_up(ours: str, theirs: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_wav(Path(folder) / f"warm-{number}.wav", 10) for number in range(4)]
        through_ours(ours, paths)
        through_peer(theirs, paths)


if __name__ == "__main__":
    main()
