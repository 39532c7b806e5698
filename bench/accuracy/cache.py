"""What stock said, kept by everything that its answer depends on; it hears only what it has not heard here before."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.accuracy.manifest import Recording
from bench.measure import machine, stock_environment
from engines.processor import cpu_flags

LIBRARIES = ("faster-whisper", "ctranslate2", "onnxruntime", "av")  # each may change a text
ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What both stocks are asked; ours is asked the same in its own words."""

    compute_type: str = "int8"
    beam_size: int = 5
    vad: bool = True
    words: bool = False
    threads: int = 2


class StockCache:
    def __init__(self, folder: Path, model: Path, asked: Asked) -> None:
        self._folder, self._model, self._asked = folder, model, asked
        self._folder.mkdir(parents=True, exist_ok=True)
        self._same = {
            "model": digest(model / "model.bin"),
            "asked": asdict(asked),
            "libraries": {name: version(name) for name in LIBRARIES},
            "processor": [machine()["processor"], *sorted(cpu_flags())],
        }

    def hear(self, kind: str, recordings: Sequence[Recording], *, given: bool) -> dict[str, Json]:
        """Answers by the recordings' ids. `given`: the language is told. Raises SystemExit where stock ended early."""
        places = {recording.id: self._place(kind, recording, given=given) for recording in recordings}
        missing = [recording for recording in recordings if not places[recording.id].exists()]
        if missing:
            print(f"Stock {kind}: {len(missing)} of {len(recordings)} recordings to hear.", flush=True)
            self._run(kind, [_task(recording, places[recording.id], given=given) for recording in missing])
        return {name: json.loads(place.read_text()) for name, place in places.items()}

    def has(self, kind: str, recording: Recording, *, given: bool) -> bool:
        return self._place(kind, recording, given=given).exists()

    def _place(self, kind: str, recording: Recording, *, given: bool) -> Path:
        language = recording.language if given else None
        same = self._same | {"kind": kind, "sound": digest(recording.path), "language": language}
        key = sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{kind}-{key[:32]}.json"

    def _run(self, kind: str, tasks: list[Json]) -> None:
        work = {"kind": kind, "folder": str(self._model), "asked": asdict(self._asked), "tasks": tasks}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(json.dumps(work))
            file.flush()
            command = (sys.executable, "-m", "bench.accuracy.stock", file.name)
            ended = subprocess.run(command, cwd=ROOT, env=stock_environment(), check=False).returncode
        if ended:
            raise SystemExit(f"Stock faster-whisper ({kind}) ended with status {ended}; what it has heard is kept.")


def _task(recording: Recording, place: Path, *, given: bool) -> Json:
    language = recording.language if given else None
    return {"path": str(recording.path.resolve()), "language": language, "out": str(place.resolve())}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
