"""Any recording that ffmpeg knows, as 16 kHz s16: the part of the decoder that needs PyAV. Only whitelisted kinds.

Everything it needs is imported at the top: in the confined process no file can be opened any more.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

import av
import av.filter
import av.logging
import av.subtitles.codeccontext  # PyAV imports these two when it meets subtitles:
import av.subtitles.stream  # too late, for by then no file can be opened any more
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition

from audio.clock import Clock
from audio.kinds import OPEN_OPTIONS
from audio.mix import Mixer
from audio.sink import SAMPLE_RATE, Options, Refusal, Sink
from audio.tracks import choose, listed

READ_ERRORS_TOLERATED = 100  # in a row, in repair; a demuxer that cannot find its feet again ends there
EDGE_DAMAGE = 2  # packets that may be unreadable at either end: encoders' headers, tags, a last frame cut off
MOST_APART = 8  # channels that are transcribed each by itself


def decode(media: BinaryIO, stdout: BinaryIO, options: Options) -> None:
    """Write the line of JSON and the sound. Raises Refusal."""
    with _open(media) as container:
        number, warnings = choose(container, options, partial(_opened_again, media))
        stream = _only(container, container.streams.audio[number])
        clock = Clock(container, stream, media, limit=options.limit)
        found = _probe(container, stream, clock, options) | {"track": number}
        frames = _frames(container, stream, clock, repair=options.repair)
        if options.separate:
            first, frames = _first_of(frames)
            channels = first.layout.nb_channels if first else 1
            apart = channels if channels <= MOST_APART else None
            warnings += _too_many(channels) if apart is None else []
        else:
            apart = None
        stdout.write(json.dumps(found | {"apart": apart, "warnings": warnings}).encode() + b"\n")
        stdout.flush()
        sink = Sink(stdout, options, channels=apart or 1)
        _write(frames, clock, Mixer(apart=apart), sink)
        if not sink.samples:
            raise Refusal("undecodable_audio", "The file holds a sound track, but not one sample in it can be decoded.")


def _write(frames: Iterator[AudioFrame], clock: Clock, mixer: Mixer, sink: Sink) -> None:
    for frame in frames:
        if clock.silence_before(frame):
            for pcm in mixer.drain():
                sink.write(pcm)
            clock.passed(sink.samples, silent=0)  # to the sample: silence begins where sound has ended
            silent = clock.silence_before(frame)
            sink.silence(silent)
            clock.passed(sink.samples, silent=silent)
        clock.went_on(frame)
        for pcm in mixer.feed(frame):
            sink.write(pcm)
    for pcm in mixer.drain():
        sink.write(pcm)


def _open(media: BinaryIO) -> InputContainer:
    with _blaming_the_file("The file cannot be read: it is not audio or video, of a kind we do not know, or cut off."):
        return av.open(media, "r", options=OPEN_OPTIONS, metadata_errors="replace", buffer_size=1 << 16)


@contextmanager
def _opened_again(media: BinaryIO) -> Iterator[InputContainer]:
    """From the beginning, while the first reader waits where it is."""
    at = media.tell()
    media.seek(0)
    try:
        with _open(media) as container:
            yield container
    finally:
        media.seek(at)


@contextmanager
def _blaming_the_file(message: str) -> Iterator[None]:
    """What ffmpeg raises in here is the recording's fault; running out of memory is not."""
    try:
        yield
    except MemoryError:
        raise
    except av.FFmpegError:
        raise Refusal("undecodable_audio", message) from None


def _only(container: InputContainer, sound: AudioStream) -> AudioStream:
    """The track to decode; all others are marked so that demuxers skip over them."""
    for stream in container.streams:
        if stream.index != sound.index:
            stream.discard = Discard.all
    sound.codec_context.thread_count = 1  # threads are forbidden by now, and slower for sound
    return sound


def _probe(container: InputContainer, stream: AudioStream, clock: Clock, options: Options) -> dict[str, Any]:
    """What the headers claim; nothing of it need be true. A duration that we would refuse is not passed on."""
    seconds = clock.claimed_s(container, stream)
    pictures = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
    return {
        "duration": round(seconds, 3) if 0 < seconds * SAMPLE_RATE <= options.limit else None,
        "container": container.format.name,
        "codec": stream.codec_context.codec.canonical_name,
        "sample_rate": stream.codec_context.sample_rate,
        "channels": stream.codec_context.channels,
        "has_video": bool(pictures),
        "bit_rate": container.bit_rate or None,
        "tracks": listed(container.streams.audio),
    }


def _first_of(frames: Iterator[AudioFrame]) -> tuple[AudioFrame | None, Iterator[AudioFrame]]:
    """Headers do not always know the number of channels; the first frame does."""
    first = next(frames, None)
    return first, chain([] if first is None else [first], frames)


def _too_many(channels: int) -> list[dict[str, str]]:
    message = f"The recording has {channels} channels, more than {MOST_APART}: they were mixed."
    return [{"code": "channels_mixed", "message": message}]


def _packets(container: InputContainer, stream: AudioStream, clock: Clock, *, repair: bool) -> Iterator[Any]:
    film = clock.witness
    if film is not None:
        film.discard = Discard.default
    failures = 0
    while True:
        try:
            for packet in container.demux([stream] if film is None else [stream, film]):
                if packet.stream.index == stream.index:
                    yield packet
                else:
                    clock.saw(packet)
                failures = 0
            return
        except MemoryError:
            raise
        except av.FFmpegError:
            failures += 1
            if not repair:
                raise _damaged() from None
            if failures > READ_ERRORS_TOLERATED:
                return


def _frames(container: InputContainer, stream: AudioStream, clock: Clock, *, repair: bool) -> Iterator[AudioFrame]:
    """Strict: raise where sound is lost between two readable parts, or more than an edge of the file is unreadable."""
    lost, heard = 0, False
    for packet in _packets(container, stream, clock, repair=repair):
        try:
            frames = stream.decode(packet)
        except MemoryError:
            raise
        except av.FFmpegError:
            lost += 1
            continue
        if not frames:
            continue
        if lost > (0 if heard else EDGE_DAMAGE) and not repair:
            raise _damaged()
        lost, heard = 0, True
        yield from frames
    if lost > EDGE_DAMAGE and not repair:
        raise _damaged()


def _damaged() -> Refusal:
    return Refusal("undecodable_audio", "The recording is damaged: part of its sound cannot be decoded.")
