"""8-bit copies of models that come in floats: they load several times faster and leave no garbage in the heap.

Made once, after the first load that had to convert, below DATA_DIR. A copy whose original has changed is made again.
"""

import fcntl
import shutil
from hashlib import sha256
from pathlib import Path

from config import Settings
from engines.model_file import holds_wide_weights, write_int8
from telemetry.events import emit


def files_to_load(folder: Path, compute_type: str, settings: Settings) -> Path:
    """`folder`, or the copy of it that is ready."""
    copy = _copy_of(folder, settings)
    return copy if _is_wanted(compute_type, settings) and _is_current(copy, folder) else folder


def needs_copy(folder: Path, compute_type: str, settings: Settings) -> bool:
    if not _is_wanted(compute_type, settings) or _is_current(_copy_of(folder, settings), folder):
        return False
    return holds_wide_weights(folder / "model.bin")


def make_copy(folder: Path, settings: Settings) -> None:
    """Where there is room, and unless another process is at it. Without a copy everything works, only slower."""
    copy, size = _copy_of(folder, settings), (folder / "model.bin").stat().st_size
    try:
        copy.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(copy).free < size + settings.min_free_disk_mb * 1024**2:
            emit("model.copy_skipped", reason="the disk is nearly full")
            return
        with (copy / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(folder, copy)
    except OSError as error:
        emit("model.copy_skipped", reason=type(error).__name__)
    else:
        emit("model.copied", size_mb=size // 1_000_000)


def _write(folder: Path, copy: Path) -> None:
    (copy / "of").unlink(missing_ok=True)
    stamp = _stamp(folder)
    for name in ("config.json", "vocabulary.json", "vocabulary.txt", "preprocessor_config.json"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, copy / name)
    write_int8(folder / "model.bin", copy / "model.bin.part")
    (copy / "model.bin.part").replace(copy / "model.bin")
    (copy / "of.part").write_text(stamp)
    (copy / "of.part").replace(copy / "of")


def _is_wanted(compute_type: str, settings: Settings) -> bool:
    return settings.model_quantized_copies and compute_type.startswith("int8")


def _copy_of(folder: Path, settings: Settings) -> Path:
    return settings.models_dir / "int8" / sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def _is_current(copy: Path, folder: Path) -> bool:
    try:
        return (copy / "of").read_text() == _stamp(folder)
    except OSError:
        return False


def _stamp(folder: Path) -> str:
    """Of the original as it is now."""
    found = (folder / "model.bin").resolve().stat()
    return f"{folder.resolve()} {found.st_size} {found.st_mtime_ns}"
