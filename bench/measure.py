"""How every bench measures: the sides take turns within one run, and each figure carries how quiet the machine was.

A ratio is the median over the rounds of the ratio within a round: what disturbs a round disturbs both of its sides.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from config import inherited_environment

RESULTS = Path(__file__).with_name("results")
LEAST_SHARE = 0.9  # of a core, that each of two busy loops must get for a figure to be presented as clean
LOOPS, LOOP_S = 2, 0.4
BUSY_LOOP = f"""
import time
begin, worked = time.perf_counter(), time.process_time()
while time.perf_counter() - begin < {LOOP_S}: pass
print((time.process_time() - worked) / {LOOP_S})
"""
THREAD_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PINNED = {"OMP_WAIT_POLICY": "PASSIVE", **dict.fromkeys(THREAD_POOLS, "1")}  # as worker.py does for its children
Side = Callable[[], float]  # one round's work; its seconds, or whatever is compared
Json = dict[str, Any]


def core_share() -> float:
    """The least share of a core that one of two busy loops gets just now."""
    command = (sys.executable, "-S", "-c", BUSY_LOOP)
    loops = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(LOOPS)]
    return min(float(loop.communicate()[0]) for loop in loops)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What each side took, round by round, and the least core share seen before, between and after."""

    seconds: Mapping[str, list[float]]
    share: float

    @property
    def count(self) -> int:
        return min(len(taken) for taken in self.seconds.values())


def interleave(sides: Mapping[str, Side], *, rounds: int = 5, budget_s: float = 600.0) -> Rounds:
    """A, B, C, then the same in the opposite order, and so on. After `budget_s` no further round is begun."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    begun, shares = time.monotonic(), [core_share()]
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            taken[name].append(sides[name]())
        shares.append(core_share())
        if time.monotonic() - begun > budget_s:
            break
    return Rounds(taken, min(shares))


def timed(work: Callable[[], object]) -> Side:
    def run() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return run


def warm(sides: dict[str, Side]) -> dict[str, Side]:
    """Each once, unmeasured."""
    for side in sides.values():
        side()
    return sides


@dataclass(frozen=True, slots=True)
class Row:
    """A against B. `ratio` above 1: A is better."""

    name: str
    unit: str  # of both absolutes
    a: str
    b: str
    a_value: float
    b_value: float
    ratio: float
    lowest: float  # ratio of any round
    highest: float
    rounds: int
    share: float
    at_least: float | None = None  # what PERFORMANCE promises

    @property
    def is_busy(self) -> bool:
        return self.share < LEAST_SHARE

    @property
    def verdict(self) -> str:
        if self.is_busy:
            return f"busy machine ({self.share:.2f})"
        if self.at_least is None:
            return ""
        return "ok" if self.ratio >= self.at_least else f"below {self.at_least:g}"


def compare(
    name: str,
    found: Rounds,
    sides: tuple[str, str],
    *,
    work: float = 0.0,
    unit: str = "s",
    at_least: float | None = None,
) -> Row:
    """`work`: what a round does (seconds of sound, say), to show a rate; without, values are shown as they are."""
    a, b = (found.seconds[side] for side in sides)
    ratios = [theirs / ours for ours, theirs in zip(a, b, strict=True)]
    shown = [work / median(taken) if work else median(taken) for taken in (a, b)]
    spread = (round(min(ratios), 3), round(max(ratios), 3))
    values = (round(shown[0], 4), round(shown[1], 4), round(median(ratios), 3))
    return Row(name, unit, *sides, *values, *spread, found.count, round(found.share, 3), at_least)


@dataclass(slots=True)
class Report:
    """What one bench found: rows that compare, and figures that stand alone."""

    bench: str
    rows: list[Row] = field(default_factory=list)
    figures: list[Json] = field(default_factory=list)

    def add(self, *rows: Row) -> None:
        for row in rows:
            self.rows.append(row)
            print(line(row), flush=True)

    def note(self, **figure: Any) -> None:
        self.figures.append(figure)
        print("  ".join(f"{name}={value}" for name, value in figure.items()), flush=True)

    def write(self) -> Path:
        RESULTS.mkdir(exist_ok=True)
        rows = [asdict(row) | {"busy_machine": row.is_busy} for row in self.rows]
        path = RESULTS / f"{self.bench}.json"
        content = {"bench": self.bench, "machine": machine(), "rows": rows, "figures": self.figures}
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path


def head() -> str:
    return f"{'what':34} {'A':>22} {'B':>22} {'A value':>10} {'B value':>10} {'ratio':>6}  rounds"


def line(row: Row) -> str:
    return (
        f"{row.name:34} {row.a:>22} {row.b:>22} {row.a_value:10.4g} {row.b_value:10.4g} {row.ratio:6.2f}"
        f"  {row.rounds} ({row.lowest:.2f}-{row.highest:.2f}) {row.unit} {row.verdict}"
    )


def machine() -> Json:
    model = next((text for name, text in _pairs("/proc/cpuinfo") if name == "model name"), "unknown")
    memory = next((text for name, text in _pairs("/proc/meminfo") if name == "MemTotal"), "0 kB")
    return {"processor": model, "cores": os.cpu_count(), "memory_mb": int(memory.split()[0]) // 1024}


def _pairs(path: str) -> list[tuple[str, str]]:
    with suppress(OSError):
        lines = (text.partition(":") for text in Path(path).read_text().splitlines())
        return [(name.strip(), value.strip()) for name, _, value in lines]
    return []


def pss_mb(pids: Sequence[int]) -> float:
    """Proportional set size: memory that processes share counts once in all."""
    return round(sum(_pss_kb(pid) for pid in pids) / 1024, 1)


def _pss_kb(pid: int) -> int:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(text.split()[1]) for text in lines if text.startswith("Pss:")), 0)
    return 0


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def stock_environment() -> dict[str, str]:
    """What a person's shell would give: nothing that tunes threads or malloc."""
    tuned = {*PINNED, "CT2_FORCE_CPU_ISA", "GLIBC_TUNABLES", "LD_PRELOAD"}
    return {name: value for name, value in inherited_environment().items() if name not in tuned}


def pinned_environment() -> dict[str, str]:
    return stock_environment() | PINNED
