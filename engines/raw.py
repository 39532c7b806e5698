"""CTranslate2's Whisper as the engine server uses it: one call of one operation for the rows of many children."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import Settings
from engines import memory
from engines.foreign import foreign_errors
from engines.whisper import FasterWhisperEngine
from errors import EngineError

if TYPE_CHECKING:
    import ctranslate2

    from engines.wire import Mel

Request = dict[str, Any]


class RawEngine(FasterWhisperEngine):
    """Loads what batches run on, with as many workers on the same weights as there are lanes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.lanes, self._threads, self.most = shape(settings, self.device)

    def _open(self, folder: Path, size: str, compute_type: str) -> "RawWhisper":  # type: ignore[override]
        import ctranslate2

        before = memory.own_bytes()
        model = ctranslate2.models.Whisper(
            str(folder),
            device=self.device,
            device_index=self.device_index,
            compute_type=compute_type,
            inter_threads=self.lanes,
            intra_threads=self._threads,
        )
        memory.trim()
        taken = memory.model_bytes(folder / "model.bin", compute_type)
        if self.device == "cpu":
            taken = max(taken, memory.own_bytes() - before)
        self._has_context = self.device == "cuda"
        return RawWhisper(model, folder, taken)


class RawWhisper:
    """Thread-safe, as CTranslate2 is."""

    def __init__(self, model: "ctranslate2.models.Whisper", folder: Path, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self._model: ctranslate2.models.Whisper | None = model
        self._folder = folder

    def facts(self) -> dict[str, Any]:
        """What a child needs to know to prepare rows: the folder with the tokenizer, and the shape of a spectrogram."""
        model = self._loaded
        return {"folder": str(self._folder), "is_multilingual": model.is_multilingual, "n_mels": model.n_mels}

    def run(self, operation: str, mels: "Sequence[Mel]", requests: Sequence[Request]) -> list[dict[str, Any]]:
        """A result a row. `requests` agree in everything that `batch_key` names."""
        import ctranslate2
        import numpy as np

        with foreign_errors():
            features = ctranslate2.StorageView.from_array(np.stack(mels))
            return {"generate": self._generate, "align": self._align, "detect": self._detect}[operation](
                features, requests
            )

    def close(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            with foreign_errors():
                model.unload_model()
                del model
                memory.trim()

    def _generate(self, features: "ctranslate2.StorageView", requests: Sequence[Request]) -> list[dict[str, Any]]:
        prompts = [request["prompt"] for request in requests]
        found = self._loaded.generate(features, prompts, **requests[0]["options"])
        return [
            {"tokens": row.sequences_ids, "scores": row.scores, "no_speech_prob": row.no_speech_prob} for row in found
        ]

    def _align(self, features: "ctranslate2.StorageView", requests: Sequence[Request]) -> list[dict[str, Any]]:
        first = requests[0]
        found = self._loaded.align(
            features,
            first["start_sequence"],
            [request["text_tokens"] for request in requests],
            [request["num_frames"] for request in requests],
            **first["options"],
        )
        return [{"alignments": row.alignments, "text_token_probs": row.text_token_probs} for row in found]

    def _detect(self, features: "ctranslate2.StorageView", requests: Sequence[Request]) -> list[dict[str, Any]]:
        return [{"languages": row} for row in self._loaded.detect_language(features)]

    @property
    def _loaded(self) -> "ctranslate2.models.Whisper":
        if self._model is None:
            raise EngineError("This is a bug: the model was closed while somebody still used it.")
        return self._model


def shape(settings: Settings, device: str) -> tuple[int, int, int]:
    """Batches in flight, threads for each, rows in a batch."""
    if device == "cuda":
        return 2, 1, settings.batch_size or 16  # two, so that the host's work on one hides behind the other
    threads = settings.cpu_threads or 1  # lanes of one thread each do more than one lane with all of them
    return max(1, (os.cpu_count() or 1) // threads), threads, settings.batch_size or 1


def batch_key(request: Request) -> tuple[Any, ...]:
    """Rows of one key may share a call of CTranslate2: it takes one set of options and one shape of prompt."""
    common = (request["op"], request["size"], request["compute_type"], *request["shape"])
    options = tuple(sorted((name, _frozen(value)) for name, value in request["options"].items()))
    if request["op"] == "generate":
        return (*common, len(request["prompt"]), request["prompt_start"], options)
    return (*common, _frozen(request.get("start_sequence")), options)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
