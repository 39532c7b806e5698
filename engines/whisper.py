"""faster-whisper as an Engine: which device, which type, where the files are, load and give back.

Libraries are imported inside functions: a parent that loaded CTranslate2 hangs the children it forks.
"""

import ctypes
import gc
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import Settings
from engines import SAMPLE_RATE, Model, catalog, memory
from engines.decoding import decode
from engines.foreign import foreign_errors
from errors import EngineError, OutOfMemory
from telemetry.events import emit
from transcript import DecodeOptions, Language, Segment

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

    from engines import Audio

_CPU_FACTOR = 1.5  # measured with `small`: activations are float32 there, and conversion fragments the heap
_DETECT_SAMPLES = 30 * SAMPLE_RATE


class FasterWhisperEngine:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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

    def load(self, size: str, compute_type: str) -> Model:
        """Raises ModelUnavailable, OutOfMemory, EngineBroken or EngineError."""
        size, compute_type = self.resolve(size, compute_type)
        folder = catalog.locate(size, self._settings)
        if self.device == "cpu":
            self._refuse_what_does_not_fit(size, compute_type)
        with foreign_errors():
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

    def default_batch(self) -> int:
        return 8 if self.device == "cuda" else 1

    def begin(self, *, urgent: bool) -> None:
        return

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

    def _open(self, folder: Path, size: str, compute_type: str) -> Model:
        from faster_whisper import WhisperModel

        logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # it writes two lines a window
        before = memory.own_bytes()
        whisper = WhisperModel(
            str(folder),
            device=self.device,
            device_index=self.device_index,
            compute_type=compute_type,
            cpu_threads=self._settings.threads_per_child,
            num_workers=1,
        )
        memory.trim()  # converting float16 files to int8 leaves as much again behind
        taken = memory.model_bytes(folder / "model.bin", compute_type)
        if self.device == "cpu":
            taken = max(taken, memory.own_bytes() - before)
        self._has_context = self.device == "cuda"
        return FasterWhisperModel(whisper, size, compute_type, taken)


class FasterWhisperModel:
    """Thread-safe, as CTranslate2 is; calls from several threads queue for its one worker.

    `memory_bytes`: on a CPU by how much the process grew; on a GPU, where others load at the same time, the weights.
    """

    def __init__(self, whisper: "WhisperModel", size: str, compute_type: str, memory_bytes: int) -> None:
        self.size = size
        self.compute_type = compute_type
        self.memory_bytes = memory_bytes
        self._whisper: WhisperModel | None = whisper

    def transcribe(self, windows: "Sequence[Audio]", options: DecodeOptions) -> list[tuple[Segment, ...]]:
        with foreign_errors():
            return decode(self._loaded, windows, options)

    def detect_language(self, window: "Audio") -> Language:
        with foreign_errors():
            if not self._loaded.model.is_multilingual:
                return Language("en", 1.0)
            code, probability, _ = self._loaded.detect_language(window[:_DETECT_SAMPLES])
            return Language(code, float(probability))

    def close(self) -> None:
        whisper, self._whisper = self._whisper, None
        if whisper is None:
            return
        with foreign_errors():
            whisper.model.unload_model()
            del whisper
            gc.collect()  # a generator that an exception left half read would keep the weights
            memory.trim()

    @property
    def _loaded(self) -> "WhisperModel":
        if self._whisper is None:
            raise EngineError("This is a bug: the model was closed while somebody still used it.")
        return self._whisper


def _has_cublas() -> bool:
    try:
        ctypes.CDLL("libcublas.so.12")
    except OSError:
        return False
    return True
