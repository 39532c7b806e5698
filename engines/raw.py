"""CTranslate2's Whisper as the engine server uses it: one call of one operation for the rows of many children."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import memory
from engines.foreign import foreign_errors
from errors import EngineError

if TYPE_CHECKING:
    import ctranslate2

    from engines.wire import Mel

Request = dict[str, Any]


class RawWhisper:
    """Thread-safe, as CTranslate2 is.

    `memory_bytes`: on a CPU by how much the process grew; on a GPU, where others load at the same time, the weights.
    """

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


def batch_key(request: Request) -> tuple[Any, ...]:
    """Rows of one key may share a call of CTranslate2: it takes one set of options and one shape of prompt."""
    common = (request["op"], request["size"], request["compute_type"], *request["shape"])
    options = tuple(sorted((name, _frozen(value)) for name, value in request["options"].items()))
    if request["op"] == "generate":
        return (*common, len(request["prompt"]), request["prompt_start"], options)
    return (*common, _frozen(request.get("start_sequence")), options)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
