"""Checks of `doctor` that ask nobody: device, limits and secrets of the machine that it runs on.

The service may run under other limits than this command: systemd, a container.
"""

import ctypes
import importlib.util
import os
import resource
import shutil
from pathlib import Path
from typing import Any

from admin.finding import Finding, fail, ok, warn
from config import Settings, memory_folder

MB = 1024**2
FEWEST_FILES = 4096  # each upload, connection and event stream is an open file
SMALLEST_SHARED_MB = 256


def device(settings: Settings) -> Finding:
    """By NVML, never by CUDA. GPUs that CUDA_VISIBLE_DEVICES hides from CTranslate2 count as none."""
    from engines import memory

    asked, count = settings.device, memory.gpu_count()
    if not count:
        cores = f"no GPU; {os.cpu_count()} CPU cores"
        if "cuda" in asked:
            return fail(f"DEVICE={asked}, but no GPU can be used", "Check nvidia-smi, or set DEVICE=cpu.")
        return ok(f"DEVICE={asked}: {cores}")
    if "cuda" not in asked and asked != "auto":
        return ok(f"DEVICE={asked}; {count} GPU(s) stay unused")
    gpus = "; ".join(_gpus(memory.MB))
    if not _has_cublas():
        advice = "Install requirements-cuda.lock, or a CUDA 12 with cuBLAS on LD_LIBRARY_PATH."
        say = warn if asked == "auto" else fail  # auto goes on with the CPU
        return say(f"{gpus}, but libcublas.so.12 was not found", advice)
    missing = [index for index in _asked_indexes(asked) if index >= count]
    if missing:
        return fail(f"DEVICE={asked}, but there are {count} GPU(s): {gpus}", "Name GPUs that there are, from cuda:0.")
    return ok(f"DEVICE={asked}: {gpus}")


def _asked_indexes(asked: str) -> list[int]:
    return [int(one.partition(":")[2] or 0) for one in asked.split(",") if one.startswith("cuda")]


def _gpus(mb: int) -> list[str]:
    """Name and free memory of each."""
    import pynvml

    pynvml.nvmlInit()
    try:
        return [_gpu(pynvml, index, mb) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int, mb: int) -> str:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    room = nvml.nvmlDeviceGetMemoryInfo(handle)
    return f"{nvml.nvmlDeviceGetName(handle)}, {room.free // mb} of {room.total // mb} MB free"


def _has_cublas() -> bool:
    """Where the loader finds it, or in the package whose folder `make run` tells the loader."""
    try:
        ctypes.CDLL("libcublas.so.12")
    except OSError:
        pass
    else:
        return True
    try:
        return importlib.util.find_spec("nvidia.cublas") is not None
    except ModuleNotFoundError:
        return False


def open_files(settings: Settings) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FEWEST_FILES:
        return ok(f"{'any number of' if soft == resource.RLIM_INFINITY else soft} open files are allowed")
    return warn(f"{soft} open files are allowed (the most: {hard})", f"ulimit -n {FEWEST_FILES}, or LimitNOFILE=.")


def shared_memory(settings: Settings) -> Finding:
    folder = memory_folder()
    if folder is None:
        return warn("it may not be written: a disk is used instead", "Mount /dev/shm: counters are written often.")
    room = shutil.disk_usage(folder)
    found = f"{room.free // MB} of {room.total // MB} MiB free in {folder}"
    if room.free < SMALLEST_SHARED_MB * MB:
        return warn(found, f"Give it {SMALLEST_SHARED_MB} MiB at least (a container: shm_size).")
    return ok(found)


def disk(settings: Settings) -> Finding:
    """Below DATA_DIR: the embedded database, models, logs."""
    folder = next(path for path in (settings.data_dir, *settings.data_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free // MB} MiB free in DATA_DIR"
    if free < settings.min_free_disk_mb * MB:
        return warn(found, "Less than MIN_FREE_DISK_MB: make room.")
    return ok(found)


def secrets(settings: Settings) -> Finding:
    """Which others than their owner may read."""
    folder = settings.data_dir / "secrets"
    if not folder.exists():
        return ok("none are kept below DATA_DIR")
    open_to_others = [path.name for path in (folder, *sorted(folder.iterdir())) if _is_open(path)]
    if not open_to_others:
        return ok("only their owner may read them")
    if _is_open(folder):
        return fail("others may look into DATA_DIR/secrets", "chmod -R go= on that folder.")
    return warn(f"others could read {', '.join(open_to_others)}", "chmod go= on them.")


def _is_open(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o077)
