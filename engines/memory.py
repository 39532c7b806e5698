"""How much memory a device has free, how much a model takes there, and how the C library's share is given back.

GPUs are counted and measured with NVML, never with CUDA: a parent that initialised CUDA breaks its forked children.
"""

import ctypes
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from config import inherited_environment
from engines.model_file import variables

MB = 1_000_000
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # malloc.h
MMAP_MAX_BEFORE = 65_536  # glibc's default
CUDA_CONTEXT_BYTES = 450 * MB  # a process pays it once, whatever it loads
# float16 weights, and one window's caches and activations at beam 5, both in MB. The large, medium and small ones agree
# with published figures; the others are scaled from these by layers and width.
_SIZES_MB = {
    "large-v3": (3090, 434),
    "large-v2": (3090, 434),
    "large-v1": (3090, 434),
    "large-v3-turbo": (1620, 121),
    "distil-large-v2": (1510, 100),
    "distil-large-v3": (1510, 100),
    "distil-large-v3.5": (1510, 100),
    "medium": (1530, 260),
    "distil-medium.en": (790, 80),
    "small": (480, 100),
    "distil-small.en": (330, 60),
    "base": (145, 60),
    "tiny": (75, 40),
    "demo": (8, 20),
}


def weight_bytes(compute_type: str) -> int:
    """Bytes that one weight takes in memory."""
    if compute_type.startswith("int8"):
        return 1
    return 4 if compute_type == "float32" else 2


def table_bytes(size: str, compute_type: str) -> int | None:
    """Weights and one window, from the table; None for a model that it does not know."""
    known = _SIZES_MB.get(size.removesuffix(".en")) or _SIZES_MB.get(size)
    if known is None:
        return None
    weights_mb, window_mb = known
    return weights_mb * MB * weight_bytes(compute_type) // 2 + window_mb * MB


def model_bytes(model_bin: Path, compute_type: str) -> int:
    """What the weights in a CTranslate2 file take once loaded as `compute_type`, whatever type they are stored in."""
    width = weight_bytes(compute_type)
    try:
        with model_bin.open("rb") as file:
            return sum(one.count * width if len(one.shape) > 1 else one.stored for one in variables(file))
    except struct.error:  # a format that we do not know
        return model_bin.stat().st_size


def own_bytes() -> int:
    """Memory that this process alone holds; 0 where the system does not say."""
    with suppress(OSError), Path("/proc/self/status").open() as lines:
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)
    return 0


def cpu_free_bytes(root: Path = Path("/")) -> int:
    """Memory this process may still take: what the machine has available, or what its cgroup leaves."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return sys.maxsize  # not Linux: unknown, so nothing is refused
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min(available, *_cgroup_free(root), sys.maxsize)


def _cgroup_free(root: Path) -> Iterator[int]:
    """Room below each memory limit above this process: version 2 and 1, from inside and outside a container."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, name in groups:
        if controllers == "":
            top, limit, used, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            used, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        inner = top / name.lstrip("/")
        for folder in [path for path in (inner, *inner.parents) if path.is_relative_to(top)]:
            yield from _room(folder, limit, used, cache)


def _room(folder: Path, limit: str, used: str, cache: str) -> Iterator[int]:
    try:
        most = (folder / limit).read_text().strip()
        if most != "max":
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            reclaimable = int(statistics.get(cache, 0))  # page cache counts as used but is given up at once
            yield max(0, int(most) - int((folder / used).read_text()) + reclaimable)
    except (OSError, ValueError):
        return


@contextmanager
def _nvml() -> Iterator[Any]:
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()  # a parent that forks must not keep it open


def _visible_gpu() -> str:
    """The first GPU that CUDA is allowed to see, as CUDA_VISIBLE_DEVICES names it."""
    return inherited_environment().get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()


def gpu_count() -> int:
    """GPUs that the driver knows; 0 where CUDA_VISIBLE_DEVICES hides them or there is no driver."""
    if _visible_gpu() in {"", "-1", "NoDevFiles"}:
        return 0
    with suppress(Exception), _nvml() as nvml:  # no driver, or one that does not answer: there is no GPU to use
        return int(nvml.nvmlDeviceGetCount())
    return 0


def gpu_free_bytes() -> int:
    name = _visible_gpu()
    with suppress(Exception), _nvml() as nvml:
        find = nvml.nvmlDeviceGetHandleByIndex if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID
        handle = find(int(name) if name.isdigit() else name)
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).free)
    return sys.maxsize  # unknown: the device itself will say when it is full


def trim() -> None:
    """Return freed memory to the system; glibc keeps it otherwise. Elsewhere there is nothing to do."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def keep_freed() -> None:
    """From here on glibc keeps what is freed: a window takes and frees 400 MB; page faults cost a fifth of its time.

    `trim` gives it back. What an operator tells malloc by GLIBC_TUNABLES is left alone.
    """
    _mallopt(M_ARENA_MAX, 1)  # in the others nothing so large has room
    _mallopt(M_TRIM_THRESHOLD, 2_000_000_000)
    _mallopt(M_MMAP_MAX, 0)


@contextmanager
def giving_back() -> Iterator[None]:
    """For a load: what converting weights leaves behind would be kept too."""
    _mallopt(M_MMAP_MAX, MMAP_MAX_BEFORE)
    try:
        yield
    finally:
        _mallopt(M_MMAP_MAX, 0)
        trim()


def _mallopt(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not inherited_environment().get("GLIBC_TUNABLES"):
        mallopt(parameter, value)
