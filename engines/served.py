"""The engine as a worker child has it: spectrograms, prompts and text here, encoder and decoder in an engine server.

Stock faster-whisper runs in the child, window by window, on a model that asks the server: so the text is that of the
window alone, with Whisper's own rules for silence, whatever shares its batch.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from math import inf
from pathlib import Path
from threading import local
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from engines import SAMPLE_RATE, Model, catalog
from engines.decoding import decode, heard, prompt_excess
from engines.foreign import foreign_errors
from engines.link import Link
from engines.passes import Passes
from engines.readings import Reading, believed
from engines.wire import FRAMES, name_of
from errors import EngineError, EngineStalled, ServiceError
from transcript import DecodeOptions, Segment

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

    from engines import Audio, Speech
    from engines.wire import Mel

FRAMES_PER_S = 100
SHORT_STEP = 500  # frames: few lengths, so that windows still find others to share a batch with
AFTER_S = 1.0  # of silence, that tells Whisper that the speech has ended
STATS_WITHIN_S = 10.0  # a little more than the server gives its device to say how it is
ENOUGH_BYTES = 1 << 50  # children hold tokenizers only: the server's pool keeps the budget


@dataclass(slots=True)
class Caller:
    """On whose behalf this child works now."""

    urgent: bool = False


class WhisperEngine:
    """`links`: to the server of each device."""

    def __init__(self, links: Sequence[Link], *, short_windows: bool = False) -> None:
        self.caller = Caller()
        self._links = links
        self._short_windows = short_windows

    @property
    def waited_seconds(self) -> float:
        """In which this child's rows waited while the devices worked for others; it only grows."""
        return sum(link.waited_seconds for link in self._links)

    def resolve(self, size: str, compute_type: str) -> tuple[str, str]:
        chosen = self._device["compute_type"] if compute_type == "default" else compute_type
        return catalog.canonical(size), chosen

    def load(self, size: str, compute_type: str) -> Model:
        names, step = self.resolve(size, compute_type), SHORT_STEP if self._short_windows else FRAMES
        return WindowedModel(self._links, self.caller, *names, at_once=self.default_batch(), step=step)

    def estimate_bytes(self, size: str, compute_type: str) -> int:
        return 1

    def free_bytes(self) -> int:
        return ENOUGH_BYTES

    def default_batch(self) -> int:
        """As many windows as the device works on at once: a job that is alone keeps it busy."""
        return int(self._device["windows"])

    def begin(self, *, urgent: bool) -> None:
        self.caller.urgent = urgent

    def warm(self, size: str) -> None:
        name, compute_type = self.resolve(size, "default")
        self._have_all(lambda link: link.load(name, compute_type))

    def unload(self, size: str) -> None:
        name = catalog.canonical(size)
        self._have_all(lambda link: link.unload(name))

    def pool_stats(self, pool: dict[str, Any]) -> list[dict[str, Any]]:
        """Of each device's server: this process holds no weights. Raises EngineStalled where one does not answer."""
        return [_stats(link) for link in self._links]

    def _have_all(self, do: Callable[[Link], object]) -> None:
        """What one device refuses, the others still do. Raises what the first one refused with."""
        refusals = list[ServiceError]()
        for link in self._links:
            try:
                do(link)
            except ServiceError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    @cached_property
    def _device(self) -> dict[str, Any]:
        return self._links[0].ask("device")


class WindowedModel:
    """Thread-safe. A call takes a thread a window; all of its rows go to the device with the least to do."""

    def __init__(
        self, links: Sequence[Link], caller: Caller, size: str, compute_type: str, *, at_once: int, step: int
    ) -> None:
        """`step`: a spectrogram is cut to the next multiple of so many frames. Raises what loading raised."""
        self.size = size
        self.compute_type = compute_type
        self._links = links
        facts = links[0].load(size, compute_type)
        self.memory_bytes: int = facts["memory_bytes"]
        self.revision: str | None = facts["revision"]
        self._step = step
        self._here = local()  # the link, the slot, the length and the passes of the window that a thread works on
        self._remote = _RemoteWhisper(self, facts, caller)
        self._whisper = _assembled(self._remote, Path(facts["folder"]))
        self._closed = False
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="window")

    def transcribe(
        self, windows: "Sequence[Audio]", options: DecodeOptions, speech: "Sequence[Speech | None]" = ()
    ) -> list[tuple[Segment, ...]]:
        self._refuse_when_closed()
        link = self._least_busy()
        heard = speech or repeat(None)
        return list(self._threads.map(self._transcribe, windows, heard, repeat(options), repeat(link)))

    def detect_languages(self, window: "Audio") -> dict[str, float]:
        self._refuse_when_closed()
        if not self._remote.is_multilingual:
            return {"en": 1.0}
        return self._threads.submit(self._detect, window, self._least_busy()).result()

    def prompt_excess(self, options: DecodeOptions) -> int:
        return prompt_excess(self._whisper.hf_tokenizer, options)

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise EngineError("This is a bug: the model was closed while somebody still used it.")

    def _least_busy(self) -> Link:
        if len(self._links) == 1:
            return self._links[0]
        return min(self._links, key=_windows_at)

    def _transcribe(
        self, window: "Audio", speech: "Speech | None", options: DecodeOptions, link: Link
    ) -> tuple[Segment, ...]:
        def read(reading: Reading) -> tuple[Segment, ...]:
            sound = heard(window, reading)
            passes = self._at(slot, link, sound).passes = Passes(speech)
            return decode(self._whisper, sound, reading, passes)

        with foreign_errors(), link.slot() as slot:
            return believed(read, options)

    def _detect(self, window: "Audio", link: Link) -> dict[str, float]:
        with foreign_errors(), link.slot() as slot:
            self._at(slot, link, window).passes = Passes(None)
            found = self._whisper.feature_extractor(window)
            frames = found[..., : max(1, found.shape[-1] - 1)]  # as `transcribe` has them: encoded once for both
            _, _, probabilities = self._whisper.detect_language(features=frames)
            return {code: float(probability) for code, probability in probabilities}

    def _at(self, slot: int, link: Link, window: "Audio") -> local:
        """What this thread works on from here on."""
        self._here.link, self._here.slot, self._here.length_s = link, slot, len(window) / SAMPLE_RATE
        return self._here

    def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        here = self._here
        about = {"size": self.size, "compute_type": self.compute_type, "length_s": here.length_s}
        about |= {"shape": here.shape, "window": here.window}
        link: Link = here.link
        return link.ask_about(here.slot, operation, **about, **fields)

    def put(self, mel: "Mel") -> "Mel":
        """Into the slot of this thread's window: what the next questions are about. Raises Covered."""
        here = self._here
        here.passes.begin()
        needed = round((here.length_s + AFTER_S) * FRAMES_PER_S)
        mel = mel[..., : -(-needed // self._step) * self._step]
        shared: Mel = here.link.arena.mel(here.slot, mel.shape)
        shared[:] = mel
        here.shape, here.window = mel.shape, name_of(shared)
        return mel


class _RemoteWhisper:
    """As much of ctranslate2.models.Whisper as faster-whisper uses, for one window at a time."""

    def __init__(self, model: WindowedModel, facts: dict[str, Any], caller: Caller) -> None:
        self.is_multilingual: bool = facts["is_multilingual"]
        self.n_mels: int = facts["n_mels"]
        self._start: int = 50258 if self.is_multilingual else 50257  # <|startoftranscript|>
        self._model = model
        self._caller = caller

    def encode(self, features: "Mel") -> "Mel":
        """Nothing yet: each question about it has the encoder run in its batch."""
        return self._model.put(features)

    def generate(self, _: "Mel", prompts: list[list[int]], **options: Any) -> list[SimpleNamespace]:
        (prompt,) = prompts
        fields = {"prompt": prompt, "prompt_start": prompt.index(self._start), "options": options}
        row = self._model.ask("generate", urgent=self._caller.urgent, **fields)
        found = {"sequences_ids": row["tokens"], "scores": row["scores"], "no_speech_prob": row["no_speech_prob"]}
        return [SimpleNamespace(**found)]

    def detect_language(self, _: "Mel") -> list[list[tuple[str, float]]]:
        row = self._model.ask("detect", urgent=self._caller.urgent, options={})
        return [[(token, probability) for token, probability in row["languages"]]]

    def align(
        self, _: "Mel", start_sequence: Sequence[int], text_tokens: list[list[int]], num_frames: int, **options: Any
    ) -> list[SimpleNamespace]:
        (tokens,) = text_tokens
        fields = {"start_sequence": list(start_sequence), "text_tokens": tokens, "num_frames": num_frames}
        row = self._model.ask("align", urgent=self._caller.urgent, options=options, **fields)
        return [SimpleNamespace(alignments=row["alignments"], text_token_probs=row["text_token_probs"])]


def _stats(link: Link) -> dict[str, Any]:
    return link.ask("stats", within_s=STATS_WITHIN_S)


def _windows_at(link: Link) -> float:
    """Of a server that does not say how many: more than at any other."""
    try:
        stats = _stats(link)
    except EngineStalled:
        return inf
    return float(stats["waiting_windows"] + stats["running_windows"])


def import_libraries() -> None:
    """Before a fork, where there is a server: nobody computes with CTranslate2 in the children, so none can hang."""
    import faster_whisper  # noqa: F401

    import engines.mel  # noqa: F401


def _assembled(remote: _RemoteWhisper, folder: Path) -> "WhisperModel":
    """What WhisperModel.__init__ makes (faster-whisper 1.2.1), but for the weights."""
    from faster_whisper import WhisperModel
    from tokenizers import Tokenizer

    from engines.mel import extractor

    logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # it writes two lines a window
    whisper: Any = WhisperModel.__new__(WhisperModel)
    whisper.logger = logging.getLogger("faster_whisper")
    whisper.model = remote
    whisper.hf_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whisper.feat_kwargs = whisper._get_feature_kwargs(str(folder))  # noqa: SLF001
    whisper.feature_extractor = extractor(**whisper.feat_kwargs)
    whisper.input_stride = 2
    whisper.num_samples_per_token = whisper.feature_extractor.hop_length * whisper.input_stride
    whisper.frames_per_second = whisper.feature_extractor.sampling_rate // whisper.feature_extractor.hop_length
    whisper.tokens_per_second = whisper.feature_extractor.sampling_rate // whisper.num_samples_per_token
    whisper.time_precision = 0.02
    whisper.max_length = 448
    whisper.encode = remote.encode
    return whisper
