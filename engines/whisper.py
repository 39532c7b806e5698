"""Where Whisper models run and what they need: the device, the compute type, the files, the memory; load and give back.

Libraries are imported inside functions: a parent that loaded CTranslate2 hangs the children it forks.
"""

import ctypes
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any

from config import Settings
from engines import catalog, memory, quantized
from engines.encoder import Encoder, open_encoder
from engines.foreign import foreign_errors
from engines.raw import RawWhisper
from errors import OutOfMemory
from telemetry.events import emit

_CPU_FACTOR = 1.5  # measured with `small`: activations are float32 there, and conversion fragments the heap


class WhisperLoader:
    """What the ModelPool of a device loads from."""

    def __init__(
        self, settings: Settings, *, is_shared: bool, opening: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """`is_shared`: by several children, so that several batches are in flight. `opening`: around each opening."""
        self._opening = opening
        self._settings = settings
        self._is_shared = is_shared
        self._has_context = False  # CUDA's own memory in this process, which the first load takes

    @cached_property
    def device(self) -> str:
        """`cpu` or `cuda`; `auto` takes a GPU only where CTranslate2 will find the cuBLAS it needs."""
        if self._settings.device != "auto":
            return self._settings.devices[0].partition(":")[0]
        if not memory.gpu_count():
            return "cpu"
        if _has_cublas():
            return "cuda"
        emit("engine.device_refused", device="cuda", reason="libcublas.so.12 was not found", used="cpu")
        return "cpu"

    @property
    def device_index(self) -> int:
        return int(self._settings.devices[0].partition(":")[2] or 0)

    def resolve(self, size: str, compute_type: str) -> tuple[str, str]:
        if compute_type == "default":
            compute_type = self._settings.compute_type
        if compute_type == "default":
            compute_type = "int8" if self.device == "cpu" else "float16"
        return catalog.canonical(size), compute_type

    def load(self, size: str, compute_type: str) -> RawWhisper:
        """Raises ModelUnavailable, OutOfMemory, EngineBroken or EngineError."""
        size, compute_type = self.resolve(size, compute_type)
        folder = catalog.locate(size, self._settings)
        if self.device == "cpu":
            self._refuse_what_does_not_fit(size, compute_type)
        with foreign_errors(), self._opening():
            return self._open(folder, size, compute_type)

    def estimate_bytes(self, size: str, compute_type: str) -> int:
        """Weights and one window; on a GPU also the process's CUDA context, until it is there."""
        size, compute_type = self.resolve(size, compute_type)
        estimate = memory.table_bytes(size, compute_type)
        if estimate is None:  # a path: the file itself says it
            with foreign_errors():
                estimate = memory.model_bytes(catalog.locate(size, self._settings) / "model.bin", compute_type)
        if self.device == "cpu":
            return round(estimate * _CPU_FACTOR)
        return estimate + (0 if self._has_context else memory.CUDA_CONTEXT_BYTES)

    def free_bytes(self) -> int:
        return memory.gpu_free_bytes() if self.device == "cuda" else memory.cpu_free_bytes()

    @property
    def lanes(self) -> int:
        """Batches in flight."""
        if not self._is_shared:
            return 1
        if self.device == "cuda":
            return 2  # so that the host's work on one hides behind the other
        return max(1, (os.cpu_count() or 1) // self.threads)

    @property
    def threads(self) -> int:
        """Of one call on a CPU. Lanes of one thread each do more than one lane with all of them."""
        return self._settings.cpu_threads or (1 if self._is_shared else self._settings.threads_per_child)

    @property
    def most(self) -> int:
        """Rows in a batch."""
        return self._settings.batch_size or (16 if self.device == "cuda" else 1)

    def pool_stats(self, pool: dict[str, Any]) -> list[dict[str, Any]]:
        used = sum(model["memory_bytes"] for model in pool["loaded"])
        free = self.free_bytes()
        return [{**pool, "device": self.device, "pid": os.getpid(), "memory_used": used, "memory_free": free}]

    def _refuse_what_does_not_fit(self, size: str, compute_type: str) -> None:
        """The kernel gives memory that it does not have and later kills the process: on a CPU nothing raises."""
        needed, free = self.estimate_bytes(size, compute_type), self.free_bytes()
        if needed > free:
            raise OutOfMemory(
                f"The model needs about {needed // memory.MB} MB, {free // memory.MB} MB of memory are free."
            )

    def _open(self, folder: Path, size: str, compute_type: str) -> RawWhisper:
        import ctranslate2

        before = memory.own_bytes()
        files = quantized.files_to_load(folder, compute_type, self._settings)
        with memory.giving_back():
            model = ctranslate2.models.Whisper(
                str(files),
                device=self.device,
                device_index=self.device_index,
                compute_type=compute_type,
                inter_threads=self.lanes,
                intra_threads=self.threads,
            )
            encoder = self._encoder(files / "model.bin", compute_type)
        taken = memory.model_bytes(folder / "model.bin", compute_type)
        if self.device == "cpu":
            taken = max(taken, memory.own_bytes() - before)
        self._has_context = self.device == "cuda"
        if quantized.needs_copy(folder, compute_type, self._settings):
            Thread(target=quantized.make_copy, args=(folder, self._settings), name="quantize", daemon=True).start()
        return RawWhisper(model, folder, taken, encoder)

    def _encoder(self, model_bin: Path, compute_type: str) -> Encoder | None:
        if self.device != "cpu" or not compute_type.startswith("int8"):
            return None
        return open_encoder(model_bin, self._settings, lanes=self.lanes, threads=self.threads)


def _has_cublas() -> bool:
    try:
        ctypes.CDLL("libcublas.so.12")
    except OSError:
        return False
    return True
