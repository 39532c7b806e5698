"""One window by stock faster-whisper: sound in, segments out. Every rule about silence is Whisper's."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engines import SAMPLE_RATE
from engines.passes import Covered, Passes
from engines.readings import Reading
from errors import EngineError
from transcript import DecodeOptions, Segment, Word

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

    from engines import Audio

LONGEST = 30 * SAMPLE_RATE
LONGEST_PROMPT = 223  # tokens, as openai/whisper: half of what the decoder takes, less the one that begins a prompt


def decode(whisper: "WhisperModel", sound: "Audio", reading: Reading, passes: Passes) -> tuple[Segment, ...]:
    """Segments in seconds from the window's start, in order, all within it. Each pass must ask `passes` to begin.

    `sound`: the window as `heard`.
    """
    options = reading.options
    if options.language is None and whisper.model.is_multilingual:
        raise EngineError("This is a bug: the language must be known before a window is transcribed.")
    found, _ = whisper.transcribe(
        sound,
        vad_filter=False,
        condition_on_previous_text=False,
        temperature=reading.temperatures,
        **_arguments(whisper, options),
    )
    segments: list[Segment] = []
    with suppress(Covered):
        for one in found:
            segments.append(_segment(one).shifted(-reading.later_s))
            passes.cover(segments[-1].end)
    return _tidy(segments, len(sound) / SAMPLE_RATE - reading.later_s)


def heard(window: "Audio", reading: Reading) -> "Audio":
    """What the model gets; of a full window the end is cut."""
    import numpy as np  # the parent of forked children loads nothing native

    return np.concatenate([np.zeros(round(reading.later_s * SAMPLE_RATE), np.float32), window])[:LONGEST]


def _arguments(whisper: "WhisperModel", options: DecodeOptions) -> dict[str, Any]:
    return {
        "language": options.language if whisper.model.is_multilingual else "en",
        "task": options.task,
        "beam_size": options.beam_size,
        "initial_prompt": prompt_tokens(whisper.hf_tokenizer, options)[-LONGEST_PROMPT:] or None,
        "word_timestamps": options.word_timestamps,
        "without_timestamps": False,
    }


def prompt_excess(tokenizer: Any, options: DecodeOptions) -> int:
    return max(0, len(prompt_tokens(tokenizer, options)) - LONGEST_PROMPT)


def prompt_tokens(tokenizer: Any, options: DecodeOptions) -> list[int]:
    """Hot words, then the prompt, each as Whisper's own loop writes it."""
    texts = (options.hotwords, options.initial_prompt)
    return [
        token
        for text in texts
        if text and text.strip()
        for token in tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
    ]


def _segment(one: Any) -> Segment:
    """A foreign segment as ours; its numbers may be numpy's."""
    words = None if one.words is None else tuple(_word(word) for word in one.words)
    return Segment(
        start=round(float(one.start), 3),
        end=round(float(one.end), 3),
        text=one.text,
        avg_logprob=float(one.avg_logprob),
        no_speech_prob=float(one.no_speech_prob),
        compression_ratio=float(one.compression_ratio),
        temperature=float(one.temperature or 0.0),
        tokens=tuple(one.tokens),
        words=words,
    )


def _word(word: Any) -> Word:
    return Word(word.word, round(float(word.start), 3), round(float(word.end), 3), float(word.probability))


def _tidy(segments: Iterable[Segment], length_s: float) -> tuple[Segment, ...]:
    """In order, inside the window, none empty: Whisper pads to 30 s and may date a segment into the padding."""
    inside = [_clipped(segment, length_s) for segment in segments if segment.text.strip()]
    return tuple(sorted((one for one in inside if one.end > one.start), key=lambda one: one.start))


def _clipped(segment: Segment, length_s: float) -> Segment:
    def inside(time_s: float) -> float:
        return round(min(max(time_s, 0.0), length_s), 3)

    words = segment.words and tuple(
        replace(word, start=inside(word.start), end=max(inside(word.start), inside(word.end))) for word in segment.words
    )
    return replace(segment, start=inside(segment.start), end=inside(segment.end), words=words)
