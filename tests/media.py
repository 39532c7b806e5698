"""Media for tests, made with PyAV alone: tones, noise and silence in any container. Nothing here is speech."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.stream
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]  # (channels, n)

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 6: "5.1", 8: "7.1"}
STEP = 4096  # samples handed to the encoder at once, where it does not ask for another number


@dataclass(frozen=True, slots=True)
class Kind:
    """How one file ending is made: ffmpeg's muxer, the audio codec, a video codec where it is a video, a fixed rate."""

    muxer: str
    codec: str
    video: str | None = None
    rate: int | None = None
    bit_rate: int | None = None


KINDS = {
    "wav": Kind("wav", "pcm_s16le"),
    "mp3": Kind("mp3", "libmp3lame"),
    "m4a": Kind("ipod", "aac"),
    "aac": Kind("adts", "aac"),
    "ogg": Kind("ogg", "libopus", rate=48_000),
    "oga": Kind("oga", "flac"),
    "opus": Kind("opus", "libopus", rate=48_000),
    "flac": Kind("flac", "flac"),
    "webm": Kind("webm", "libopus", "libvpx", rate=48_000),
    "wma": Kind("asf", "wmav2", bit_rate=64_000),
    "amr": Kind("amr", "libopencore_amrnb", rate=8_000),
    "mkv": Kind("matroska", "aac", "mpeg4"),
    "avi": Kind("avi", "libmp3lame", "mpeg4"),
    "mov": Kind("mov", "pcm_s16le", "mpeg4"),
    "mp4": Kind("mp4", "aac", "mpeg4"),
    "wmv": Kind("asf", "wmav2", "wmv2", bit_rate=64_000),
}


def tone(seconds: float, *, hz: float = 440.0, rate: int = 44_100, channels: int = 1, volume: float = 0.3) -> Samples:
    times = np.arange(round(seconds * rate)) / rate
    wave = (np.sin(2 * np.pi * hz * times) * volume * 32767).astype(np.int16)
    return np.tile(wave, (channels, 1))


def silence(seconds: float, *, rate: int = 44_100, channels: int = 1) -> Samples:
    return np.zeros((channels, round(seconds * rate)), np.int16)


def noise(seconds: float, *, rate: int = 44_100, channels: int = 1, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return rng.integers(-6000, 6000, (channels, round(seconds * rate)), dtype=np.int16)


def pitch(audio: NDArray[Any], rate: int = 16_000) -> float:
    """The loudest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    return float(np.argmax(spectrum) * rate / len(audio))


def can_encode(kind: Kind) -> bool:
    names = [kind.codec] + ([kind.video] if kind.video else [])
    try:
        return all(av.Codec(name, "w") for name in names)
    except av.codec.codec.UnknownCodecError:
        return False


def write_media(path: Path, samples: Samples, *, rate: int = 44_100, kind: str | Kind | None = None) -> Path:
    """Encode (channels, n) samples as `kind`, or as the ending of `path` says. The path's name decides nothing else."""
    made = KINDS[kind or path.suffix[1:]] if not isinstance(kind, Kind) else kind
    with path.open("wb") as file, av.open(file, "w", format=made.muxer) as container:
        video = _add_video(container, made.video) if made.video else None
        audio = _add_audio(container, made, rate, len(samples))
        if video is not None:
            for number in range(max(1, round(samples.shape[1] / rate * 5))):
                container.mux(video.encode(_picture(number)))
            container.mux(video.encode(None))
        for frame in _frames(audio, samples, rate):
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


@dataclass(frozen=True, slots=True)
class Track:
    """Sound for one track of a film. `gaps`: from that second of the sound on, stamps are so many seconds later."""

    samples: Samples
    gaps: tuple[tuple[float, float], ...] = ()
    language: str | None = None
    title: str | None = None
    default: bool = False


def write_tracks(
    path: Path,
    *tracks: Track,
    muxer: str,
    codec: str = "aac",
    film_s: float = 0,
    film_gaps: Any = (),
    rate: int = 48_000,
) -> Path:
    """A recording whose packets are stamped as told; with `film_s` beside a film of that length, from second 0 on."""
    with path.open("wb") as file, av.open(file, "w", format=muxer) as container:
        video = _add_video(container, "libvpx" if muxer == "webm" else "mpeg4") if film_s else None
        streams = [_add_track(container, codec, rate, track) for track in tracks]
        packets = (
            []
            if video is None
            else [packet for at in range(round(film_s * 5)) for packet in video.encode(_picture(at))]
        )
        packets = [_later(packet, film_gaps) for packet in packets]
        for stream, track in zip(streams, tracks, strict=True):
            frames = _frames(stream, track.samples, rate)
            made = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
            packets += [_later(packet, track.gaps) for packet in made]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def _add_track(container: Any, codec: str, rate: int, track: Track) -> Any:
    stream = container.add_stream(codec, rate=rate, layout=LAYOUTS[len(track.samples)])
    given = {"language": track.language, "title": track.title}
    stream.metadata.update({name: value for name, value in given.items() if value})
    stream.disposition = av.stream.Disposition.default if track.default else av.stream.Disposition(0)
    return stream


def _later(packet: Any, gaps: Any) -> Any:
    shift = sum(gap for at, gap in gaps if packet.pts * packet.time_base >= at - 0.03)
    packet.pts += round(shift / packet.time_base)
    packet.dts += round(shift / packet.time_base)
    return packet


def write_silence_bomb(path: Path, hours: float, *, muxer: str = "matroska", codec: str = "flac") -> Path:
    """Hours of silence in little space, in a moment: the same few packets again and again."""
    rate = 48_000 if codec == "libopus" else 8_000
    with path.open("wb") as file, av.open(file, "w", format=muxer) as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono")
        packets = [packet for frame in _frames(stream, silence(10, rate=rate), rate) for packet in stream.encode(frame)]
        for number in range(round(hours * 360)):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.duration = stream, Fraction(1, rate), packet.duration
                copy.pts = copy.dts = (packet.pts or 0) + number * 10 * rate
                container.mux(copy)
    return path


def write_silent_film(path: Path, seconds: float = 1.0) -> Path:
    """Video without a sound track."""
    with path.open("wb") as file, av.open(file, "w", format="mp4") as container:
        video = _add_video(container, "mpeg4")
        for number in range(round(seconds * 5)):
            container.mux(video.encode(_picture(number)))
        container.mux(video.encode(None))
    return path


def write_film_with_subtitles(path: Path, samples: Samples, *, rate: int = 44_100) -> Path:
    with path.open("wb") as file, av.open(file, "w", format="matroska") as container:
        audio = container.add_stream("aac", rate=rate, layout="mono")
        text = container.add_stream("ass")
        text.codec_context.subtitle_header = b"[Script Info]\nScriptType: v4.00+\n"
        line = av.Packet(b"0,0,Default,,0,0,0,,Hello")
        line.stream, line.pts, line.dts, line.duration, line.time_base = text, 0, 0, 500, Fraction(1, 1000)
        for frame in _frames(audio, samples, rate):
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
        container.mux(line)
    return path


def mov_with_huge_table(entries: int) -> bytes:
    """A few hundred bytes that make a demuxer ask for 8 bytes of memory an entry, for a table that is not there."""
    table = 4 * entries

    def box(kind: bytes, *parts: bytes, claimed: int = 0) -> bytes:
        data = b"".join(parts)
        return struct.pack(">I", len(data) + 8 + claimed) + kind + data

    sound = struct.pack(">6xH8xHHHHI", 1, 1, 16, 0, 0, 16_000 << 16)
    kinds = box(b"stsd", struct.pack(">4xI", 1), box(b"sowt", sound))
    sizes = box(b"stsz", struct.pack(">4xII", 0, entries), claimed=table)
    samples = box(b"minf", box(b"stbl", kinds, sizes, claimed=table), claimed=table)
    clock, handler = (
        box(b"mdhd", struct.pack(">12xII4x", 16_000, 16_000)),
        box(b"hdlr", struct.pack(">8x4s13x", b"soun")),
    )
    track_head = box(b"tkhd", struct.pack(">I8xI68x", 7, 1))
    track = box(b"trak", track_head, box(b"mdia", clock, handler, samples, claimed=table), claimed=table)
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", track, claimed=table)


def wav_bytes(samples: Samples, rate: int, *, claimed_bytes: int | None = None) -> bytes:
    """A PCM file by hand, so that its header can lie."""
    data = np.ascontiguousarray(samples.T).astype("<i2").tobytes()
    channels, claim = len(samples), len(data) if claimed_bytes is None else claimed_bytes
    sizes = (16).to_bytes(4, "little"), (1).to_bytes(2, "little"), channels.to_bytes(2, "little")
    pace = rate.to_bytes(4, "little") + (rate * channels * 2).to_bytes(4, "little")
    frame = (channels * 2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    head = b"fmt " + b"".join(sizes) + pace + frame + b"data" + claim.to_bytes(4, "little")
    return b"RIFF" + (claim + 36).to_bytes(4, "little") + b"WAVE" + head + data


def _add_audio(container: Any, kind: Kind, rate: int, channels: int) -> Any:
    layout = LAYOUTS[channels]
    stream = container.add_stream(kind.codec, rate=kind.rate or rate, layout="mono" if kind.muxer == "amr" else layout)
    if kind.bit_rate:
        stream.bit_rate = kind.bit_rate
    return stream


def _add_video(container: Any, codec: str) -> Any:
    stream = container.add_stream(codec, rate=5)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    return stream


def _picture(number: int) -> av.VideoFrame:
    shade = np.full((48, 64, 3), number * 20 % 256, np.uint8)
    frame = av.VideoFrame.from_ndarray(shade, format="rgb24").reformat(format="yuv420p")
    frame.pts, frame.time_base = number, Fraction(1, 5)
    return frame


def _frames(stream: Any, samples: Samples, rate: int) -> Iterator[av.AudioFrame]:
    layout = LAYOUTS[len(samples)]
    context = stream.codec_context
    resampler = av.AudioResampler(context.format, context.layout, context.rate)
    for start in range(0, samples.shape[1], STEP):
        part = np.ascontiguousarray(samples[:, start : start + STEP])
        frame = av.AudioFrame.from_ndarray(part, format="s16p", layout=layout)
        frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield from resampler.resample(frame)
    yield from resampler.resample(None)
