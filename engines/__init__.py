"""The Engine protocol: what a speech recogniser must be able to do. Engines know nothing of jobs, pools or queues.

Two implementations: `whisper` (faster-whisper) and `fake` (fault tests). An engine translates every foreign exception
to errors.OutOfMemory, errors.EngineBroken, errors.ModelUnavailable or errors.EngineError (`foreign`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from config import Settings
from transcript import DecodeOptions, Language, Segment

if TYPE_CHECKING:  # numpy is not for the API process
    import numpy as np
    from numpy.typing import NDArray

    Audio = NDArray[np.float32]  # mono, 16 kHz, -1..1, at most 30 s

SAMPLE_RATE = 16_000  # samples a second of every window


class Model(Protocol):
    size: str
    compute_type: str
    memory_bytes: int

    def transcribe(self, windows: "Sequence[Audio]", options: DecodeOptions) -> list[tuple[Segment, ...]]:
        """One tuple of segments a window, times in seconds from the window's start. One engine batch at most.

        `options.language` must be set. Raises OutOfMemory, after which this model must be discarded.
        """
        ...

    def detect_language(self, window: "Audio") -> Language: ...

    def close(self) -> None:
        """Give the memory back now."""
        ...


class Engine(Protocol):
    def resolve(self, size: str, compute_type: str) -> tuple[str, str]:
        """The one name of a model and its type on this device: ("turbo", "default") is ("large-v3-turbo", "int8")."""
        ...

    def load(self, size: str, compute_type: str) -> Model: ...

    def estimate_bytes(self, size: str, compute_type: str) -> int:
        """Memory that `load` will need, before it is known."""
        ...

    def free_bytes(self) -> int:
        """Memory that the device has free now."""
        ...

    def default_batch(self) -> int:
        """Windows a call where the settings leave it to the engine."""
        ...


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings name. Loads no model and no native library: a parent may call it before it forks."""
    if settings.engine == "fake":
        from engines.fake import FakeEngine

        return FakeEngine()
    from engines.whisper import FasterWhisperEngine

    return FasterWhisperEngine(settings)
