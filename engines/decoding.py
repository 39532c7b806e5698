"""One engine call with stock faster-whisper: windows of audio in, segments a window out.

A batch gives the text that its windows give alone: what faster-whisper's batches leave out is done here (the rest after
an unfinished segment, silence, retries at a higher temperature).
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engines import SAMPLE_RATE
from errors import EngineError
from transcript import DecodeOptions, Segment, Word

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

    from engines import Audio

_WINDOW_S = 30
_FRAME_S = 0.01  # of the spectrogram; stock faster-whisper finds nothing in less
_TIMESTAMP_S = 0.02
# Stock faster-whisper's defaults, which decide whether one window is silence or is tried again.
_NO_SPEECH, _LOG_PROBABILITY, _COMPRESSION = 0.6, -1.0, 2.4


def decode(whisper: "WhisperModel", windows: "Sequence[Audio]", options: DecodeOptions) -> list[tuple[Segment, ...]]:
    if options.language is None and whisper.model.is_multilingual:
        raise EngineError("This is a bug: the language must be known before a window is transcribed.")
    # Sampling is the other case that a batch would do differently: it has no best-of.
    if len(windows) < 2 or options.temperature:
        return [decode_alone(whisper, window, options) for window in windows]
    results: list[tuple[Segment, ...]] = [()] * len(windows)
    audible = [index for index, window in enumerate(windows) if _length_s(window) >= _FRAME_S]
    batch = _batch(whisper, [windows[index] for index in audible], options) if audible else []
    for index, segments in zip(audible, batch, strict=True):
        results[index] = segments
    return results


def decode_alone(whisper: "WhisperModel", window: "Audio", options: DecodeOptions) -> tuple[Segment, ...]:
    steps = {} if options.temperature is None else {"temperature": options.temperature}
    found, _ = whisper.transcribe(
        window, vad_filter=False, condition_on_previous_text=False, **steps, **_arguments(whisper, options)
    )
    return _tidy((_segment(one, 0.0) for one in found), _length_s(window))


def _arguments(whisper: "WhisperModel", options: DecodeOptions) -> dict[str, Any]:
    prompt = options.initial_prompt and " " + options.initial_prompt.strip()  # as Whisper's own loop writes it
    return {
        "language": options.language if whisper.model.is_multilingual else "en",
        "task": options.task,
        "beam_size": options.beam_size,
        "initial_prompt": prompt or None,
        "hotwords": options.hotwords,
        "word_timestamps": options.word_timestamps,
        "without_timestamps": False,
    }


def _batch(whisper: "WhisperModel", windows: "list[Audio]", options: DecodeOptions) -> list[tuple[Segment, ...]]:
    import numpy as np
    from faster_whisper import BatchedInferencePipeline

    pipeline = BatchedInferencePipeline(whisper)  # one a call: it keeps the call's state on itself
    outputs: list[dict[str, Any]] = []
    generate = pipeline.generate_segment_batched

    def recorded(*args: Any) -> Any:
        encoded, rows = generate(*args)
        outputs.extend(rows)
        return encoded, rows

    pipeline.generate_segment_batched = recorded  # the tokens that the segments leave out are seen nowhere else
    audio = np.zeros(len(windows) * _WINDOW_S * SAMPLE_RATE, dtype=np.float32)
    for index, window in enumerate(windows):
        start = index * _WINDOW_S * SAMPLE_RATE
        audio[start : start + len(window)] = window
    found, _ = pipeline.transcribe(
        audio,
        clip_timestamps=[_clip(index, window) for index, window in enumerate(windows)],
        batch_size=len(windows),
        temperature=0.0,
        **_arguments(whisper, options),
    )
    rows: list[list[Segment]] = [[] for _ in windows]
    for one in found:
        index = one.seek // (_WINDOW_S * 100)  # frames, where the window begins
        rows[index].append(_segment(one, index * _WINDOW_S))
    return [
        _mended(whisper, window, options, segments, output)
        for window, segments, output in zip(windows, rows, outputs, strict=True)
    ]


def _clip(index: int, window: "Audio") -> dict[str, float]:
    # Half a sample more: faster-whisper multiplies by the rate and cuts down to an integer.
    return {"start": index * _WINDOW_S, "end": index * _WINDOW_S + (len(window) + 0.5) / SAMPLE_RATE}


def _mended(
    whisper: "WhisperModel", window: "Audio", options: DecodeOptions, segments: list[Segment], output: dict[str, Any]
) -> tuple[Segment, ...]:
    """What stock faster-whisper would have made of this window alone, from its row of a batch."""
    tokens, log_probability = output["tokens"], output["avg_logprob"]
    if output["no_speech_prob"] > _NO_SPEECH and log_probability <= _LOG_PROBABILITY:
        return ()
    end = whisper.hf_tokenizer.token_to_id("<|endoftext|>")
    text = whisper.hf_tokenizer.decode([token for token in tokens if token < end]).strip()
    weak = log_probability < _LOG_PROBABILITY or compression_ratio(text) > _COMPRESSION
    if weak and options.temperature is None:
        return decode_alone(whisper, window, options)
    rest_s = _rest_s(tokens, whisper.hf_tokenizer.token_to_id("<|notimestamps|>") + 1, segments)
    return _tidy(segments, _length_s(window)) + _rest(whisper, window, options, rest_s)


def compression_ratio(text: str) -> float:
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _rest_s(tokens: Sequence[int], first_timestamp: int, segments: list[Segment]) -> float | None:
    """Where decoding has to go on, when the last segment of a window was begun and not ended."""
    times = [token >= first_timestamp for token in tokens]
    if times[-2:] == [False, True]:
        return None
    words = [word for segment in segments for word in segment.words or ()]
    if words:
        return words[-1].end
    pairs = [index for index in range(1, len(times)) if times[index] and times[index - 1]]
    return (tokens[pairs[-1] - 1] - first_timestamp) * _TIMESTAMP_S if pairs else None


def _rest(
    whisper: "WhisperModel", window: "Audio", options: DecodeOptions, start_s: float | None
) -> tuple[Segment, ...]:
    """The prompt is for the first call of a window only, as in Whisper's own loop."""
    if start_s is None or _length_s(window) - start_s < _FRAME_S:
        return ()
    rest = window[round(start_s * SAMPLE_RATE) :]
    found = decode_alone(whisper, rest, replace(options, initial_prompt=None))
    return tuple(segment.shifted(start_s) for segment in found)


def _length_s(window: "Audio") -> float:
    return len(window) / SAMPLE_RATE


def _segment(one: Any, offset_s: float) -> Segment:
    """A foreign segment as ours; its numbers may be numpy's."""
    words = None if one.words is None else tuple(_word(word, offset_s) for word in one.words)
    return Segment(
        start=round(float(one.start) - offset_s, 3),
        end=round(float(one.end) - offset_s, 3),
        text=one.text,
        avg_logprob=float(one.avg_logprob),
        no_speech_prob=float(one.no_speech_prob),
        compression_ratio=float(one.compression_ratio),
        temperature=float(one.temperature or 0.0),
        tokens=tuple(one.tokens),
        words=words,
    )


def _word(word: Any, offset_s: float) -> Word:
    start, end = float(word.start) - offset_s, float(word.end) - offset_s
    return Word(word.word, round(start, 3), round(end, 3), float(word.probability))


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
