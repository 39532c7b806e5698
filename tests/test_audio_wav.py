"""A plain WAV file is read without ffmpeg, and says exactly what ffmpeg would have said; any other file is ffmpeg's."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import media
from audio.decode import open_audio
from audio.decoder import Decode
from audio.sink import Options
from audio.wav import LONGEST_LIST, PlainWav, plain_wav
from config import Settings
from errors import AudioTooLong
from tests.media import noise, silence, tone, wav_bytes, write_media

RATE = 16_000
ROOT = Path(__file__).parents[1]
LONGEST = 60 * RATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wav")


def wav(sound: bytes, *, said: bytes | None = None) -> bytes:
    """A correct file, with a list of what is `said` before the sound."""
    content = wav_bytes(np.frombuffer(sound, "<i2")[None], RATE)
    if said is not None:
        content = content[:36] + b"LIST" + struct.pack("<I", len(said)) + said + content[36:]
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def info(program: bytes) -> bytes:
    """The list that names the program which wrote the file."""
    even = program + bytes(len(program) % 2)
    return b"INFOISFT" + struct.pack("<I", len(even)) + even


INFO = info(b"Lavf62.12.102\0")  # as ffmpeg writes it


def plain(path: Path, content: bytes, *, longest: int = LONGEST) -> PlainWav | None:
    path.write_bytes(content)
    with io.FileIO(path) as file:
        found = plain_wav(file, longest=longest)
        assert file.tell() == 0
        return found


def said_by(decode: Decode, path: Path, *, start: int = 0, repair: bool = False) -> bytes:
    stdout = io.BytesIO()
    with io.FileIO(path) as file:
        decode(file, stdout, Options(start, LONGEST, repair, memory_mb=0, parent=0))
    return stdout.getvalue()


@given(
    length=st.one_of(st.integers(1, 3000), st.integers(1, 3 * RATE)), seed=st.integers(0, 9), repair=st.booleans(),
    start=st.one_of(st.just(0), st.integers(0, 3 * RATE)),
    said=st.one_of(st.none(), st.just(INFO), st.binary(max_size=40).map(info)),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_plain_file_gives_byte_for_byte_what_ffmpeg_gives(
    folder: Path, length: int, seed: int, start: int, said: bytes | None, *, repair: bool
) -> None:
    sound = np.random.default_rng(seed).integers(-32768, 32768, length).astype("<i2").tobytes()
    found = plain(folder / "plain", wav(sound, said=said))
    assert found
    ours = said_by(found.decode, folder / "plain", start=start, repair=repair)
    assert ours == said_by(media.decode, folder / "plain", start=start, repair=repair)
    assert ours.partition(b"\n")[2] == sound[start * 2 :]


@given(
    changes=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), max_size=4),
    said=st.sampled_from([None, INFO]),
    cut=st.integers(0, 60), added=st.binary(max_size=20),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_whatever_a_changed_header_is_taken_for_ffmpeg_takes_it_for_the_same(
    folder: Path, changes: list[tuple[int, int]], said: bytes | None, cut: int, added: bytes
) -> None:
    content = bytearray(wav(noise(0.1, rate=RATE).astype("<i2").tobytes(), said=said))
    for at, value in changes:
        content[at] = value
    found = plain(folder / "changed", bytes(content[: len(content) - cut]) + added)
    if found:
        assert said_by(found.decode, folder / "changed") == said_by(media.decode, folder / "changed")


SOUND = tone(0.5, rate=RATE).astype("<i2").tobytes()
WAV = wav(SOUND)
SPDIF = b"\x72\xf8\x1f\x4e"
NOT_PLAIN = {
    "nothing": b"",
    "a lone header": WAV[:44],
    "half a header": WAV[:30],
    "cut off": WAV[:-2],
    "cut off within a sample": WAV[:-1],
    "half a sample too many": WAV + b"\0",
    "a chunk after the sound": WAV + b"LIST\x04\0\0\0INFO",
    "no sound": wav(b""),
    "unknown sizes, as a pipe has them": wav_bytes(tone(0.5, rate=RATE), RATE, claimed_bytes=0xFFFFFFFF - 36),
    "more claimed than there is": wav_bytes(tone(0.5, rate=RATE), RATE, claimed_bytes=1 << 30),
    "less claimed than there is": wav_bytes(tone(0.5, rate=RATE), RATE, claimed_bytes=100),
    "only the outer size lies": WAV[:4] + b"\0\0\0\0" + WAV[8:],
    "RF64": b"RF64" + WAV[4:],
    "big-endian": b"RIFX" + WAV[4:],
    "WAVE_FORMAT_EXTENSIBLE": WAV.replace(b"\x10\0\0\0\1\0", b"\x10\0\0\0\xfe\xff"),
    "floating point": WAV.replace(b"\x10\0\0\0\1\0", b"\x10\0\0\0\3\0"),
    "another rate": wav_bytes(tone(0.5, rate=8000), 8000),
    "stereo": wav_bytes(tone(0.5, rate=RATE, channels=2), RATE),
    "a false pace": WAV.replace(struct.pack("<I", 32000), struct.pack("<I", 64000)),
    "a chunk that we do not know": WAV[:36] + b"fact\x04\0\0\0\0\0\0\0" + WAV[36:],
    "a list of another kind": wav(SOUND, said=b"adtl" + bytes(4)),
    "a list with more in it": wav(SOUND, said=INFO + b"INAM\2\0\0\0a\0"),
    "a list that does not add up": wav(SOUND, said=b"INFO" + bytes(20)),
    "a list of odd length": wav(SOUND, said=b"INFOISFT\1\0\0\0a"),
    "a long list": wav(SOUND, said=info(bytes(300))),
    "a list that claims 4 GB": WAV[:36] + b"LIST\xff\xff\xff\xffINFO" + WAV[36:],
    "S/PDIF": wav(SOUND[:1000] + SPDIF + SOUND[1000:]),
    "S/PDIF far in": wav(bytes((1 << 16) - 4) + SPDIF, said=info(bytes(LONGEST_LIST - 12))),
    "a dictaphone's ACT file": wav(bytes(212) + b"\x84" + bytes(20_001)),
}


@pytest.mark.parametrize("content", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_odd_in_any_way_is_left_to_ffmpeg(tmp_path: Path, content: bytes) -> None:
    assert plain(tmp_path / "odd", content) is None


def test_what_is_longer_than_accepted_is_left_to_ffmpeg_and_refused(tmp_path: Path) -> None:
    assert plain(tmp_path / "long", wav(bytes(2 * RATE)), longest=RATE)
    assert not plain(tmp_path / "long", wav(bytes(2 * RATE + 2)), longest=RATE)
    with (
        pytest.raises(AudioTooLong),
        open_audio(tmp_path / "long", settings=Settings(max_audio_hours=1 / 3600)) as audio,
    ):
        list(audio.blocks())


def test_a_start_after_the_end_of_a_plain_file_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(WAV)
    with open_audio(tmp_path / "short", start_s=1) as audio:
        assert list(audio.blocks()) == []
        assert audio.info.duration == 0.5


def test_what_ffmpeg_writes_is_plain(tmp_path: Path) -> None:
    path = write_media(tmp_path / "ours.wav", tone(1, rate=RATE), rate=RATE)
    assert path.read_bytes()[36:40] == b"LIST"
    assert plain(path, path.read_bytes())


def test_silence_is_plain(tmp_path: Path) -> None:
    assert plain(tmp_path / "silence", wav_bytes(silence(1, rate=RATE), RATE))


@pytest.mark.parametrize(("content", "loaded"), [(WAV, b"False"), (WAV + b"\0\0", b"True")], ids=["plain", "odd"])
def test_ffmpeg_is_loaded_only_for_what_is_not_plain(tmp_path: Path, content: bytes, loaded: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    look = "import os, sys; from audio.decoder import main; main([]); os.write(2, b'%r' % ('av' in sys.modules))"
    with (tmp_path / "file").open("rb") as file:
        done = subprocess.run((sys.executable, "-c", look), cwd=ROOT, stdin=file, capture_output=True, check=True)
    assert done.stderr == loaded
    assert done.stdout.partition(b"\n")[2] == SOUND
