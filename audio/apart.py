"""Windows of each channel by itself, all cut at the same places: a position says how far all channels are done.

As in audio/split.py each decision follows from the sound at the position. A channel that copies another is left out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from audio import level
from audio.split import (
    LONGEST_GAP,
    MIN_SILENCE_MS,
    PAD_MS,
    Cut,
    Listen,
    Place,
    Samples,
    Window,
    cut_by_loudness,
    cut_by_speech,
    cuts,
    loud,
    stretch,
    within,
)
from audio.vad import FRAME, THRESHOLD, Region, speech_probabilities, speech_regions

COPY = 0.98  # correlation from which a channel says what another one says, at whatever volume
AUDIBLE = 1e-3  # of full scale, -60 dB; without VAD a channel that stays below it is silent


def windows_apart(
    blocks: Iterable[Samples],
    *,
    vad: bool,
    start_s: float = 0.0,
    threshold: float = THRESHOLD,
    listen: Listen = speech_probabilities,
) -> Iterator[tuple[Window, ...]]:
    """Sound of (n, channels), cut where all channels pause, as `windows` cuts one.

    What comes together shares a position and is saved together, in the order of beginnings. One window without sound:
    nobody spoke until there.
    """
    ears = _Ears(listen, threshold)
    decide = partial(cut_by_speech, listen=ears, threshold=threshold) if vad else cut_by_loudness
    for place in cuts(blocks, decide, start_s=start_s, gain=_gain):
        cut = place.cut
        spoken = [
            _window(place, channel, *turn)
            for channel in _different(place.heard[cut.start : cut.end])
            for turn in (ears.turns(channel, cut) if vad else _audible(place.heard, cut, channel))
        ]
        spoken.sort(key=lambda window: window.start_s)
        *before, last = spoken or [_passed(place)]
        yield *before, replace(last, loud=tuple(loud(np.abs(place.sound).max(axis=1), place)))


def _gain(sound: Samples) -> float:
    """Of the loudest channel, for all: what leaks from it into the others stays as soft as it is."""
    return min((level.gain(np.ascontiguousarray(channel)) for channel in sound.T if channel.any()), default=1.0)


class _Ears:
    """Listens to each channel, and answers with the loudest voice of all."""

    def __init__(self, listen: Listen, threshold: float) -> None:
        self._listen = listen
        self._threshold = threshold
        self._each: list[Samples] = []
        self._length = 0

    def __call__(self, sound: Samples) -> Samples:
        self._length, nothing = len(sound), np.zeros(len(sound) // FRAME + 1, np.float32)
        channels = (np.ascontiguousarray(channel) for channel in sound.T)
        self._each = [self._listen(channel) if channel.any() else nothing for channel in channels]
        loudest: Samples = np.max(self._each, axis=0)
        return loudest

    def turns(self, channel: int, cut: Cut) -> Iterator[tuple[Region, list[Region]]]:
        """Where the channel speaks within the cut, over pauses that a window may bridge; and the bare speech in it."""
        find = partial(
            speech_regions, self._each[channel], length=self._length, threshold=self._threshold,
            min_silence_ms=MIN_SILENCE_MS,
        )  # fmt: skip
        bare = find(pad_ms=0)
        for region in _joined(list(within(find(pad_ms=PAD_MS), cut.start, cut.end))):
            if speech := list(within(bare, region.start, region.end)):
                yield region, speech


def _joined(regions: list[Region]) -> Iterator[Region]:
    breaks = [at for at, (one, two) in enumerate(pairwise(regions), 1) if two.start - one.end > LONGEST_GAP]
    for first, after in pairwise([0, *breaks, len(regions)] if regions else []):
        yield Region(regions[first].start, regions[after - 1].end)


def _audible(sound: Samples, cut: Cut, channel: int) -> Iterator[tuple[Region, list[Region]]]:
    if np.abs(sound[cut.start : cut.end, channel]).max(initial=0) >= AUDIBLE:
        yield Region(cut.start, cut.end), [Region(cut.start, cut.end)]


def _different(sound: Samples) -> list[int]:
    """Channels in their order, without those that only say what one before says. Sound of (n, channels)."""
    kept: list[int] = []
    likeness = np.abs(sound.T.astype(np.float64) @ sound)
    for channel, energy in enumerate(np.diagonal(likeness)):
        copied = (likeness[channel, other] > COPY * np.sqrt(energy * likeness[other, other]) for other in kept)
        if energy > 0 and not any(copied):
            kept.append(channel)
    return kept


def _window(place: Place, channel: int, region: Region, speech: list[Region]) -> Window:
    return Window(
        start_s=place.seconds(region.start),
        audio=place.heard[region.start : region.end, channel].copy(),
        position_s=place.seconds(place.cut.go_on),
        speech=tuple(stretch(part, -region.start) for part in speech),
        channel=channel,
    )


def _passed(place: Place) -> Window:
    return Window(place.seconds(0), np.empty(0, np.float32), place.seconds(place.cut.go_on), ())
