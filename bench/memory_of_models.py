"""Bench 5: memory of a whole worker with a model loaded, by its children, with an engine server and without.

`python -m bench.memory_of_models`. Proportional set size: what processes share counts once. Peak for ten hours of
sound: `python -m bench.memory`.
"""

import argparse
import tempfile
from pathlib import Path

import psutil

from bench.clients import result, service, submit
from bench.measure import Report, pss_mb
from bench.models import FOLDER, model
from bench.sounds import write_wav
from stack.running import Stack
from tests.processes import until

CHILDREN = (1, 2, 4)
SERVED = {True: "on", False: "off"}


def roles(stack: Stack) -> dict[str, list[int]]:
    """The worker's processes by what they are."""
    main = psutil.Process(stack.pid_of("worker"))
    found: dict[str, list[int]] = {"main": [main.pid], "supervisor": [], "server": [], "child": []}
    for process in main.children(recursive=True):
        words = process.cmdline()
        role = next((name for name in ("supervisor", "server") if f"engines.{name}" in words), "child")
        found[role].append(process.pid)
    return found


def measure(size: str, children: int, *, served: bool) -> dict[str, float | int | str]:
    """After every child has had one job: without a server each then holds its own copy of the weights."""
    settings = {
        "whisper_model_size": model(size), "model_allowed_paths": FOLDER, "celery_concurrency": children,
        "engine_server": SERVED[served],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, service(**settings) as stack:
        path = write_wav(Path(folder) / "speech.wav", 60)
        until(lambda: round_of_jobs(stack, path, children) == children, within_s=300)
        found = {role: pss_mb(pids) for role, pids in roles(stack).items()}
        told = {f"{role}_mb": megabytes for role, megabytes in found.items()}
        worker = {"worker_mb": round(sum(found.values()), 1)}
        return {"model": size, "children": children, "engine_server": SERVED[served], **worker, **told}


def round_of_jobs(stack: Stack, path: Path, count: int) -> int:
    """As many jobs at once as there are children; how many children have had one by now."""
    jobs = [submit(stack.url, path) for _ in range(count)]
    for job in jobs:
        result(stack.url, job)
    return sum(has_worked(process) for process in psutil.Process(stack.pid_of("worker")).children())


def has_worked(child: psutil.Process) -> bool:
    """faster-whisper's tokenizer is mapped by those that have had a job."""
    return any("tokenizers" in region.path for region in child.memory_maps())


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.memory_of_models", description=__doc__)
    parser.add_argument("--size", default="small")
    parser.add_argument("--children", type=int, nargs="+", default=list(CHILDREN))
    parser.add_argument("--name", default="memory_of_models", help="of the file with the results")
    given = parser.parse_args()
    report = Report(given.name)
    for served in (True, False):
        alone = None
        for children in given.children:
            found = measure(given.size, children, served=served)
            alone = alone or float(found["worker_mb"])
            report.note(**found, against_first=round(float(found["worker_mb"]) / alone, 2))
    report.write()


if __name__ == "__main__":
    main()
