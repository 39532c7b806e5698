"""How often a window is read: the first reading that can be believed is taken, else the one that is believed most.

Whisper's own next tries are samples, which seldom say something better. The same sound a moment later in the window is
a second look at it, and ends most loops; samples come last (ADR 15).
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from transcript import DecodeOptions, Segment

LATER_S = 0.2  # enough to turn words of `base` either way
SAMPLED = (0.2, 0.4, 0.6, 0.8, 1.0)  # temperatures, as openai/whisper
LEAST_LOGPROB = -1.0  # mean log probability of a token, as openai/whisper
NO_SPEECH = 0.6  # probability, as openai/whisper
LEAST_LOGPROB_THERE = -0.5  # where speech is so improbable: digits said one by one reach -0.35, "You" in silence -0.8
NO_SPEECH_DOUBTED = 0.4  # where no reading was believed: unclear speech reaches 0.31, applause 0.52
REPETITIVE = 3.0  # times that a text is shortened by compression: human texts reach 2.5, loops begin at 5
Segments = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    options: DecodeOptions
    temperatures: tuple[float, ...] = (0.0,)
    later_s: float = 0.0  # silence before the window


def believed(read: Callable[[Reading], Segments], options: DecodeOptions) -> Segments:
    tried: list[Segments] = []
    for reading in readings(options):
        segments = tuple(one for one in read(reading) if not _is_silence(one))
        if not segments or min(_belief(segments)) >= 0:  # nobody speaks, or this is what they say
            return segments
        tried.append(segments)
    return tuple(one for one in max(tried, key=_belief) if one.no_speech_prob <= NO_SPEECH_DOUBTED)


def readings(options: DecodeOptions) -> Iterator[Reading]:
    """A temperature that was asked for is kept, and so are the words of a prompt, but where they may cause a loop."""
    plain = replace(options, initial_prompt=None, hotwords=None)
    asked = (0.0 if options.temperature is None else options.temperature,)
    yield Reading(options, asked)
    if plain != options:
        yield Reading(plain, asked)
    if options.temperature is None:
        yield Reading(plain, later_s=LATER_S)
        yield Reading(plain, SAMPLED)


def _is_silence(segment: Segment) -> bool:
    return segment.no_speech_prob > NO_SPEECH and segment.avg_logprob < LEAST_LOGPROB_THERE


def _belief(segments: Segments) -> tuple[float, float]:
    """How far a text is from what is not believed: a loop, then improbable words. Negative: not believed."""
    passes = [list(run) for _, run in groupby(segments, key=lambda one: (one.avg_logprob, one.compression_ratio))]
    repeated = max(repetition("".join(one.text for one in run)) for run in passes)
    return min(0.0, REPETITIVE - repeated), min(one.avg_logprob for one in segments) - LEAST_LOGPROB


def repetition(text: str) -> float:
    """Characters of a text to bytes of its compressed form: the same for every script, unlike that of its UTF-8."""
    codes: dict[str, int] = {}
    flat = bytes(codes.setdefault(char, len(codes)) % 256 for char in text)
    return len(flat) / len(zlib.compress(flat))
