"""Whether a file may be media, by its name or its first bytes: cheap, no decoding. The worker has the last word."""

from pathlib import PurePosixPath

HEAD_BYTES = 256  # enough of a file for `is_media`

EXTENSIONS = frozenset(
    "aac ac3 aif aifc aiff amr ape asf au avi awb caf dts eac3 f4a f4v flac flv gsm m2ts m4a m4b m4v mka mkv mov mp1 "
    "mp2 mp3 mp4 mpeg mpg mpga mts oga ogg ogv opus qt snd spx tta ts vob voc w64 wav wave weba webm "
    "wma wmv wv 3g2 3ga 3gp".split()
)
_STARTS = (
    b"ID3", b"OggS", b"fLaC", b"RIFF", b"RF64", b"FORM", b".snd", b"caff", b"#!AMR", b"MAC ", b"wvpk", b"TTA1", b"FLV",
    b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"Creative Voice",
)  # fmt: skip


def is_media(filename: str, head: bytes) -> bool:
    """True where the extension or the content is one that a decoder of ours knows; either may lie."""
    extension = PurePosixPath(filename).suffix.lstrip(".").lower()
    return extension in EXTENSIONS or _is_known_start(head)


def _is_known_start(head: bytes) -> bool:
    if head.startswith(_STARTS) or head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return True
    is_mpeg_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0  # MPEG audio, AAC in ADTS
    is_transport_stream = head[:1] == b"G" and head[188:189] == b"G"  # packets of 188 bytes
    return is_mpeg_frame or is_transport_stream
