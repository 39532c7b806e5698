"""Bench 1: speech through the engine, ours against stock faster-whisper, and each lever of ours on and off.

`python -m bench.engine`. The same full windows of 30 s for all, greedy, random weights that say 100 tokens a window.
"""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import cpu_count
from pathlib import Path

from bench.measure import (
    PINNED,
    Report,
    Rounds,
    compare,
    head,
    interleave,
    pinned_environment,
    pss_mb,
    stock_environment,
)
from bench.models import FOLDER, copy_as_int8, model
from bench.player import Players
from config import get_settings
from engines import open_engine
from tests.engine_server import engine_server

KEEP = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=4000000000:glibc.malloc.arena_max=1"
HUGE_PAGES = f"{KEEP}:glibc.malloc.hugetlb=1:glibc.malloc.top_pad=67108864"
DEFAULTS = "glibc.malloc.mmap_max=65536"  # whatever stands there, the server leaves malloc alone
CORES = cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Served:
    """An engine server of ours: what its process is told, and how its children are."""

    server: dict[str, str] = field(default_factory=dict)
    child: dict[str, str] = field(default_factory=dict)
    children: int = CORES


BATCH_2, BATCH_4 = {"BATCH_SIZE": "2"}, {"BATCH_SIZE": "4"}
VARIANTS = {
    "ours": Served(),
    "malloc as it comes": Served({"GLIBC_TUNABLES": DEFAULTS}),
    "CTranslate2's encoder": Served({"CPU_ENCODER": "ctranslate2"}),
    "AVX2": Served({"CT2_FORCE_CPU_ISA": "AVX2", "CPU_ENCODER": "ctranslate2"}),
    "huge pages": Served({"GLIBC_TUNABLES": HUGE_PAGES}),
    "tuned children": Served(child={"GLIBC_TUNABLES": KEEP}),
    "batch 2": Served(BATCH_2, BATCH_2),
    "batch 4": Served(BATCH_4, BATCH_4),
    "one lane": Served({"CPU_THREADS": str(CORES)}),
    "one child": Served(children=1),
}
QUESTIONS = (  # A, B, ratio promised
    ("ours", "stock batched 8", 1.9),
    ("ours", "stock sequential", None),
    ("ours", "malloc as it comes", None),
    ("ours", "CTranslate2's encoder", None),
    ("CTranslate2's encoder", "AVX2", None),
    ("huge pages", "ours", None),
    ("tuned children", "ours", None),
    ("batch 2", "ours", None),
    ("batch 4", "ours", None),
    ("batch 4", "stock batched 8", None),
    ("one lane", "ours", None),
    ("one child", "ours", None),
)


@contextmanager
def stock(kind: str, folder: Path) -> Iterator[Players]:
    players = Players(1, stock_environment(), kind, str(folder))
    try:
        yield players
    finally:
        players.close()


@contextmanager
def ours(variant: Served, folder: Path) -> Iterator[tuple[Players, int]]:
    """The players, and the pid of their server."""
    told = {"MODEL_ALLOWED_PATHS": FOLDER, "MODEL_CACHE_DIR": FOLDER, "LOG_LEVEL": "WARNING"}
    with engine_server(**told, **(PINNED | variant.server)) as socket:
        pid = int(open_engine(get_settings(), [socket]).pool_stats({})[0]["pid"])
        environment = pinned_environment() | {"MODEL_ALLOWED_PATHS": str(FOLDER)} | variant.child
        players = Players(variant.children, environment, "served", str(folder), str(socket))
        try:
            yield players, pid
        finally:
            players.close()


def measure(report: Report, size: str, names: list[str], *, seconds: int, rounds: int, budget_s: float) -> None:
    """All sides are loaded and warm before the first round; those that wait use no processor."""
    folder, count = model(size), seconds // 30
    copy_as_int8(folder)
    with ExitStack() as open_sides:
        players = {f"stock {kind}": open_sides.enter_context(stock(kind.split()[0], folder)) for kind in STOCK}
        servers = {name: open_sides.enter_context(ours(VARIANTS[name], folder)) for name in names}
        players |= {name: playing for name, (playing, _) in servers.items()}
        for playing in players.values():
            playing.play(2 * CORES)  # warm
        found = interleave(
            {name: partial(playing.play, count) for name, playing in players.items()},
            rounds=rounds,
            budget_s=budget_s,
        )
        tell(report, size, found, seconds=30 * count)
        for name, (playing, pid) in servers.items():
            memory = {"server_mb": pss_mb([pid]), "children_mb": pss_mb(playing.pids)}
            report.note(model=size, side=name, **memory)


STOCK = ("sequential", "batched 8")


def tell(report: Report, size: str, found: Rounds, *, seconds: int) -> None:
    for a, b, promised in QUESTIONS:
        if a in found.seconds and b in found.seconds:
            at_least = promised if size == "base" else None
            report.add(compare(f"{size} int8", found, (a, b), work=seconds, unit="x real time", at_least=at_least))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.engine", description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base", "small"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seconds", type=int, default=600, help="of speech, a multiple of 30")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=1800.0, help="seconds a size, after which no round is begun")
    parser.add_argument("--name", default="engine", help="of the file with the results")
    given = parser.parse_args()
    report = Report(given.name)
    print(head())
    for size in given.sizes:
        limits = {"seconds": given.seconds, "rounds": given.rounds, "budget_s": given.budget}
        measure(report, size, given.variants, **limits)
    report.write()


if __name__ == "__main__":
    main()
