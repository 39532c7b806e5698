"""The Engine protocol: what a speech recogniser must be able to do. Engines know nothing of jobs, pools or queues.

Two implementations: Whisper (`served`, and what it stands on) and `fake` (fault tests). An engine translates foreign
exceptions to errors.OutOfMemory, EngineBroken, ModelUnavailable or EngineError (`foreign`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from config import Settings
from transcript import DecodeOptions, Segment

if TYPE_CHECKING:  # numpy is not for the API process
    import numpy as np
    from numpy.typing import NDArray

    Audio = NDArray[np.float32]  # mono, 16 kHz, -1..1, at most 30 s

Speech = Sequence[tuple[float, float]]  # where a voice is heard: start and end, in seconds from the window's start
SLOTS = 48  # windows that a child works on at once, at most
SAMPLE_RATE = 16_000  # samples a second of every window


class Model(Protocol):
    size: str
    compute_type: str
    memory_bytes: int
    revision: str | None  # the hub's commit that the weights are of; None: a folder of somebody's own

    def transcribe(
        self, windows: "Sequence[Audio]", options: DecodeOptions, speech: Sequence[Speech | None] = ()
    ) -> list[tuple[Segment, ...]]:
        """One tuple of segments a window, times in seconds from the window's start. One engine batch at most.

        `options.language` must be a code. `speech`: of each window, where it is known: what lies behind the last
        segment is then decoded again only where somebody speaks there. Raises OutOfMemory, after which this model
        must be discarded.
        """
        ...

    def detect_languages(self, window: "Audio") -> dict[str, float]:
        """The probability of each language that the model knows, by its code, the likeliest first."""
        ...

    def prompt_excess(self, options: DecodeOptions) -> int:
        """Tokens of hot words and prompt that the model has no room for; the first ones are left out."""
        ...

    def close(self) -> None:
        """Give the memory back now."""
        ...


class Engine(Protocol):
    @property
    def waited_seconds(self) -> float:
        """Time in which what this process asked for waited while the device worked for others. It only grows."""
        ...

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

    def begin(self, *, urgent: bool) -> None:
        """Whose work follows: where a device is shared, urgent rows mostly go first."""
        ...

    def warm(self, size: str) -> None:
        """Have the servers of all devices load it; nothing where the weights are in this process's own pool."""
        ...

    def unload(self, size: str) -> None:
        """Have the servers of all devices drop it, as ModelPool.unload does; nothing where there are none."""
        ...

    def pool_stats(self, pool: dict[str, Any]) -> list[dict[str, Any]]:
        """What stands in /admin/health, one a device. `pool`: the counts of this process's own pool."""
        ...


def open_engine(settings: Settings, servers: "Sequence[Path]" = (), *, on_dead: Callable[[], object] = int) -> Engine:
    """The engine that the settings name, by way of the servers at these sockets or, without any, of one inside us.

    Loads no native library. `on_dead`: what to do about an engine server that does not come back.
    """
    if settings.engine == "fake":
        from engines.fake import FakeEngine

        return FakeEngine(settings)
    from engines.link import Link, connect_to
    from engines.local import connect_here
    from engines.served import WhisperEngine

    ways = [partial(connect_to, path, on_dead) for path in servers] or [partial(connect_here, settings)]
    links = [Link(connect, slots=SLOTS) for connect in ways]
    return WhisperEngine(links, short_windows=settings.short_windows)
