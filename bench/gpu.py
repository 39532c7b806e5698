"""Bench 6, by itself on a machine with an NVIDIA GPU and no network: models of real shapes and random weights.

`python -m bench.gpu [--sizes ...] [--parts ...]`. Exits with 2 where there is no GPU that CTranslate2 can use.
"""

import argparse
import ctypes
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.gpu_memory import GB, Gauge, only_free, settled
from bench.measure import Report, compare, head, interleave, pinned_environment, stock_environment, timed, warm
from bench.models import FOLDER, model
from bench.player import Players
from bench.sounds import windows
from config import Settings, inherited_environment
from engines import catalog, open_engine
from engines.supervisor import start_supervisor
from errors import ServiceError
from jobs.fallback import Fallback
from model_pool import ModelPool
from stack.plan import cuda_libraries
from transcript import DecodeOptions

NO_GPU = 2
PROMPT = [50_258, 50_259, 50_359, 50_363]  # start, English, transcribe, no times
TOKENS = 100  # that the models say in a window
BATCHES = (1, 4, 8, 16, 32)
TYPES = ("float16", "int8_float16")
FREE_GB = (6.0, 4.0, 2.0, 1.0)
CYCLES, MAY_GROW = 200, 64 << 20
LADDER = ("large-v3", "medium", "small", "base", "tiny")


def loaded(size: str, compute_type: str, *, workers: int = 1) -> Any:
    import ctranslate2

    folder = str(model(size, length=TOKENS))
    return ctranslate2.models.Whisper(folder, device="cuda", compute_type=compute_type, inter_threads=workers)


def features(whisper: Any, batch: int) -> Any:
    import ctranslate2

    mels = np.random.default_rng(0).standard_normal((batch, whisper.n_mels, 3000), np.float32)
    return ctranslate2.StorageView.from_array(mels)


def kernels(report: Report, sizes: list[str], rounds: int) -> None:
    """Encoder and decoder apart: milliseconds a batch and a step, by model, type, batch and beam."""
    for size in sizes:
        for compute_type in TYPES:
            whisper = loaded(size, compute_type)
            for batch in BATCHES:
                report.note(model=size, type=compute_type, batch=batch, **kernel(whisper, batch, rounds))
            whisper.unload_model()


def kernel(whisper: Any, batch: int, rounds: int) -> dict[str, float]:
    mels, prompts = features(whisper, batch), [PROMPT] * batch
    encoded = whisper.encode(mels)
    sides = {
        "encode": timed(lambda: whisper.encode(mels)),
        "greedy": timed(lambda: whisper.generate(encoded, prompts, beam_size=1)),
        "beam 5": timed(lambda: whisper.generate(encoded, prompts, beam_size=5)),
    }
    taken = interleave(warm(sides), rounds=rounds).seconds
    middle = {name: 1000 * float(np.median(seconds)) for name, seconds in taken.items()}
    steps = {f"{name.replace(' ', '_')}_step_ms": round(middle[name] / TOKENS, 3) for name in ("greedy", "beam 5")}
    speed = round(batch * 30 / (middle["encode"] + middle["greedy"]) * 1000)
    return {"encode_ms": round(middle["encode"], 2), **steps, "greedy_x_real_time": speed}


def overlap(report: Report, sizes: list[str], rounds: int) -> None:
    """Two batches in flight against one after the other: what hides behind what."""
    for size in sizes:
        whisper = loaded(size, "float16", workers=2)
        work = partial(generate, whisper, features(whisper, 16), 16)
        with ThreadPoolExecutor(2) as pool:
            sides = {
                "two in flight": timed(partial(together, pool, work)),
                "one after another": timed(partial(in_turn, work)),
            }
            found = interleave(warm(sides), rounds=rounds)
        report.add(compare(f"{size} float16, 4 x 16 rows", found, ("two in flight", "one after another")))
        whisper.unload_model()


def generate(whisper: Any, mels: Any, batch: int) -> None:
    whisper.generate(mels, [PROMPT] * batch, beam_size=1)


def together(pool: ThreadPoolExecutor, work: Callable[[], None]) -> None:
    for running in [pool.submit(work) for _ in range(4)]:
        running.result()


def in_turn(work: Callable[[], None]) -> None:
    for _ in range(4):
        work()


@contextmanager
def server(**environment: object) -> Iterator[Path]:
    """An engine server of the GPU; the path of its socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine"
        told = {"DATA_DIR": folder, "MODEL_ALLOWED_PATHS": FOLDER, "LOG_LEVEL": "WARNING"} | environment
        process = start_supervisor(path, "cuda", inherited_environment() | {k: str(v) for k, v in told.items()})
        try:
            yield path
        finally:
            process.kill()
            process.wait()


def end_to_end(report: Report, sizes: list[str], rounds: int) -> None:
    """Windows of many jobs through an engine server against stock, float16, greedy; and how busy the GPU was."""
    for size in sizes:
        folder, count = model(size, length=TOKENS), 256
        with server() as socket:
            served = Players(
                8, pinned_environment() | {"MODEL_ALLOWED_PATHS": str(FOLDER)}, "served", str(folder), str(socket)
            )
            sides = {"ours, 8 children": served}
            for kind, *more in (("sequential",), ("batched", "16")):
                name = " ".join(("stock", kind, *more))
                sides[name] = Players(1, stock_environment(), kind, str(folder), "cuda", "float16", *more)
            for players in sides.values():
                players.play(32)
            with Gauge().watching() as busy:
                served.play(count)
            found = interleave({name: partial(players.play, count) for name, players in sides.items()}, rounds=rounds)
            for players in sides.values():
                players.close()
        report.note(model=size, gpu_busy_percent=busy[0])
        for stock, promised in (("stock batched 16", 2.0), ("stock sequential", 4.0)):
            row = ("ours, 8 children", stock)
            report.add(compare(f"{size} float16", found, row, work=30 * count, unit="x real time", at_least=promised))


def hub(cache: Path) -> None:
    """Our models where the service looks for downloaded ones, so that the ladder finds smaller sizes by name."""
    for size in LADDER:
        repository = cache / f"models--{catalog.REPOSITORIES[size].replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("bench")
        (repository / "snapshots").mkdir()
        (repository / "snapshots" / "bench").symlink_to(model(size, length=TOKENS))


def ladder(report: Report, sizes: list[str], rounds: int) -> None:
    """With little memory free: which model and batch a job ends with, and that it ends."""
    for free_gb in FREE_GB:
        with tempfile.TemporaryDirectory() as cache:
            hub(Path(cache))
            with only_free(free_gb), server(MODEL_CACHE_DIR=cache, MODEL_DOWNLOAD="false") as socket:
                report.note(free_gb=free_gb, asked="large-v3", **climb_down(socket))


def climb_down(socket: Path) -> dict[str, Any]:
    engine = open_engine(Settings(), [socket])
    pool: ModelPool[Any] = ModelPool(engine, size=2, max_size=4)
    fallback = Fallback(pool, "large-v3", compute_type="default", batch=engine.default_batch())
    options, begun = DecodeOptions(language="en", beam_size=5, temperature=0.0), time.perf_counter()
    try:
        count = len(list(fallback.map(lambda lent, some: lent.transcribe(some, options), windows(64))))
    except ServiceError as error:
        return {"outcome": f"{type(error).__name__}: {error}", "rung": str(fallback.rung)}
    rate = round(64 * 30 / (time.perf_counter() - begun))
    return {"outcome": f"{count} windows", "rung": str(fallback.rung), "x_real_time": rate}


def leaks(report: Report, sizes: list[str], rounds: int) -> None:
    """Memory of the GPU and of the process after many loads and unloads, a batch in between."""
    gauge, process, seen = Gauge(), psutil.Process(), list[tuple[int, int]]()
    for _ in range(CYCLES):
        whisper = loaded(sizes[0], "float16")
        whisper.generate(features(whisper, 4), [PROMPT] * 4, beam_size=1)
        whisper.unload_model()
        del whisper
        gc.collect()
        seen.append((settled(gauge), process.memory_info().rss))
    early, late = (tuple(max(column) for column in zip(*part, strict=True)) for part in (seen[:20], seen[-20:]))
    grown = {"gpu_grown_mb": (late[0] - early[0]) >> 20, "process_grown_mb": (late[1] - early[1]) >> 20}
    report.note(model=sizes[0], cycles=CYCLES, **grown, holds=max(late[0] - early[0], late[1] - early[1]) <= MAY_GROW)


PARTS = {"kernels": kernels, "overlap": overlap, "end-to-end": end_to_end, "ladder": ladder, "leaks": leaks}


def missing() -> str:
    """What this machine lacks; empty where all is there."""
    import ctranslate2

    if not ctranslate2.get_cuda_device_count():
        return "There is no NVIDIA GPU here that CTranslate2 can see: this bench needs one. Nothing was measured."
    try:
        ctypes.CDLL("libcublas.so.12")
    except OSError:
        return "libcublas.so.12 was not found: install requirements-cuda.lock, or name its folder in LD_LIBRARY_PATH."
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.gpu", description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["large-v3-turbo", "large-v3", "small"])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="gpu", help="of the file with the results")
    given = parser.parse_args()
    if lack := missing():
        print(lack, file=sys.stderr)
        return NO_GPU
    report, gauge = Report(given.name), Gauge()
    report.note(gpu=gauge.name, memory_gb=round(gauge.total / GB, 1))
    print(head())
    for name in given.parts:
        PARTS[name](report, given.sizes, given.rounds)
        report.write()
    return 0


def again_with_cublas() -> int:
    """The loader reads LD_LIBRARY_PATH at the start of a process only."""
    environment = inherited_environment()
    paths = [cuda_libraries(), environment.get("LD_LIBRARY_PATH", "")]
    environment |= {"LD_LIBRARY_PATH": ":".join(filter(None, paths)), STARTED: "1"}
    command = (sys.executable, "-m", "bench.gpu", *sys.argv[1:])
    return subprocess.run(command, env=environment, check=False).returncode


STARTED = "BENCH_GPU_STARTED"

if __name__ == "__main__":
    sys.exit(main() if STARTED in inherited_environment() or not cuda_libraries() else again_with_cublas())
