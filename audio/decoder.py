"""The program that opens one untrusted recording: stdin is the file; stdout a line of JSON, then 16 kHz mono s16le PCM.

It limits itself first and can then open nothing else. It never learns a file name and never writes a traceback:
what went wrong is one line of JSON on stderr. It imports nothing of this service, so that it starts quickly.
"""

import argparse
import ctypes
import errno
import io
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import av
import av.filter
import av.subtitles.codeccontext  # PyAV imports these two when it meets subtitles:
import av.subtitles.stream  # too late, for by then no file can be opened any more
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.filter.graph import Graph
from av.packet import Packet
from av.stream import Discard, Disposition

SAMPLE_RATE = 16_000  # Hz, of the output
PR_SET_PDEATHSIG = 1  # linux/prctl.h
OPENING_CPU_S = 60  # processor time until the first minute of sound
CPU_S_PER_MINUTE = 20  # and for each further minute; the slowest codec measured needs 0.6
READ_ERRORS_TOLERATED = 100  # in a row, in repair; a demuxer that cannot find its feet again ends there
EDGE_DAMAGE = 2  # packets that may be unreadable at either end: encoders' headers, tags, a last frame cut off
OUT_OF_MEMORY = b'{"code": "out_of_memory", "message": "The decoder ran out of its memory limit."}\n'  # ready made

# Demuxers that hold their media themselves. Playlists (hls, dash, concat), image sequences and devices are not here.
FORMATS = (
    "wav w64 aiff au caf voc mp3 aac ac3 eac3 dts flac ogg wv ape tta amr amrnb amrwb gsm loas "
    "matroska mov mp4 m4a 3gp 3g2 mj2 asf asf_o avi flv mpeg mpegts"
)
# Decoders by ffmpeg's name. Video decoders are not here: pictures are never decoded, whatever the file.
CODECS = (
    "mp3 mp3float mp2 mp2float mp1 mp1float aac aac_fixed aac_latm opus libopus vorbis libvorbis flac alac "
    "wmav1 wmav2 wmapro wmalossless wmavoice amrnb amrwb libopencore_amrnb libopencore_amrwb gsm gsm_ms speex libspeex "
    "ac3 eac3 dca mlp truehd wavpack ape tta nellymoser g722 g726 g726le g723_1 g729 adpcm_ms adpcm_ima_wav "
    "adpcm_ima_qt adpcm_yamaha adpcm_swf pcm_alaw pcm_mulaw pcm_s8 pcm_u8 pcm_s16le pcm_s16be pcm_u16le pcm_u16be "
    "pcm_s24le pcm_s24be pcm_s32le pcm_s32be pcm_s64le pcm_s64be pcm_f32le pcm_f32be pcm_f64le pcm_f64be "
    "pcm_bluray pcm_dvd"
)
OPEN_OPTIONS = {
    "format_whitelist": ",".join(FORMATS.split()),
    "codec_whitelist": ",".join(CODECS.split()),
    "protocol_whitelist": "none",  # no such protocol: a demuxer that wants a second file is refused
    "enable_drefs": "0",  # QuickTime tracks that live in another file
}


class _Media(io.FileIO):
    """The file on stdin, which may itself say that a part of it lies where no file can have one."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """The new position, or ffmpeg's own number for "no such place": PyAV would raise what ffmpeg can live with."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return -errno.EINVAL


class Refusal(Exception):
    """The recording is at fault. `args`: code, message to a person."""


@dataclass(frozen=True, slots=True)
class Options:
    start: int  # samples to leave out at the beginning
    limit: int  # samples; more is too long
    repair: bool
    memory_mb: int
    parent: int  # pid; 0: nobody's


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        with _Media(0, "rb") as media, os.fdopen(1, "wb", buffering=1 << 16) as stdout:
            _confine(options)
            _decode(media, stdout, options)
    except Refusal as refusal:
        return _fail_with(*refusal.args)
    except MemoryError:
        return _fail(OUT_OF_MEMORY)
    except BrokenPipeError:
        return 1  # nobody listens any more
    except Exception as error:  # noqa: BLE001  a reading error of the disk, or a bug: the parent tries again
        return _fail_with("decoder_failed", f"The decoder failed: {type(error).__name__}.")
    return 0


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="decoder", description="Decode the recording on stdin to PCM on stdout.")
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS", help="leave out this much")
    parser.add_argument("--max-hours", type=float, default=24.0, help="refuse what is longer")
    parser.add_argument("--memory-mb", type=int, default=1024, help="address space")
    parser.add_argument("--parent", type=int, default=0, metavar="PID", help="die with this process")
    parser.add_argument("--repair", action="store_true", help="pass over what cannot be decoded")
    given = parser.parse_args(arguments)
    limit = round(given.max_hours * 3600 * SAMPLE_RATE)
    return Options(round(given.start * SAMPLE_RATE), limit, given.repair, given.memory_mb, given.parent)


def _confine(options: Options) -> None:
    """From here on: no file, no socket, no process, no core dump; memory and processor time are bounded."""
    if options.parent:
        _die_with(options.parent)
    if sys.platform == "linux":  # elsewhere these limits are missing or refuse values below what is in use
        resource.setrlimit(resource.RLIMIT_AS, (options.memory_mb << 20,) * 2)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # 0, 1 and 2 are taken: nothing can be opened
    _allow_cpu(OPENING_CPU_S)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _allow_cpu(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, resource.RLIM_INFINITY))


def _fail_with(code: str, message: str) -> int:
    return _fail(json.dumps({"code": code, "message": message}).encode() + b"\n")


def _fail(line: bytes) -> int:
    os.write(2, line)
    return 1


def _decode(media: BinaryIO, stdout: BinaryIO, options: Options) -> None:
    with _open(media) as container:
        stream = _sound_of(container)
        stdout.write(json.dumps(_probe(container, stream, options)).encode() + b"\n")
        stdout.flush()
        sink = _Sink(stdout, options)
        speech = _ToSpeech()
        for frame in _frames(container, stream, repair=options.repair):
            for piece in speech.feed(frame):
                sink.write(piece)
        for piece in speech.drain():
            sink.write(piece)
        if not sink.samples:
            raise Refusal("undecodable_audio", "The file holds a sound track, but not one sample in it can be decoded.")


def _open(media: BinaryIO) -> InputContainer:
    with _blaming_the_file("The file cannot be read: it is not audio or video, of a kind we do not know, or cut off."):
        return av.open(media, "r", options=OPEN_OPTIONS, metadata_errors="replace", buffer_size=1 << 16)


@contextmanager
def _blaming_the_file(message: str) -> Iterator[None]:
    """What ffmpeg raises in here is the recording's fault; running out of memory is not."""
    try:
        yield
    except MemoryError:
        raise
    except av.FFmpegError:
        raise Refusal("undecodable_audio", message) from None


def _sound_of(container: InputContainer) -> AudioStream:
    """The track to decode; all others are marked so that demuxers skip over them."""
    best = container.streams.best("audio")
    if not isinstance(best, AudioStream):
        what = "video but no sound" if container.streams.video else "no sound"
        raise Refusal("no_audio_stream", f"The file holds {what}. Send one with a sound track.")
    for stream in container.streams:
        if stream.index != best.index:
            stream.discard = Discard.all
    decoder = getattr(best.codec_context, "name", None)  # PyAV's types forget that there may be no decoder
    if decoder not in CODECS.split():
        raise Refusal("undecodable_audio", "The sound is coded in a way that we do not read.")
    best.codec_context.thread_count = 1  # threads are forbidden by now, and slower for sound
    return best


def _probe(container: InputContainer, stream: AudioStream, options: Options) -> dict[str, object]:
    """What the headers claim; nothing of it need be true. A duration that we would refuse is not passed on."""
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / av.time_base
    pictures = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
    return {
        "duration": round(seconds, 3) if 0 < seconds * SAMPLE_RATE <= options.limit else None,
        "container": container.format.name,
        "codec": stream.codec_context.codec.canonical_name,
        "sample_rate": stream.codec_context.sample_rate,
        "channels": stream.codec_context.channels,
        "has_video": bool(pictures),
        "bit_rate": container.bit_rate or None,
    }


def _packets(container: InputContainer, stream: AudioStream, *, repair: bool) -> "Iterator[Packet[AudioStream]]":
    failures = 0
    while True:
        try:
            for packet in container.demux(stream):
                yield packet
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


def _frames(container: InputContainer, stream: AudioStream, *, repair: bool) -> Iterator[AudioFrame]:
    """Strict: raise where sound is lost between two readable parts, or more than an edge of the file is unreadable."""
    lost, heard = 0, False
    for packet in _packets(container, stream, repair=repair):
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


class _ToSpeech:
    """Frames of any rate, format and layout to 16 kHz mono s16; where they change on the way, it starts anew."""

    def __init__(self) -> None:
        self._shape: tuple[str, str, int] | None = None
        self._graph: Graph | None = None

    def feed(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._shape:
            yield from self.drain()
            with _blaming_the_file("The sound has a sample rate or an arrangement of channels that we cannot mix."):
                self._shape, self._graph = shape, _mixer(*shape, channels=frame.layout.nb_channels)
        frame.pts = None  # samples are counted, never dated: gaps in the time stamps must not become silence here
        yield from self._push(frame)

    def drain(self) -> Iterator[AudioFrame]:
        yield from self._push(None)

    def _push(self, frame: AudioFrame | None) -> Iterator[AudioFrame]:
        if self._graph is None:
            return
        self._graph.push(frame)
        while True:
            try:
                piece = self._graph.pull()
            except (BlockingIOError, EOFError):  # wants more, or has been drained
                return
            assert isinstance(piece, AudioFrame)
            yield piece


def _mixer(sample_format: str, layout: str, rate: int, *, channels: int) -> Graph:
    """PyAV's AudioResampler is this graph too, but with a thread per core, and it knows named layouts only."""
    graph = Graph()
    graph.threads = 1
    source = {"sample_rate": str(rate), "sample_fmt": sample_format, "channel_layout": layout, "time_base": f"1/{rate}"}
    steps = [graph.add("abuffer", **source)]
    if layout == f"{channels} channels":  # nobody says which is where: the mean of all
        steps.append(graph.add("pan", "mono|c0<" + "+".join(f"c{number}" for number in range(channels))))
    steps.append(graph.add("aformat", sample_fmts="s16", sample_rates=str(SAMPLE_RATE), channel_layouts="mono"))
    graph.link_nodes(*steps, graph.add("abuffersink")).configure()
    return graph


class _Sink:
    """Counts real samples, leaves out the first `start`, stops at `limit`, and shows the parent that work goes on."""

    def __init__(self, stdout: BinaryIO, options: Options) -> None:
        self._stdout = stdout
        self._options = options
        self._next_sign = 60 * SAMPLE_RATE
        self.samples = 0

    def write(self, piece: AudioFrame) -> None:
        skip = max(0, self._options.start - self.samples)
        self.samples += piece.samples
        if self.samples > self._options.limit:
            hours = self._options.limit / SAMPLE_RATE / 3600
            raise Refusal("audio_too_long", f"The recording is longer than {hours:g} hours. Send it in parts.")
        if skip < piece.samples:
            self._stdout.write(memoryview(piece.planes[0])[skip * 2 : piece.samples * 2])
        if self.samples >= self._next_sign:
            self._sign()

    def _sign(self) -> None:
        """Once a minute of sound: more processor time, and a byte on stderr, for nothing is written while skipping."""
        self._next_sign = self.samples + 60 * SAMPLE_RATE
        _allow_cpu(CPU_S_PER_MINUTE)
        os.write(2, b"\n")


if __name__ == "__main__":
    sys.exit(main())
