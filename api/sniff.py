"""Whether a file may be media, by its name or its first bytes: cheap, no decoding. The worker has the last word."""

from pathlib import PurePosixPath

HEAD_BYTES = 256  # enough of a file for `is_media`

# What people use; the command line takes these out of folders.
COMMON = frozenset(
    "aac ac3 aif aifc aiff amr ape asf au avi awb caf dts eac3 ec3 f4a f4v flac flv gsm gxf m2ts m4a m4b m4v mka "
    "mkv mov mp1 mp2 mp3 mp4 mpeg mpg mpga mts mxf nut oga ogg ogv opus qt ra rm rmvb snd spx tta ts vob voc w64 "
    "wav wave weba webm wma wmv wtv wv 3g2 3ga 3gp dif dv".split()
)
# What the decoder's other formats are called, but for names that mean something else to most.
EXTENSIONS = COMMON | frozenset(
    (
        "302 722 aa aa3 aax ac4 acm adp ads adx aea afc aix apc apl aptx aptxhd ast avr bcstm bfstm binka bmv bonk "
        "brstm c2 cdata cdxl daud dav dfpwm dsf dff dss dtk dtshd fap fsb fwse g722 g723_1 g728 g729 genh hca iamf ifv "
        "imx ircam ism isma ismv ivr kux laf lc3 lvf m2a mac mj2 mjpg mk3d mks mlp mods moflex mpa mpc mpp msbc msf "
        "mtaf musx mvi mxg nist nsp nsv oma omg osq paf psp pvf qcp qoa rco rka rsd rso sbc sbg sdns sdr2 sds sdx sf "
        "sga shn son sph ss2 svag svs tak tco thd ty ty+ usm vag vb viv vpk vqe vqf vql wa way wsd xl xmd xmv xvag yop"
    ).split()
)
_STARTS = (
    b"ID3", b"OggS", b"fLaC", b"RIFF", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"#!AMR", b"MAC ", b"wvpk", b"TTA1",
    b"FLV", b"FWS", b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3",
    b"Creative Voice", b".RMF", b".ra\xfd", b"nut/multimedia container\0",
    b"\x06\x0e+4\x02\x05\x01\x01\x0d\x01\x02\x01\x01",  # MXF
    b"\x1f\x07\x00",  # DV
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11\xa6\x4e",  # WTV
    b"\x00\x00\x00\x00\x01\xbc",  # GXF
    b"\x0bw", b"w\x0b", b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8", b"DTSHDHDR",
    b"r\xf8\x1fN",  # S/PDIF
    b"#!iLBC", b"tBaK", b"MPCK", b"MP+", b"DSD ", b"FRM8", b"ea3", b"EA3", b"ajkg", b"BIK", b"SMK", b"NSV", b"TWIN",
    b"\x02dss", b"\x03dss", b"\x03ds2", b"MMMD", b"d\xa3\x01\x00", b"\x00\x01\xa3d", b".SoX", b"XoS.", b"qoaf", b"KVAG",
)  # fmt: skip
_SYNC = {0xFF: 0xE0, 0x56: 0xE0}  # MPEG audio and AAC in ADTS; AAC in LOAS: the first byte, and bits of the second
_INNER = (b"ftyp", b"moov", b"mdat", b"wide", b"\xf8ro\xba", b"\xf8ro\xbb", b"W\x90u6")


def is_media(filename: str, head: bytes) -> bool:
    """True where the extension or the content is one that a decoder of ours knows; either may lie."""
    extension = PurePosixPath(filename).suffix.lstrip(".").lower()
    return extension in EXTENSIONS or _is_known_start(head)


def _is_known_start(head: bytes) -> bool:
    if head.startswith(_STARTS) or head[4:8] in _INNER:
        return True
    in_sync = len(head) > 1 and (mask := _SYNC.get(head[0])) is not None and head[1] & mask == mask
    # Packets of 188 bytes, bare or each behind a time stamp of four.
    is_transport_stream = any(head[at : at + 1] == b"G" == head[at + size : at + size + 1] for at, size in _PACKETS)
    is_adx = head[:2] == b"\x80\x00" and b"(c)CRI" in head
    return in_sync or is_transport_stream or is_adx


_PACKETS = ((0, 188), (4, 192))
