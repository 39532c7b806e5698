"""A GPU's memory from outside: how much is used, how busy it is, and a process that fills it up.

`python -m bench.gpu_memory GB` takes all but so many GB and holds them until its stdin ends.
"""

import ctypes
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from typing import Any

GB = 1 << 30
PIECE = 64 << 20


class Gauge:
    """The first GPU, read through NVML: no CUDA context of our own."""

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml: Any = pynvml
        self._gpu = pynvml.nvmlDeviceGetHandleByIndex(0)

    @property
    def name(self) -> str:
        return str(self._nvml.nvmlDeviceGetName(self._gpu))

    @property
    def total(self) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._gpu).total)

    @property
    def used(self) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._gpu).used)

    @property
    def busy_percent(self) -> int:
        return int(self._nvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu)

    @contextmanager
    def watching(self) -> Iterator[list[float]]:
        """Percent busy, ten times a second; the mean is appended at the end."""
        left, seen, found = Event(), list[float](), list[float]()

        def look() -> None:
            while not left.wait(0.1):
                seen.append(self.busy_percent)

        thread = Thread(target=look, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            left.set()
            thread.join()
            found.append(round(fmean(seen), 1) if seen else 0.0)


@contextmanager
def only_free(gigabytes: float) -> Iterator[None]:
    """All but so much of the GPU's memory is taken meanwhile, by another process."""
    command = (sys.executable, "-m", "bench.gpu_memory", str(gigabytes))
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "full":
            raise SystemExit("The GPU's memory could not be filled.")
        yield
    finally:
        process.kill()
        process.wait()


def fill(gigabytes: float) -> None:
    gauge, cuda = Gauge(), ctypes.CDLL("libcuda.so.1")
    context, device = ctypes.c_void_p(), ctypes.c_int()
    _check(cuda.cuInit(0))
    _check(cuda.cuDeviceGet(ctypes.byref(device), 0))
    _check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    _check(cuda.cuCtxSetCurrent(context))
    while gauge.total - gauge.used > gigabytes * GB + PIECE:
        _check(cuda.cuMemAlloc_v2(ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(PIECE)))


def _check(status: int) -> None:
    if status:
        raise SystemExit(f"CUDA's driver answered {status}.")


def settled(gauge: Gauge, within_s: float = 10.0) -> int:
    """Bytes used once two looks agree: a process that ended gives its memory back a little later."""
    before, until = gauge.used, time.monotonic() + within_s
    while time.monotonic() < until:
        time.sleep(0.5)
        if (now := gauge.used) == before:
            break
        before = now
    return before


if __name__ == "__main__":
    fill(float(sys.argv[1]))
    print("full", flush=True)
    sys.stdin.read()
