"""Whisper's encoder on OpenVINO; CTranslate2 does the rest. Faster, with the same rounding to 8 bits (ADR 0010).

Libraries are imported inside functions, as in `whisper`.
"""

import sys
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from config import Settings
from engines import memory
from engines.model_file import variables, weights
from engines.processor import WIDE, cpu_flags
from engines.wire import FRAMES
from telemetry.events import emit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engines.wire import Mel

    Encoding = NDArray[np.float32]  # (1, positions, width)

POSITIONS = FRAMES // 2
_USEFUL = {*WIDE, "avx512_vnni"}  # where it was measured
_encoders: "WeakSet[Encoder]" = WeakSet()  # of this process


class Encoder:
    """Thread-safe: `lanes` windows at a time, each on `threads` threads."""

    def __init__(self, model_bin: Path, *, lanes: int, threads: int) -> None:
        sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment] # its converters: slow, and they report home
        import openvino

        from engines.encoder_graph import graph

        properties = {
            "INFERENCE_PRECISION_HINT": "f32",  # of what is not in 8 bits; on some processors the default is less
            "INFERENCE_NUM_THREADS": lanes * threads,
            "NUM_STREAMS": lanes,
            "ENABLE_HYPER_THREADING": True,  # lanes are counted so
            "ENABLE_CPU_PINNING": False,  # else two processes share a core while others are idle
        }
        self._compiled = openvino.Core().compile_model(graph(weights(model_bin, "encoder/")), "CPU", properties)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(lanes):
            self._idle.put(self._compiled.create_infer_request())
        _encoders.add(self)

    def encode(self, mel: "Mel") -> "Encoding":
        """`mel`: (mels, FRAMES)."""
        request = self._idle.get()
        try:
            request.infer({0: mel[None]})
            encoding: Encoding = request.get_output_tensor().data.copy()
            return encoding
        finally:
            self._idle.put(request)

    def rest(self) -> None:
        """Give back what the last windows took: of `small` 110 MB. The next ones take it again."""
        with suppress(RuntimeError):  # it is at work
            self._compiled.release_memory()


def rest() -> None:
    with suppress(RuntimeError):  # another thread opens one: next time
        for encoder in list(_encoders):
            encoder.rest()


def open_encoder(model_bin: Path, settings: Settings, *, lanes: int, threads: int) -> Encoder | None:
    """None: CTranslate2's own is to be used, which always works."""
    if not _is_wanted(settings):
        return None
    started = monotonic()
    try:
        needed, room = _needed_bytes(model_bin, lanes), _room_bytes(settings)
        if needed > room:
            emit("engine.encoder_refused", reason=f"needs {needed // memory.MB} MB of at most {room // memory.MB}")
            return None
        encoder = Encoder(model_bin, lanes=lanes, threads=threads)
    except Exception as error:  # noqa: BLE001 not installed, another processor, another kind of model
        emit("engine.encoder_refused", reason=type(error).__name__, exc_info=error)
        return None
    emit("engine.encoder_ready", seconds=round(monotonic() - started, 2))
    return encoder


def _is_wanted(settings: Settings) -> bool:
    return settings.cpu_encoder == "openvino" or (settings.cpu_encoder == "auto" and cpu_flags() >= _USEFUL)


def _room_bytes(settings: Settings) -> int:
    """Half of what is free, or of the pool's budget: models come first."""
    free = memory.cpu_free_bytes()
    return min(free, settings.model_pool_memory_mb * 1024**2 or free) // 2


def _needed_bytes(model_bin: Path, lanes: int) -> int:
    """Measured with `tiny`, `base` and `small`: weights one and a half times, and some 25 activations for each lane."""
    with model_bin.open("rb") as file:
        found = {one.name: one for one in variables(file) if one.name.startswith(b"encoder/")}
    width = found[b"encoder/conv2/weight"].shape[0]
    matrices = sum(one.count for one in found.values() if len(one.shape) > 1)
    return matrices * 3 // 2 + lanes * 25 * POSITIONS * width * 4
