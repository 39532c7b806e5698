"""The recording's clock: how much silence lies before each frame of sound, by its time stamp. Bounded: stamps lie.

Never drops sound: where frames overlap, what follows is late until a gap makes up for it (docs: ADR 0012).
"""

import os
from typing import BinaryIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from audio.sink import SAMPLE_RATE

# Containers whose packets are dated by who made them; in the others ffmpeg counts, and has nothing to say beyond it.
DATED = frozenset("asf asf_o flv gxf live_flv matroska mov mpeg mpegts mxf nut ogg rm webm wtv".split())
FROM_ZERO = frozenset("matroska mov webm".split())  # whose clock begins at 0, and not when somebody began to record
BEGINNING_S = 60  # that late such a recording may begin; what begins later was cut out of a longer one
TOLERANCE_S = 0.08  # by which stamps may be ahead: coarse clocks, lost packets; nobody sees it in a film
JUMP_BACK_S = 1.0  # a smaller step back is an overlap
JUMP_S = 10.0  # a greater step is a new clock, in formats that are joined of pieces and where no film says otherwise
JUMP_UNSEEN_S = 600.0  # the same where there is no film to ask
CLAIMED_S = 60.0  # a gap that long must lie within the duration that is claimed
GAPS_S = 3600.0  # of silence in all are believed of any file,
BYTES_A_SECOND = 25  # and of a large one as much as it would hold at this pace: slower than any codec


class Clock:
    """`silence_before(frame)` in samples of 16 kHz; `went_on(frame)` for each frame that is heard, `at(samples)` after
    the output was counted anew. All times in seconds of the recording, or of the container where they are `stamps`.
    """

    def __init__(self, container: InputContainer, stream: AudioStream, media: BinaryIO, *, limit: int) -> None:
        names = set(container.format.name.split(","))
        self.zero_s = zero_of(container, names)
        self._is_dated = bool(names & DATED)
        self._film = _Film(container, stream) if Flags.ts_discont in Flags(container.format.flags) else None
        self._claimed_s = self.zero_s + (container.duration or 0) / av.time_base
        self._room_s = max(GAPS_S, os.fstat(media.fileno()).st_size / BYTES_A_SECOND)
        self._limit_s = limit / SAMPLE_RATE
        self._tick_s = float(stream.time_base or 0)
        self._offset_s = self.zero_s  # from seconds of the recording to stamps
        self._heard_s = 0.0  # of the recording
        self._next_s: float | None = None  # the stamp that would follow without a gap; None: nothing was heard yet

    @property
    def witness(self) -> VideoStream | None:
        """The film whose packets `saw` needs."""
        return self._film.stream if self._film else None

    def saw(self, packet: "Packet[Stream]") -> None:
        if self._film is not None and packet.dts is not None and packet.time_base:
            self._film.saw(float(packet.dts * packet.time_base))

    def claimed_s(self, container: InputContainer, stream: AudioStream) -> float:
        """Where the sound ends, as the headers have it."""
        if stream.duration and stream.time_base:
            return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - self.zero_s
        return (container.duration or 0) / av.time_base

    def silence_before(self, frame: AudioFrame) -> int:
        if frame.pts is None or not (self._is_dated or self._next_s is None):
            return 0
        stamp_s = frame.pts * self._tick_s
        ahead_s = stamp_s - self._offset_s - self._heard_s
        jumped_back = self._next_s is None or stamp_s < self._next_s - JUMP_BACK_S
        if 0 <= ahead_s <= TOLERANCE_S or (ahead_s < 0 and not jumped_back):
            return 0
        if ahead_s < 0 or not self._is_plausible(stamp_s, ahead_s):
            self._offset_s += ahead_s
            return 0
        return round(ahead_s * SAMPLE_RATE)

    def went_on(self, frame: AudioFrame) -> None:
        length_s = frame.samples / frame.sample_rate
        self._heard_s += length_s
        if frame.pts is not None:
            self._next_s = frame.pts * self._tick_s + length_s
        elif self._next_s is not None:
            self._next_s += length_s

    def passed(self, samples: int, *, silent: int) -> None:
        """The output holds so many samples by now; the last ones are silence that was believed."""
        self._heard_s = samples / SAMPLE_RATE
        self._room_s -= silent / SAMPLE_RATE

    def _is_plausible(self, stamp_s: float, gap_s: float) -> bool:
        if gap_s > self._room_s or self._heard_s + gap_s > self._limit_s:
            return False
        if gap_s > CLAIMED_S and self._claimed_s > self.zero_s and stamp_s > self._claimed_s + CLAIMED_S:
            return False
        if self._next_s is None or self._film is None or gap_s <= JUMP_S:
            return True
        return self._film.ran(self._next_s, stamp_s) if self._film.stream else gap_s <= JUMP_UNSEEN_S


class _Film:
    """Pictures beside the sound, in a format that may be joined of pieces: did they run on while the sound did not?"""

    def __init__(self, container: InputContainer, sound: AudioStream) -> None:
        self.stream = next((video for video in container.streams.video if not _is_cover(video)), None)
        self._since_s = self._until_s = float("-inf")  # the last run without a jump, in stamps

    def saw(self, stamp_s: float) -> None:
        if abs(stamp_s - self._until_s) > JUMP_S:
            self._since_s = stamp_s
        self._until_s = stamp_s

    def ran(self, from_s: float, until_s: float) -> bool:
        return self._since_s - JUMP_S <= from_s and until_s <= self._until_s + JUMP_S


def zero_of(container: InputContainer, names: set[str]) -> float:
    """The stamp at which the recording begins: of whatever is first, sound or film.

    0 in formats that count from there, unless all of it lies much later: a piece that was cut out.
    """
    streams = [*container.streams.audio, *(video for video in container.streams.video if not _is_cover(video))]
    starts = [start for stream in streams if (start := _start_s(stream)) is not None]
    first_s = min(starts, default=0.0)
    return 0.0 if names & FROM_ZERO and 0 <= first_s <= BEGINNING_S else first_s


def _start_s(stream: Stream) -> float | None:
    if stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def _is_cover(video: VideoStream) -> bool:
    return bool(video.disposition & Disposition.attached_pic)
