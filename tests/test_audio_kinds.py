"""Whatever the bundled ffmpeg can read is read, by content; what is refused has its reason, which stands here."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec import codecs_available
from av.format import formats_available

from api.sniff import EXTENSIONS, HEAD_BYTES, is_media
from audio.decode import open_audio
from audio.kinds import CODECS, FORMATS
from tests.media import KINDS, Kind, _frames, can_encode, pitch, tone, write_media

RATE = 16_000
REFUSED = {
    "devices": "alsa fbdev kmsgrab lavfi video4linux2 v4l2 x11grab",
    "reads other files or calls addresses": "concat hls image2 mlv rtp rtsp sap sdp vobsub webm_dash_manifest dash",
    "holds pictures or bare video, no sound": """
        alias_pix anm apng apv av1 avs2 avs3 bitpacked bmp_pipe brender_pix cavsvideo cdg cine cri_pipe dds_pipe dirac
        dnxhd dpx_pipe evc exr_pipe filmstrip fits flic gem_pipe gif gif_pipe h261 h263 h264 hdr_pipe hevc ico
        image2pipe ingenient ipu ivf j2k_pipe jpeg_pipe jpegls_pipe jpegxl_anim jpegxl_pipe jpegxs_pipe m4v mjpeg
        mjpeg_2000 mpegvideo mpjpeg obu pam_pipe pbm_pipe pcx_pipe pdv pfm_pipe pgm_pipe pgmyuv_pipe pgx_pipe phm_pipe
        photocd_pipe pictor_pipe png_pipe ppm_pipe psd_pipe qdraw_pipe qoi_pipe rawvideo ser sgi_pipe sunrast_pipe
        svg_pipe tiff_pipe txd v210 v210x vbn_pipe vc1 vc1test vvc webp_pipe xbm_pipe xpm_pipe xwd_pipe yuv4mpegpipe""",
    "holds text, no sound": """
        adf aqtitle ass bin data dvbsub dvbtxt ffmetadata idf jacosub lrc mcc microdvd mpl2 mpsub pjs rcwt realtext sami
        scc srt stl subviewer subviewer1 sup tedcaptions tty vplayer webvtt xbin""",
    "samples without a header: nothing in the file says what it is": """
        alaw aptx aptx_hd codec2raw dfpwm f32be f32le f64be f64le g722 g726 g726le g728 g729 gsm mulaw s16be s16le s24be
        s24le s32be s32le s8 sbc sln u16be u16le u24be u24le u32be u32le u8 vidc""",
}
MADE_UP = {"anull", "wavesynth", "comfortnoise"}  # decoders that make sound of nothing that was recorded
OTHERWISE_KNOWN = set("264 265 avif bit dat heic heif mca str v".split())  # endings that mean something else to most


def demuxers() -> Iterator[av.ContainerFormat]:
    for name in sorted(formats_available):
        try:
            found = av.ContainerFormat(name, "r")
        except ValueError:
            continue
        yield found


def test_every_demuxer_of_this_build_is_allowed_or_refused_for_a_reason() -> None:
    refused = {name for names in REFUSED.values() for name in names.split()}
    there = {name for demuxer in demuxers() for name in demuxer.name.split(",")}
    assert there - FORMATS - refused == set(), "decide about these"
    assert refused & FORMATS == set()
    assert FORMATS - there == set(), "these are not in this build"


def test_every_sound_decoder_of_this_build_is_allowed_or_refused_for_a_reason() -> None:
    there = set()
    for name in codecs_available:
        try:
            codec = av.Codec(name, "r")
        except ValueError:
            continue
        there |= {name} if codec.type == "audio" else set()
    assert there - CODECS - MADE_UP == set(), "decide about these"
    assert CODECS - there == set(), "these are not in this build"
    assert not CODECS & MADE_UP


def test_every_ending_of_an_allowed_format_is_let_in() -> None:
    endings = {
        ending.lower()
        for demuxer in demuxers()
        if FORMATS & set(demuxer.name.split(","))
        for ending in demuxer.extensions
    }
    assert endings - EXTENSIONS == OTHERWISE_KNOWN
    assert not is_media("notes.txt", b"text")


MORE = {
    "RealAudio": Kind("rm", "ac3"),
    "RealAudio 14.4": Kind("rm", "real_144", rate=8_000),
    "MXF OPAtom": Kind("mxf_opatom", "pcm_s16le", rate=48_000),
    "NUT": Kind("nut", "pcm_s16le"),
    "WTV": Kind("wtv", "mp2", rate=48_000),
    "SWF": Kind("swf", "libmp3lame"),
    "AMR": Kind("amr", "libopencore_amrnb", rate=8_000),
    "CAF": Kind("caf", "alac"),
    "AIFF": Kind("aiff", "pcm_s16be"),
    "AU": Kind("au", "pcm_s16be"),
    "Wave64": Kind("w64", "pcm_s16le"),
    "WAV of 24 bits": Kind("wav", "pcm_s24le"),
    "True Audio": Kind("tta", "tta"),
    "WavPack": Kind("wv", "wavpack"),
    "AC-3": Kind("ac3", "ac3", rate=48_000),
    "E-AC-3": Kind("eac3", "eac3", rate=48_000),
    "MP2": Kind("mp2", "mp2", rate=48_000),
    "VOC": Kind("voc", "pcm_u8"),
    "ADX": Kind("adx", "adpcm_adx"),
    "VOB": Kind("vob", "ac3", "mpeg2video", rate=48_000),
    "MPEG-TS": Kind("mpegts", "mp2", rate=48_000),
    "LOAS": Kind("latm", "aac"),
    "FLV": Kind("flv", "libmp3lame", "flv"),
    "IRCAM": Kind("ircam", "pcm_s16le"),
    "SoX": Kind("sox", "pcm_s32le"),
    "KVAG": Kind("kvag", "adpcm_ima_ssi"),
    "SMAF": Kind("mmf", "adpcm_yamaha"),
    "S/PDIF": Kind("spdif", "ac3", rate=48_000),
    "ADPCM in AVI": Kind("avi", "adpcm_ms", "mpeg4"),
}


def check(path: Path) -> None:
    """It is let in whatever it is called, and is the tone that it was made of."""
    assert is_media("upload", path.read_bytes()[:HEAD_BYTES])
    with open_audio(path) as audio:
        sound = np.concatenate(list(audio.blocks()))
    assert pitch(sound) == pytest.approx(440, abs=8), "a coarse clock may be 2 % off"
    assert len(sound) == pytest.approx(2 * RATE, abs=0.06 * RATE)


@pytest.mark.parametrize("name", MORE)
def test_a_recording_of_any_kind_is_taken_by_its_content(tmp_path: Path, name: str) -> None:
    kind = MORE[name]
    if not can_encode(kind):
        pytest.skip(f"this build of ffmpeg cannot write {name}")
    rate = kind.rate or 44_100
    channels = 2 if kind.muxer in ("wtv", "spdif") else 1
    check(write_media(tmp_path / "recording", tone(2, rate=rate, channels=channels), rate=rate, kind=kind))


BROADCAST = {"DV": ("dv", "dvvideo", 2), "MXF": ("mxf", "mpeg2video", 2)}


@pytest.mark.parametrize("name", BROADCAST)
def test_what_cameras_and_broadcasters_write_is_taken_by_its_content(tmp_path: Path, name: str) -> None:
    """They want pictures of their own size beside the sound, and samples that go with them."""
    muxer, codec, channels = BROADCAST[name]
    path = tmp_path / "film"
    with path.open("wb") as file, av.open(file, "w", format=muxer) as container:
        video: Any = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 720, 576, "yuv420p"
        audio: Any = container.add_stream("pcm_s16le", rate=48_000, layout="stereo" if channels == 2 else "mono")
        picture = av.VideoFrame.from_ndarray(np.full((576, 720, 3), 90, np.uint8), format="rgb24")
        packets = []
        for number in range(50):
            frame = picture.reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode(None)
        for sound in _frames(audio, tone(2, rate=48_000, channels=channels), 48_000):
            packets += audio.encode(sound)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    check(path)


@pytest.mark.parametrize("ending", KINDS)
def test_the_usual_kinds_are_let_in_by_content_too(tmp_path: Path, ending: str) -> None:
    if not can_encode(KINDS[ending]):
        pytest.skip(f"this build of ffmpeg cannot write {ending}")
    head = write_media(tmp_path / f"tone.{ending}", tone(0.5)).read_bytes()[:HEAD_BYTES]
    assert is_media("upload", head)


def test_a_transport_stream_with_stamps_before_its_packets_is_let_in() -> None:
    assert is_media("upload", (b"\0\0\0\0G" + bytes(187)) * 2)
    assert not is_media("upload", b"GIF89a" + bytes(250))
