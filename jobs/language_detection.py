"""Which language is spoken: rules over what the model hears. Pure, but for the questions put to the model by `detect`.

Short, noisy or foreign openings leave the model in doubt; then more of the recording is heard, and the likeliest
languages are tried: the right one reads best.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from math import log

import numpy as np
from numpy.typing import NDArray

from audio.split import Stretch
from audio.vad import SAMPLE_RATE
from languages import LANGUAGES
from transcript import Language, Segment

Samples = NDArray[np.float32]
Detect = Callable[[Samples], Mapping[str, float]]

SURE = 0.5  # probability above which stock faster-whisper looks no further
TRIED = 3  # languages, at most, each a decoding of one window
RIVAL = 0.3  # of the probability of the likeliest: less likely ones are not tried
WEIGHT = 0.3  # of the logarithm of a language's probability against the mean log probability of a token
RARITY = 0.1  # of the logarithm of a language's rank by the hours in Whisper's training, the order of its tokens
PHRASE_S = 2.5  # speech that lasts so long tells its language; what is shorter is joined with what follows soon
PAUSE_S = 0.8  # who changes the language takes breath before
SHORTEST_S = 1.0  # a word alone does not tell
RANKS = {code: rank for rank, code in enumerate(LANGUAGES, start=1)}
CHANGED = 0.6  # probability from which a phrase is another language than the one before it


def among(found: Mapping[str, float], allowed: Sequence[str]) -> dict[str, float]:
    """The probabilities of the languages that are allowed, as if there were no others; the likeliest first."""
    kept = {code: found.get(code, 0.0) for code in allowed or found}
    total = sum(kept.values())
    even = {code: 1 / len(kept) for code in kept}
    return dict(sorted(({code: p / total for code, p in kept.items()} if total else even).items(), key=_falling))


def mean(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of several places of one recording, the likeliest first."""
    codes = dict.fromkeys(code for sample in samples for code in sample)
    return dict(sorted(((c, sum(s.get(c, 0.0) for s in samples) / len(samples)) for c in codes), key=_falling))


def is_doubtful(found: Mapping[str, float]) -> bool:
    return max(found.values()) < SURE


def candidates(found: Mapping[str, float]) -> list[str]:
    """The languages that come into question, the likeliest first; one, where there is no doubt."""
    first, *others = found.items()
    if not is_doubtful(found):
        return [first[0]]
    return [first[0], *(code for code, p in others[: TRIED - 1] if p >= first[1] * RIVAL)]


def best(found: Mapping[str, float], tried: Mapping[str, Sequence[Segment]]) -> Language:
    """Of the languages in which the same window was decoded."""

    def score(code: str) -> float:
        heard = WEIGHT * log(max(found[code], 1e-6))
        return _mean_logprob(tried[code]) + heard - RARITY * log(RANKS[code])

    code = max(tried, key=score)
    return Language(code, found[code])


def _mean_logprob(segments: Sequence[Segment]) -> float:
    seconds = sum(segment.end - segment.start for segment in segments)
    if not seconds:
        return -10.0  # nothing was understood
    return sum(segment.avg_logprob * (segment.end - segment.start) for segment in segments) / seconds


def cut_by_language(audio: Samples, speech: Sequence[Stretch], detect: Detect) -> list[tuple[float, float, str]]:
    """(start, end, code) in seconds of the window, which they cover without a gap. Cuts are made in pauses.

    `speech`: where a voice is heard. A window of one phrase is one piece.
    """
    length_s = len(audio) / SAMPLE_RATE
    phrases = list(_phrases(speech)) or [(0.0, length_s)]
    if len(phrases) == 1:
        return [(0.0, length_s, next(iter(detect(audio))))]
    edges = [0.0, *((one[1] + other[0]) / 2 for one, other in pairwise(phrases)), length_s]
    sounds = [audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] for start, end in pairwise(edges)]
    lasting = [end - start >= SHORTEST_S for start, end in phrases]
    heard = [detect(sound) if lasts else {} for sound, lasts in zip(sounds, lasting, strict=True)]
    codes = _settled(heard if any(lasting) else [detect(audio), *heard[1:]])
    pieces = groupby(zip(edges, edges[1:], codes, strict=False), key=lambda one: one[2])
    return [(some[0][0], some[-1][1], code) for code, some in ((code, list(run)) for code, run in pieces)]


def _phrases(speech: Iterable[Stretch]) -> Iterator[Stretch]:
    """Stretches of speech; a short one is joined with what follows soon."""
    held: Stretch | None = None
    for start, end in speech:
        if held and (held[1] - held[0] >= PHRASE_S or start - held[1] >= PAUSE_S):
            yield held
            held = None
        held = (held[0] if held else start, end)
    if held:
        yield held


def _settled(heard: Sequence[Mapping[str, float]]) -> list[str]:
    """A phrase that leaves doubt is in the language of the phrases before it; the first ones in that of the whole."""
    told = [one for one in heard if one]
    current = next(filter(None, map(_sure, told)), None) or next(iter(mean(told)))
    codes = []
    for one in heard:
        current = (_sure(one) if one else None) or current
        codes.append(current)
    return codes


def _sure(found: Mapping[str, float]) -> str | None:
    code = max(found, key=lambda code: found[code])
    return code if found[code] >= CHANGED else None


def _falling(item: tuple[str, float]) -> float:
    return -item[1]
