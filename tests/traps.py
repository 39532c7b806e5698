"""Files that name other files, claim what is not so, or hold far more than they seem to. Harmless here."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, get_errno
from os import O_NONBLOCK, close, read
from pathlib import Path

from tests.media import Kind, silence, tone, write_media

IN_MODIFY, IN_OPEN, IN_CREATE, IN_DELETE = 0x2, 0x20, 0x100, 0x200  # linux/inotify.h

PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
    "hls master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "hls key": '#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:10,\n{target}\n',
    "hls map": '#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-MAP:URI="{target}"\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n',
    "hls subtitles": '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="{target}"\n'
    '#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\n{target}\n',
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "concat, plain": "file '{target}'\n",
    "concat, many": "ffconcat version 1.0\nfile '{target}'\ninpoint 0\noutpoint 1\nfile '{target}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="x">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
    "<Id>urn:uuid:6f9619ff-8b86-4d01-b42d-00cf4fc964ff</Id><Path>{target}</Path></CompositionPlaylist>",
    "smooth streaming": '<SmoothStreamingMedia><StreamIndex Url="{target}"/></SmoothStreamingMedia>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
    "a=control:{target}\n",
    "smil": '<smil><body><audio src="{target}"/></body></smil>',
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "pls": "[playlist]\nNumberOfEntries=1\nFile1={target}\n",
    "xspf": '<playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track><location>{target}</location></track>'
    "</trackList></playlist>",
    "cue": 'FILE "{target}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "rtsp redirect": "RTSPtextrtsp://{target}\n",
    "vobsub": "# VobSub index file, v7\nid: en, index: 0\n{target}\n",
    "avisynth": 'DirectShowSource("{target}")\n',
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
    "ffmetadata": ";FFMETADATA1\ntitle={target}\n",
}
PROTOCOLS = (  # {file} and {address} are the baits
    "{file}", "file:{file}", "file://{file}", "http://{address}/a.ts", "https://{address}/a.ts", "tcp://{address}",
    "udp://{address}", "rtmp://{address}/a", "rtp://{address}", "ftp://{address}/a.wav",
    "hls+http://{address}/a.m3u8",
    "concat:{file}|{file}", "concatf:{file}", "subfile,,start,0,end,0,,:{file}", "crypto:{file}",
    "crypto+http://{address}/a", "cache:{file}", "async:{file}", "pipe:0", "fd:0", "unix:{file}",
    "data:audio/wav;base64,UklGRg==",
    "{name}", "../{name}",
)  # fmt: skip


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + kind + data


def mov_with_sound_elsewhere(folder: Path, name: str) -> bytes:
    """A QuickTime film whose samples lie in the file `name` beside it: what `enable_drefs` would follow."""
    path = write_media(folder / "whole.mov", tone(1, rate=16_000), rate=16_000, kind=Kind("mov", "pcm_s16le"))
    content = path.read_bytes()
    path.unlink()
    place = content.index(b"dref") - 4
    size = struct.unpack_from(">I", content, place)[0]
    elsewhere = box(b"dref", struct.pack(">II", 0, 1), _alias(name))
    content = content[:place] + elsewhere + content[place + size :]
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):  # it lies behind the samples: no offset changes
        at = content.index(kind) - 4
        grown = struct.unpack_from(">I", content, at)[0] + len(elsewhere) - size
        content = content[:at] + struct.pack(">I", grown) + content[at + 4 :]
    return content


def _alias(name: str) -> bytes:
    """A Macintosh alias record, as FFmpeg reads one (mov.c, mov_read_dref)."""
    path = f"disk/{name}".encode()
    path += b"\0" * (len(path) % 2)
    volume, filename = b"\x04disk".ljust(28, b"\0"), bytes([len(name)]) + name.encode().ljust(63, b"\0")
    levels = struct.pack(">16xHH16x", 1, 1)
    record = bytes(10) + volume + bytes(12) + filename + levels + struct.pack(">HH", 2, len(path)) + path
    return box(b"alis", bytes(4), record, b"\xff\xff\0\0")


def mkv_that_goes_on_in(name: str, content: bytes) -> bytes:
    """A Matroska file that says which file is its next segment (RFC 9559: NextFilename, NextUUID)."""
    at = content.index(b"\x15\x49\xa9\x66") + 4  # Info
    width = 9 - content[at].bit_length()
    size = int.from_bytes(content[at : at + width], "big") - (1 << 7 * width)
    links = b"\x3e\x83\xbb" + bytes([0x80 | len(name)]) + name.encode() + b"\x3e\xb9\x23\x90" + bytes(range(16))
    segment = content.index(b"\x18\x53\x80\x67") + 4
    head = content[:segment] + b"\x01" + b"\xff" * 7 + content[segment + 8 : at]  # its size: unknown
    grown = (size + len(links) | 1 << 56).to_bytes(8, "big")
    return head + grown + links + content[at + width :]


def mov_of_one_chunk(hours: float) -> bytes:
    """Half a second of silence, and a table that says to play it again and again: 9 bytes a second."""
    rate, length = 16_000, 8_000
    chunks = round(hours * 7200)
    sound = struct.pack(">6xH8xHHHHI", 1, 1, 16, 0, 0, rate << 16)
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">4xI", 1), box(b"sowt", sound)),
        box(b"stts", struct.pack(">4xIII", 1, chunks * length, 1)),
        box(b"stsc", struct.pack(">4xIIII", 1, 1, length, 1)),
        box(b"stsz", struct.pack(">4xII", 2, chunks * length)),
        box(b"stco", struct.pack(">4xI", chunks), struct.pack(">I", 28) * chunks),
    )
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">12xII4x", rate, chunks * length)),
        box(b"hdlr", struct.pack(">8x4s13x", b"soun")),
        box(b"minf", table),
    )
    track = box(b"trak", box(b"tkhd", struct.pack(">I8xI68x", 7, 1)), media)
    return box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + box(b"mdat", bytes(2 * length)) + box(b"moov", track)


def mov_with_compressed_header(megabytes: int, *, claimed: int) -> bytes:
    """A header of that size once inflated, a thousandth of it here; and how many megabytes it says."""
    squeezed = zlib.compress(bytes(megabytes << 20), 9)
    header = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", claimed << 20), squeezed))
    return box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + box(b"moov", header)


def mp3_of_silence(folder: Path, hours: float) -> bytes:
    """The same few frames at 8 kbit/s."""
    kind = Kind("mp3", "libmp3lame", bit_rate=8_000)
    path = write_media(folder / "second.mp3", silence(72, rate=8_000), rate=8_000, kind=kind)
    frames = path.read_bytes()
    path.unlink()
    start = frames.index(b"\xff\xe3")
    frame = 72  # bytes, and ms of sound
    body = frames[start + 10 * frame : start + 900 * frame]
    return body * round(hours * 3_600_000 / 72 / 890)


@contextmanager
def watched(path: Path) -> Iterator[list[str]]:
    """Fills with what happened below the folder, or to the file, by the time the block is left: Linux's inotify."""
    libc, happened = CDLL(None, use_errno=True), list[str]()
    queue = libc.inotify_init1(O_NONBLOCK)
    if libc.inotify_add_watch(queue, bytes(path), IN_OPEN | IN_CREATE | IN_MODIFY | IN_DELETE) < 0:
        raise OSError(get_errno(), "cannot watch", str(path))
    try:
        yield happened
        happened += _events(queue)
    finally:
        close(queue)


def _events(queue: int) -> Iterator[str]:
    try:
        events = read(queue, 1 << 16)
    except BlockingIOError:
        return
    while events:
        _, mask, _, length = struct.unpack_from("iIII", events)
        yield f"{mask:#x} {events[16 : 16 + length].rstrip(bytes(1)).decode()}"
        events = events[16 + length :]
