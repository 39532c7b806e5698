"""The folder in which the processes of a machine keep their counters, a file each; those of the dead are added up."""

import fcntl
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

MOST_DEAD = 16  # files; a scrape reads all there are
_FILE = re.compile(r"(counter|histogram)_(\d+)\.db")
_OF_THE_DEAD = 0  # no process has this pid


class _Read(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def read(folder: str) -> Collector:
    """What all processes have counted, the dead ones too."""
    with _locked(Path(folder)):
        _fold(Path(folder))
        metrics = list(MultiProcessCollector(CollectorRegistry(), folder).collect())
    return _Read(metrics)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """While files are added up, a reader would count them twice."""
    with (folder / "reading").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fold(folder: Path) -> None:
    files = [(path, found[1], int(found[2])) for path in folder.iterdir() if (found := _FILE.fullmatch(path.name))]
    dead = [(path, kind) for path, kind, pid in files if pid != _OF_THE_DEAD and not Path(f"/proc/{pid}").exists()]
    if len(dead) > MOST_DEAD and Path("/proc/self").exists():
        for kind in {kind for _, kind in dead}:
            _add_up([path for path, its in dead if its == kind], folder / f"{kind}_{_OF_THE_DEAD}.db")


def _add_up(paths: list[Path], total: Path) -> None:
    values: Counter[str] = Counter()
    for path in [*paths, *([total] if total.exists() else [])]:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
            values[key] += value
    draft = total.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    written = MmapedDict(str(draft))
    for key, value in values.items():
        written.write_value(key, value, 0.0)
    written.close()
    draft.replace(total)
    for path in paths:
        path.unlink()
