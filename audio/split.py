"""A stream of sound cut into windows of at most 30 s for the recogniser, in bounded memory.

Each decision is a pure function of the sound that begins at the current position, so that an attempt which resumes
at a window's `position_s` gives exactly the windows that were still to come (docs: resume at 90 %).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from audio import level
from audio.vad import FRAME, SAMPLE_RATE, THRESHOLD, Region, speech_probabilities, speech_regions

Samples = NDArray[np.float32]
Listen = Callable[[Samples], Samples]  # sound -> a probability of speech for each 512 samples
Stretch = tuple[float, float]  # start and end, in seconds

LONGEST = 30 * SAMPLE_RATE  # what Whisper takes
SEEN = 33 * SAMPLE_RATE  # what a decision looks at: FAR, a window, and a second to tell a pause from an end
SEARCHED = 8 * SAMPLE_RATE  # a cut that no pause suggests is made in the last 8 s of a window
HALF = LONGEST // 2  # rather than send a window less full than this, cut into the region that did not fit
# A window is 30 s of work whatever it holds, so bridging silence saves windows; but Whisper invents words in long
# silences and loses its place in time. Speakers pause for 1 to 3 s within a thought; 4 s joins those.
LONGEST_GAP = 4 * SAMPLE_RATE
MIN_SILENCE_MS = 300  # a pause between phrases, long enough to cut in; stock's 2 s would leave 30 s without a choice
PAD_MS = 400
FAR = 2 * SAMPLE_RATE  # speech that begins later than this is looked at again, from shortly before it
LEAD = SAMPLE_RATE  # "shortly": the padding, and the time that the VAD needs to settle
WOKEN = SAMPLE_RATE // 2  # after a cut the detector may wake so late: what lies before is heard, lest a word be lost
QUIET = 50 * SAMPLE_RATE // 1000  # without VAD: a cut is made in the middle of the quietest 50 ms
STEP = 10 * SAMPLE_RATE // 1000  # in which those are looked for


@dataclass(frozen=True, slots=True)
class Window:
    start_s: float  # in the recording, of the first sample in `audio`
    audio: Samples  # mono, 16 kHz, at most 30 s; nothing where silence was passed
    position_s: float  # in the recording: everything before is done; a whole number of samples
    speech: tuple[Stretch, ...]  # where a voice is heard, from the window's start; without VAD: all of it
    loud: tuple[Stretch, ...] = ()  # in the recording: what was passed over although it can be heard
    channel: int | None = None  # of the recording; None: the mix of all

    @property
    def speech_s(self) -> float:
        return sum(end - start for start, end in self.speech)

    @property
    def speech_from_s(self) -> float:
        """In the recording, where a voice is first heard."""
        return self.start_s + (self.speech[0][0] if self.speech else 0.0)


@dataclass(frozen=True, slots=True)
class Cut:
    """In samples from the current position: the window, if start < end, and the next position."""

    start: int
    end: int
    go_on: int
    speech: tuple[Region, ...] = ()  # within the window


def windows(
    blocks: Iterable[Samples],
    *,
    vad: bool,
    start_s: float = 0.0,
    threshold: float = THRESHOLD,
    listen: Listen = speech_probabilities,
) -> Iterator[Window]:
    """Cut sound (mono, 16 kHz, -1..1, blocks of any size) that begins `start_s` into the recording.

    With `vad` silence is left out, and all that is heard as speech is in exactly one window; a window without sound
    says from time to time how far a silence has been passed. Without, every sample is in one, but for a tail too short
    to hold a sound (32 ms), and for half a minute in which nothing was recorded. Very quiet sound comes louder.
    Holds 33 s and one block.
    `threshold`: probability from which sound is speech.
    """
    decide = partial(cut_by_speech, listen=listen, threshold=threshold) if vad else cut_by_loudness
    for place in cuts(blocks, decide, start_s=start_s, gain=level.gain):
        cut = place.cut
        yield Window(
            start_s=place.seconds(cut.start),
            audio=place.heard[cut.start : cut.end].copy(),
            position_s=place.seconds(cut.go_on),
            speech=tuple(stretch(region, -cut.start) for region in cut.speech),
            loud=tuple(loud(place.sound, place)),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """What a decision was made on; valid until the next one. Sound is (n), or (n, channels)."""

    position: int  # sample of the recording, of the first here
    sound: Samples
    heard: Samples  # the same, louder where it is very quiet
    cut: Cut

    def seconds(self, sample: int) -> float:
        """In the recording."""
        return (self.position + sample) / SAMPLE_RATE


def cuts(
    blocks: Iterable[Samples],
    decide: Callable[[Samples], Cut],
    *,
    start_s: float,
    gain: Callable[[Samples], float],
) -> Iterator[Place]:
    position = round(start_s * SAMPLE_RATE)
    buffer = _Buffer(blocks)
    while len(sound := buffer.fill()):
        factor = np.float32(gain(sound))
        heard = sound if factor == 1 else sound * factor
        cut = decide(heard)
        yield Place(position, sound, heard, cut)
        position += cut.go_on
        buffer.drop(cut.go_on)


def stretch(region: Region, offset: int) -> Stretch:
    return (region.start + offset) / SAMPLE_RATE, (region.end + offset) / SAMPLE_RATE


def loud(sound: Samples, place: Place) -> Iterator[Stretch]:
    """Of what lies before the window and behind it. `sound`: of one channel."""
    for first, last in ((0, place.cut.start), (place.cut.end, place.cut.go_on)):
        for start_s, end_s in level.loud_parts(sound[first:last]):
            yield place.seconds(first) + start_s, place.seconds(first) + end_s


class _Buffer:
    """The next 33 s, or what is left of the stream, always at the same place in memory."""

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = iter(blocks)
        self._rest: Samples = next(self._blocks, np.empty(0, np.float32))
        self._held: Samples = np.empty((SEEN, *self._rest.shape[1:]), np.float32)
        self._length = 0

    def fill(self) -> Samples:
        while room := SEEN - self._length:
            if not len(self._rest):
                block = next(self._blocks, None)
                if block is None:
                    break
                self._rest = block
            taken = self._rest[:room]
            self._held[self._length : self._length + len(taken)] = taken
            self._length += len(taken)
            self._rest = self._rest[len(taken) :]
        return self._held[: self._length]

    def drop(self, count: int) -> None:
        self._held[: self._length - count] = self._held[count : self._length]
        self._length -= count


def cut_by_loudness(sound: Samples) -> Cut:
    end = len(sound)
    if end < FRAME or (end == SEEN and not sound.any()):  # a long gap in the time stamps costs no windows
        return Cut(0, 0, go_on=end)
    if end > LONGEST:
        end = LONGEST - SEARCHED + _quietest(sound[LONGEST - SEARCHED : LONGEST])
    return Cut(0, end, go_on=end, speech=(Region(0, end),))


def _quietest(sound: Samples) -> int:
    """The middle of the quietest 50 ms; the last of equals, for longer windows."""
    squares = np.square(sound, dtype=np.float64).reshape(len(sound), -1).sum(axis=1)
    energy = np.concatenate([[0.0], np.cumsum(squares)])[::STEP]
    quiet = QUIET // STEP
    sums = energy[quiet:] - energy[:-quiet]
    return (len(sums) - 1 - int(np.argmin(sums[::-1]))) * STEP + QUIET // 2


def cut_by_speech(sound: Samples, listen: Listen, threshold: float) -> Cut:
    ended = len(sound) < SEEN
    probabilities = listen(sound) if sound.any() else np.zeros(len(sound) // FRAME + 1, np.float32)
    find = partial(speech_regions, probabilities, length=len(sound), threshold=threshold, min_silence_ms=MIN_SILENCE_MS)
    regions = find(pad_ms=PAD_MS)
    silent_until = len(sound) if ended else len(sound) - LEAD  # a word may be beginning at the edge
    if not regions:
        return Cut(0, 0, go_on=silent_until)
    start = regions[0].start
    if start > FAR and not ended:
        return Cut(0, 0, go_on=start - LEAD)
    if start < WOKEN:
        start, regions[0] = 0, Region(0, regions[0].end)
    end, following = _fit(regions, probabilities)
    go_on = silent_until if following is None else max(end, following - LEAD)
    return Cut(start, end, go_on, tuple(within(find(pad_ms=0), start, end)))


def within(regions: list[Region], start: int, end: int) -> Iterator[Region]:
    for region in regions:
        if region.start < end and region.end > start:
            yield Region(max(region.start, start), min(region.end, end))


def _fit(regions: list[Region], probabilities: Samples) -> tuple[int, int | None]:
    """Where a window from the first region ends, and where the speech after it begins, if there is more."""
    start = end = regions[0].start
    for region in regions:
        if region.start - end > LONGEST_GAP:
            return end, region.start
        if region.end > start + LONGEST:
            return (end, region.start) if end - start >= HALF else (_weakest(probabilities, start + LONGEST),) * 2
        end = region.end
    return end, None


def _weakest(probabilities: Samples, limit: int) -> int:
    """The middle of the frame that is least like speech in the 8 s before `limit`; the last of equals."""
    first, last = -(-(limit - SEARCHED) // FRAME), limit // FRAME
    smooth = np.convolve(probabilities, (0.25, 0.5, 0.25), "same")[first:last]  # not in a gap between two phonemes
    return (last - 1 - int(np.argmin(smooth[::-1]))) * FRAME + FRAME // 2
