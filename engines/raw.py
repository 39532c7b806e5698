"""CTranslate2's Whisper as the engine server uses it: one call of one operation for the rows of many children."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from engines import memory
from engines.encoder import Encoder
from engines.foreign import foreign_errors
from engines.hub_cache import revision_of
from engines.wire import FRAMES, name_of
from errors import EngineError

if TYPE_CHECKING:
    import ctranslate2

    from engines.encoder import Encoding
    from engines.wire import Mel

Request = dict[str, Any]
KEPT_WINDOWS = 16  # those that children may still ask about; 3 MB each of `base`, 8 of `large-v3`


class RawWhisper:
    """Thread-safe, as CTranslate2 is.

    On a CPU each window is encoded once, by itself, however many questions follow about it, and whoever shares its
    batch: its numbers are the same in every company, and encoding in batches is no faster there.
    `memory_bytes`: on a CPU by how much the process grew; on a GPU, where others load at the same time, the weights.
    """

    def __init__(
        self,
        model: "ctranslate2.models.Whisper",
        folder: Path,
        memory_bytes: int,
        encoder: Encoder | None = None,
    ) -> None:
        """`encoder`: for whole windows, instead of CTranslate2's."""
        self.memory_bytes = memory_bytes
        self._encoder = encoder
        self._model: ctranslate2.models.Whisper | None = model
        self._folder = folder
        self._encodings = Encodings() if model.device == "cpu" else None

    def facts(self) -> dict[str, Any]:
        """What a child needs to know to prepare rows: the folder with the tokenizer, and the shape of a spectrogram."""
        model = self._loaded
        return {
            "folder": str(self._folder),
            "revision": revision_of(self._folder),
            "is_multilingual": model.is_multilingual,
            "n_mels": model.n_mels,
        }

    def run(self, operation: str, mels: "Sequence[Mel]", requests: Sequence[Request]) -> list[dict[str, Any]]:
        """A result a row. `requests` agree in everything that `batch_key` names."""
        work = {"generate": self._generate, "align": self._align, "detect": self._detect}[operation]
        with foreign_errors():
            return work(self._features(mels, [request["window"] for request in requests]), requests)

    def _features(self, mels: "Sequence[Mel]", names: Sequence[str]) -> "ctranslate2.StorageView":
        """What CTranslate2's calls take: spectrograms, or what its encoder has made of them."""
        import ctranslate2
        import numpy as np

        if self._encodings is None:
            return ctranslate2.StorageView.from_array(np.stack(mels))
        rows = [self._encoded(self._encodings, mel, name) for mel, name in zip(mels, names, strict=True)]
        return ctranslate2.StorageView.from_array(np.concatenate(rows) if len(rows) > 1 else rows[0])

    def _encoded(self, known: "Encodings", mel: "Mel", name: str) -> "Encoding":
        encoding = known.get(name)
        if encoding is None:
            mel = mel.copy()  # a child that no longer waits for its row may put another window into the slot
            encoding = self._encode(mel)
            if name_of(mel) == name:
                known.put(name, encoding)
        return encoding

    def _encode(self, mel: "Mel") -> "Encoding":
        import ctranslate2
        import numpy as np

        if self._encoder is not None and mel.shape[-1] == FRAMES:
            return self._encoder.encode(mel)
        return np.asarray(self._loaded.encode(ctranslate2.StorageView.from_array(mel[None])))

    def close(self) -> None:
        model, self._model = self._model, None
        self._encodings = self._encoder = None
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


class Encodings:
    """What the encoder made of the last windows, by their names. Thread-safe."""

    def __init__(self, most: int = KEPT_WINDOWS) -> None:
        self._most = most
        self._lock = Lock()
        self._kept: OrderedDict[str, Encoding] = OrderedDict()

    def get(self, name: str) -> "Encoding | None":
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def put(self, name: str, encoding: "Encoding") -> None:
        with self._lock:
            self._kept[name] = encoding
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


def batch_key(request: Request) -> tuple[Any, ...]:
    """Rows of one key may share a call of CTranslate2: it takes one set of options and one shape of prompt."""
    common = (request["op"], request["size"], request["compute_type"], *request["shape"])
    options = tuple(sorted((name, _frozen(value)) for name, value in request["options"].items()))
    if request["op"] == "generate":
        return (*common, len(request["prompt"]), request["prompt_start"], options)
    return (*common, _frozen(request.get("start_sequence")), options)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
