"""Any recording that ffmpeg knows, as 16 kHz mono s16: the part of the decoder that needs PyAV. Only whitelisted kinds.

Everything it needs is imported at the top: in the confined process no file can be opened any more.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
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

from audio.sink import SAMPLE_RATE, Options, Refusal, Sink

READ_ERRORS_TOLERATED = 100  # in a row, in repair; a demuxer that cannot find its feet again ends there
EDGE_DAMAGE = 2  # packets that may be unreadable at either end: encoders' headers, tags, a last frame cut off

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


def decode(media: BinaryIO, stdout: BinaryIO, options: Options) -> None:
    """Write the line of JSON and the sound. Raises Refusal."""
    with _open(media) as container:
        stream = _sound_of(container)
        stdout.write(json.dumps(_probe(container, stream, options)).encode() + b"\n")
        stdout.flush()
        sink = Sink(stdout, options)
        speech = _ToSpeech()
        for frame in _frames(container, stream, repair=options.repair):
            for piece in speech.feed(frame):
                sink.write(_samples(piece))
        for piece in speech.drain():
            sink.write(_samples(piece))
        if not sink.samples:
            raise Refusal("undecodable_audio", "The file holds a sound track, but not one sample in it can be decoded.")


def _samples(piece: AudioFrame) -> memoryview:
    return memoryview(piece.planes[0])[: piece.samples * 2]


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
