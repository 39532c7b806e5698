"""One side of a bench in a process of its own: `python -m bench.player KIND MODEL [SOCKET | DEVICE ...]`.

Says "ready" once its model is loaded; for each line `COUNT` on stdin it transcribes so many windows and answers.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.sounds import Samples, windows
from config import get_settings

OPTIONS: dict[str, Any] = {"language": "en", "beam_size": 1, "temperature": 0.0}
Transcribe = Callable[[list[Samples]], object]


def sequential(folder: str, device: str = "cpu", compute_type: str = "int8") -> Transcribe:
    from faster_whisper import WhisperModel

    whisper = WhisperModel(folder, device=device, compute_type=compute_type)

    def transcribe(sounds: list[Samples]) -> object:
        return [list(whisper.transcribe(sound, condition_on_previous_text=False, **OPTIONS)[0]) for sound in sounds]

    return transcribe


def batched(folder: str, device: str = "cpu", compute_type: str = "int8", batch: str = "8") -> Transcribe:
    import numpy as np
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    pipeline = BatchedInferencePipeline(WhisperModel(folder, device=device, compute_type=compute_type))

    def transcribe(sounds: list[Samples]) -> object:
        clips = [{"start": 30 * number, "end": 30 * number + 30} for number in range(len(sounds))]
        sound = np.concatenate(sounds)
        return list(pipeline.transcribe(sound, clip_timestamps=clips, batch_size=int(batch), **OPTIONS)[0])

    return transcribe


def served(folder: str, socket: str) -> Transcribe:
    """As a worker's child hands windows in (jobs/attempt.py), without database and sound."""
    from engines import open_engine
    from transcript import DecodeOptions

    settings = get_settings()
    engine = open_engine(settings, [Path(socket)])
    model = engine.load(folder, "default")
    group = settings.batch_size or engine.default_batch()
    options = DecodeOptions(**OPTIONS)

    def transcribe(sounds: list[Samples]) -> object:
        starts = range(0, len(sounds), group)
        return [model.transcribe(sounds[start : start + group], options) for start in starts]

    return transcribe


KINDS: dict[str, Callable[..., Transcribe]] = {"sequential": sequential, "batched": batched, "served": served}


def main() -> None:
    kind, *places = sys.argv[1:]
    transcribe = KINDS[kind](*places)
    print("ready", flush=True)
    for line in sys.stdin:
        transcribe(windows(int(line)))
        print("done", flush=True)


class Players:
    """Processes that share a round's windows and begin together."""

    def __init__(self, count: int, environment: Mapping[str, str], *arguments: str) -> None:
        command = (sys.executable, "-m", "bench.player", *arguments)
        self._processes = [
            subprocess.Popen(
                command, cwd=Path(__file__).parents[1], env=environment, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(count)
        ]  # fmt: skip
        self._hear("ready")

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def play(self, count: int) -> float:
        """Seconds until the last of `count` windows is transcribed."""
        begun = time.perf_counter()
        for number, process in enumerate(self._processes):
            share = (count + number) // len(self._processes)
            assert process.stdin is not None
            process.stdin.write(f"{share}\n")
            process.stdin.flush()
        self._hear("done")
        return time.perf_counter() - begun

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _hear(self, word: str) -> None:
        for process in self._processes:
            assert process.stdout is not None
            heard = process.stdout.readline().strip()
            if heard != word:
                raise SystemExit(f"A side of the bench ended or said '{heard}' where '{word}' was expected.")


if __name__ == "__main__":
    main()
