"""A recording reaches nothing but itself, is believed nothing, and costs no more than was allowed."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from audio.decode import open_audio
from config import Settings
from errors import AudioTooLong, DecoderCrashed, MediaError, NoAudioStream, ServiceError, UndecodableAudio
from tests.media import pitch, tone, wav_bytes, write_media, write_silence_bomb
from tests.traps import (
    PLAYLISTS,
    PROTOCOLS,
    mkv_that_goes_on_in,
    mov_of_one_chunk,
    mov_with_compressed_header,
    mov_with_sound_elsewhere,
    mp3_of_silence,
    watched,
)

RATE = 16_000
OURS, THEIRS = 440, 880  # Hz, of a recording and of the file that it must not reach
MB = 1024**2


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def bait(tmp_path: Path) -> Path:
    """A stranger's recording, in a folder of its own."""
    folder = tmp_path / "bait"
    folder.mkdir()
    path = folder / "other.wav"
    path.write_bytes(wav_bytes(tone(1, hz=THEIRS, rate=RATE), RATE))
    return path


def decode(path: Path, settings: Settings | None = None) -> NDArray[np.float32]:
    with open_audio(path, repair=True, settings=settings) as audio:
        return np.concatenate([np.zeros(0, np.float32), *audio.blocks()])


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def was_asked(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


# Other files and addresses


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_no_playlist_is_followed(tmp_path: Path, listening: socket.socket, bait: Path, kind: str) -> None:
    """Two in one file: an address and a neighbour."""
    for target in (f"http://127.0.0.1:{listening.getsockname()[1]}/a.ts", str(bait)):
        path = saved(tmp_path / "talk.mp3", PLAYLISTS[kind].format(target=target).encode())
        with watched(bait.parent) as touched, pytest.raises(UndecodableAudio):
            decode(path)
        assert touched == []
    assert not was_asked(listening)


def test_no_protocol_is_spoken(tmp_path: Path, listening: socket.socket, bait: Path) -> None:
    """All in one list: a reader that follows any of them is seen."""
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    targets = [form.format(file=bait, name=bait.name, address=address) for form in PROTOCOLS]
    for line in ("#EXTINF:10,\n{}\n", "file '{}'\n"):
        head = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n" if line.startswith("#") else "ffconcat version 1.0\n"
        path = saved(bait.parent / "list.m3u8", (head + "".join(map(line.format, targets))).encode())
        with watched(bait) as touched, pytest.raises(UndecodableAudio):
            decode(path)
        assert touched == []
    assert not was_asked(listening)


def test_the_baits_catch_a_reader_that_is_not_guarded(tmp_path: Path, listening: socket.socket, bait: Path) -> None:
    """FFmpeg as it comes follows each of these; otherwise the tests above would show nothing."""
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/a.ts"
    followed = saved(tmp_path / "list.m3u8", PLAYLISTS["hls"].format(target=address).encode())
    with pytest.raises(av.FFmpegError):
        av.open(str(followed), options={"protocol_whitelist": "file,http,tcp"}, timeout=1.0)
    assert was_asked(listening)
    listed = saved(tmp_path / "list.ffconcat", PLAYLISTS["concat"].format(target=bait).encode())
    with watched(bait) as touched, av.open(str(listed), options={"safe": "0"}) as container:
        assert container.streams.audio
    assert touched
    film = saved(bait.parent / "film.mov", mov_with_sound_elsewhere(tmp_path, bait.name))
    with watched(bait) as touched, av.open(str(film), options={"enable_drefs": "1"}) as container:
        next(container.decode(audio=0))
    assert touched


def test_a_film_whose_sound_lies_in_another_file_reads_only_itself(tmp_path: Path, bait: Path) -> None:
    film = saved(bait.parent / "film.mov", mov_with_sound_elsewhere(tmp_path, bait.name))
    with watched(bait) as touched:
        heard = decoded_or_refused(film)
    assert touched == []
    assert heard is None or pitch(heard) != pytest.approx(THEIRS, abs=2)


def test_linked_segments_are_not_looked_for(tmp_path: Path, bait: Path) -> None:
    content = write_media(tmp_path / "own.mkv", tone(1, hz=OURS)).read_bytes()
    path = saved(bait.parent / "linked.mkv", mkv_that_goes_on_in(bait.name, content))
    with watched(bait) as touched:
        sound = decode(path)
    assert touched == []
    assert len(sound) == pytest.approx(RATE, abs=0.1 * RATE)
    assert pitch(sound) == pytest.approx(OURS, abs=2)


@pytest.mark.parametrize(
    "name", ["track%03d.wav", "track*.wav", "track?.wav", "http:a.wav", "concat:a|b.wav", "-i.wav"]
)
def test_a_name_is_never_a_pattern_a_protocol_or_an_option(tmp_path: Path, bait: Path, name: str) -> None:
    for number in (1, 2):
        saved(tmp_path / f"track{number:03d}.wav", bait.read_bytes())
    sound = decode(saved(tmp_path / name, wav_bytes(tone(1, hz=OURS, rate=RATE), RATE)))
    assert len(sound) == RATE
    assert pitch(sound) == pytest.approx(OURS, abs=2)


# Claims


def claims_in_matroska(path: Path) -> bytes:
    content = bytearray(write_media(path, tone(1)).read_bytes())
    at = content.index(b"\x44\x89\x88") + 3  # Duration, in ms
    content[at : at + 8] = np.array(9e12, ">f8").tobytes()
    return bytes(content)


def claims_in_flac(path: Path) -> bytes:
    content = bytearray(write_media(path, tone(1)).read_bytes())
    content[21] |= 0x0F  # 36 bits of STREAMINFO
    content[22:26] = b"\xff" * 4
    return bytes(content)


def claims_in_mp3(path: Path) -> bytes:
    content = bytearray(write_media(path, tone(1)).read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8  # frames
    content[at : at + 4] = (13_781_250).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("ending", "claim"), [("mkv", claims_in_matroska), ("flac", claims_in_flac), ("mp3", claims_in_mp3)]
)
def test_a_header_that_claims_a_hundred_hours_and_more_is_not_passed_on(
    tmp_path: Path, ending: str, claim: Callable[[Path], bytes]
) -> None:
    """A deadline is made from it: 20 s for each second, and 285 years are claimed here."""
    path = saved(tmp_path / "liar", claim(tmp_path / f"honest.{ending}"))
    with av.open(str(path)) as container:
        assert (container.duration or 0) > 99 * 3600 * 1_000_000, "the claim is there to be believed"
    with open_audio(path) as audio:
        assert audio.info.duration is None
        assert sum(len(block) for block in audio.blocks()) == pytest.approx(RATE, abs=0.1 * RATE)


# Bombs


def bomb(folder: Path, kind: str) -> tuple[Path, float]:
    """A file, and the hours of silence that are in it."""
    if kind == "mp3":
        return saved(folder / "bomb", mp3_of_silence(folder, 3)), 3
    if kind == "mov of one chunk":
        return saved(folder / "bomb", mov_of_one_chunk(10)), 10
    muxer, codec = kind.split(" of ")
    return write_silence_bomb(folder / "bomb", 0.25, muxer=muxer, codec=codec), 0.25


@pytest.mark.parametrize("kind", ["matroska of flac", "ogg of libopus", "ogg of flac", "mp3", "mov of one chunk"])
def test_hours_of_silence_in_a_small_file_are_refused_at_the_limit(tmp_path: Path, kind: str) -> None:
    path, hours = bomb(tmp_path, kind)
    limit_s = 600
    assert path.stat().st_size < hours * 3600 * RATE * 2 / 8, "eight times as long as it seems, at least"
    started = time.monotonic()
    samples, peak = until_too_long(path, limit_s)
    assert (limit_s - 60) * RATE < samples <= limit_s * RATE
    assert peak < 128 * MB
    assert time.monotonic() - started < 30


def until_too_long(path: Path, limit_s: int) -> tuple[int, int]:
    """Samples that came, and the peak memory of the decoder in bytes, until it gave up."""
    samples = peak = 0
    try:
        with open_audio(path, settings=Settings(max_audio_hours=limit_s / 3600)) as audio:
            decoder = psutil.Process(audio._child.pid)
            for block in audio.blocks():
                samples += len(block)
                peak = max(peak, decoder.memory_info().rss)
    except AudioTooLong:
        return samples, peak
    raise AssertionError("the whole recording came through")


@pytest.mark.parametrize(
    ("megabytes", "claimed", "error"),
    [(50, 2000, DecoderCrashed), (50, 1, UndecodableAudio), (1, 0, UndecodableAudio), (100, 100, NoAudioStream)],
)
def test_a_header_that_inflates_stays_within_the_memory_limit(
    tmp_path: Path, megabytes: int, claimed: int, error: type[ServiceError]
) -> None:
    path = saved(tmp_path / "bomb.mov", mov_with_compressed_header(megabytes, claimed=claimed))
    assert path.stat().st_size < megabytes << 11
    with pytest.raises(error):
        decode(path, Settings(decode_memory_mb=512))


def decoded_or_refused(path: Path) -> NDArray[np.float32] | None:
    try:
        return decode(path)
    except MediaError:
        return None
