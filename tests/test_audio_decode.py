"""Whatever people send becomes the same thing: 16 kHz mono, all of it, from any second on."""

import json
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from audio.decode import AudioInfo, open_audio
from config import Settings
from errors import AudioTooLong, DecoderCrashed, FileMissing, NoAudioStream, UndecodableAudio
from tests.media import (
    KINDS,
    Kind,
    can_encode,
    mov_with_huge_table,
    noise,
    pitch,
    silence,
    tone,
    wav_bytes,
    write_film_with_subtitles,
    write_media,
    write_silence_bomb,
    write_silent_film,
)

RATE = 16_000
HZ = 440
SECONDS = 3.0


def decode(
    path: Path, *, start_s: float = 0.0, repair: bool = False, settings: Settings | None = None
) -> NDArray[np.float32]:
    with open_audio(path, start_s=start_s, repair=repair, settings=settings) as audio:
        return np.concatenate([np.zeros(0, np.float32), *audio.blocks()])


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same tone in every kind that this build of ffmpeg can write."""
    folder = tmp_path_factory.mktemp("recordings")
    sound = tone(SECONDS, hz=HZ)
    return {ending: write_media(folder / f"tone.{ending}", sound) for ending, kind in KINDS.items() if can_encode(kind)}


@pytest.mark.parametrize("ending", KINDS)
def test_every_kind_of_recording_is_decoded(recordings: dict[str, Path], ending: str) -> None:
    if ending not in recordings:
        pytest.skip(f"this build of ffmpeg cannot write {ending}")
    sound = decode(recordings[ending])
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(SECONDS * RATE, abs=0.2 * RATE)
    assert pitch(sound) == pytest.approx(HZ, abs=2)
    assert 0.2 < np.abs(sound).max() <= 1


def test_content_decides_and_not_the_name(recordings: dict[str, Path], tmp_path: Path) -> None:
    for ending, lie in (("flac", "mp3"), ("mp4", "m3u8"), ("opus", "%03d.png")):
        path = saved(tmp_path / f"lie.{lie}", recordings[ending].read_bytes())
        assert pitch(decode(path)) == pytest.approx(HZ, abs=2)


def test_the_headers_claims_are_reported(recordings: dict[str, Path]) -> None:
    with open_audio(recordings["mkv"]) as audio:
        info = audio.info
    assert (info.codec, info.sample_rate, info.channels, info.has_video) == ("aac", 44_100, 1, True)
    assert info.container == "matroska,webm"
    assert info.duration == pytest.approx(SECONDS, abs=0.1)
    assert AudioInfo(**json.loads(json.dumps(info.as_json()))) == info


def test_sound_comes_in_blocks_of_ten_seconds(tmp_path: Path) -> None:
    path = write_media(tmp_path / "long.wav", tone(24.5, rate=RATE), rate=RATE)
    with open_audio(path) as audio:
        assert [len(block) for block in audio.blocks()] == [10 * RATE, 10 * RATE, 4.5 * RATE]


def test_16_khz_mono_comes_through_bit_for_bit(tmp_path: Path) -> None:
    sound = noise(2, rate=RATE)
    path = saved(tmp_path / "plain.wav", wav_bytes(sound, RATE))
    assert np.array_equal(decode(path) * 32768, sound[0])


@pytest.mark.parametrize("ending", ["wav", "mp3", "opus"])
def test_a_later_start_gives_exactly_the_rest(tmp_path: Path, ending: str) -> None:
    path = write_media(tmp_path / f"noise.{ending}", noise(5))
    whole = decode(path)
    for start in (1, 2 * RATE + 12_345):
        assert np.array_equal(decode(path, start_s=start / RATE), whole[start:])


def test_a_start_is_rounded_to_the_nearest_sample(tmp_path: Path) -> None:
    path = saved(tmp_path / "plain.wav", wav_bytes(noise(1, rate=RATE), RATE))
    whole = decode(path)
    for start_s in (3.1e-5, 3.2e-5):
        assert np.array_equal(decode(path, start_s=start_s), whole[round(start_s * RATE) :])


def test_a_start_at_or_after_the_end_gives_nothing(recordings: dict[str, Path]) -> None:
    for start_s in (SECONDS, 1e6):
        assert len(decode(recordings["wav"], start_s=start_s)) == 0


@pytest.mark.parametrize("rate", [8_000, 11_025, 96_000, 192_000])
def test_any_sample_rate_is_brought_to_16_khz(tmp_path: Path, rate: int) -> None:
    sound = decode(saved(tmp_path / "rate.wav", wav_bytes(tone(1, hz=HZ, rate=rate), rate)))
    assert len(sound) == pytest.approx(RATE, abs=RATE / 100)
    assert pitch(sound) == pytest.approx(HZ, abs=2)


@pytest.mark.parametrize("channels", [2, 5, 8, 9, 64])
def test_any_number_of_channels_is_mixed_to_one(tmp_path: Path, channels: int) -> None:
    sound = decode(saved(tmp_path / "wide.wav", wav_bytes(tone(1, rate=RATE, channels=channels), RATE)))
    assert len(sound) == RATE
    assert pitch(sound) == pytest.approx(HZ, abs=2)


def test_channels_that_cannot_be_mixed_are_the_recordings_fault(tmp_path: Path) -> None:
    path = saved(tmp_path / "absurd.wav", wav_bytes(tone(0.1, rate=RATE, channels=255), RATE))
    with pytest.raises(UndecodableAudio, match="channels"):
        decode(path)


def test_rate_and_channels_may_change_on_the_way(tmp_path: Path) -> None:
    first = write_media(tmp_path / "first.mp3", tone(2, hz=HZ), kind="mp3")
    second = write_media(tmp_path / "second.mp3", tone(2, hz=880, rate=22_050, channels=2), rate=22_050, kind="mp3")
    tagless = second.read_bytes()[second.read_bytes().index(b"\xff") :]
    sound = decode(saved(tmp_path / "both.mp3", first.read_bytes() + tagless))
    assert len(sound) == pytest.approx(4 * RATE, abs=0.3 * RATE)
    assert pitch(sound[: 3 * RATE // 2]) == pytest.approx(HZ, abs=2)
    assert pitch(sound[-3 * RATE // 2 :]) == pytest.approx(880, abs=2)


def test_subtitles_beside_the_sound_do_no_harm(tmp_path: Path) -> None:
    sound = decode(write_film_with_subtitles(tmp_path / "film.mkv", tone(2)))
    assert pitch(sound) == pytest.approx(HZ, abs=2)


TRUNCATED = ("mp3", "ogg", "flac", "webm", "wav", "wma", "avi")  # mp4: its index is at the end


@pytest.mark.parametrize("ending", TRUNCATED)
def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(
    recordings: dict[str, Path], tmp_path: Path, ending: str
) -> None:
    if ending not in recordings:
        pytest.skip(f"this build of ffmpeg cannot write {ending}")
    content = recordings[ending].read_bytes()
    sound = decode(saved(tmp_path / "cut", content[: len(content) * 6 // 10]), repair=True)
    assert SECONDS * 0.3 * RATE < len(sound) < SECONDS * 0.75 * RATE


def test_a_film_whose_index_is_missing_cannot_be_read(recordings: dict[str, Path], tmp_path: Path) -> None:
    content = recordings["mp4"].read_bytes()
    with pytest.raises(UndecodableAudio, match="cut off"):
        decode(saved(tmp_path / "cut", content[: len(content) // 2]), repair=True)


@pytest.mark.parametrize("ending", ["mp3", "m4a", "mkv"])
def test_a_recording_damaged_in_the_middle_is_refused_unless_repair_is_asked_for(tmp_path: Path, ending: str) -> None:
    path = write_media(tmp_path / f"noise.{ending}", noise(8))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(byte ^ 0x5A for byte in content[middle : middle + 3000])
    saved(path, bytes(content))

    before: list[NDArray[np.float32]] = []
    with open_audio(path) as audio, pytest.raises(UndecodableAudio, match="damaged"):
        before.extend(audio.blocks())  # gives what it can before it raises
    repaired = decode(path, repair=True)
    assert RATE < len(before[0]) < 5 * RATE, "the sound before the damage was given"
    assert len(repaired) > 7 * RATE, "and the sound after it is read by the repair"
    assert np.array_equal(repaired[: RATE * 2], before[0][: RATE * 2])


NOT_MEDIA = {
    "nothing": b"",
    "one byte": b"\0",
    "text": b"The quick brown fox jumps over the lazy dog.\n" * 100,
    "zeros": bytes(100_000),
    "chance": np.random.default_rng(1).bytes(200_000),
    "a web page": b"<!DOCTYPE html><html><body>404 not found</body></html>" * 20,
    "a document": b"%PDF-1.7\n" + np.random.default_rng(2).bytes(20_000),
    "an archive": b"PK\x03\x04" + np.random.default_rng(3).bytes(20_000),
    "a lone header": b"RIFF\x24\0\0\0WAVEfmt ",
    "a lone tag": b"ID3\x04\0\0\0\0\0\x0a" + bytes(10),
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0" + bytes(100),
    "an empty recording": wav_bytes(silence(0), RATE),
}


@pytest.mark.parametrize("content", NOT_MEDIA.values(), ids=NOT_MEDIA)
def test_what_is_not_a_recording_is_undecodable(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UndecodableAudio) as error:
        decode(saved(tmp_path / "secret-name.mp3", content), repair=True)
    assert "secret-name" not in str(error.value)
    assert "Error" not in str(error.value)


def test_a_film_without_sound_has_no_audio_stream(tmp_path: Path) -> None:
    with pytest.raises(NoAudioStream, match="video but no sound"):
        decode(write_silent_film(tmp_path / "silent.mp4"))


def test_a_recording_that_is_gone_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileMissing) as error:
        decode(tmp_path / "gone")
    assert str(tmp_path) not in str(error.value)


def test_a_header_that_claims_a_hundred_hours_is_not_believed(tmp_path: Path) -> None:
    content = wav_bytes(tone(2, rate=RATE), RATE, claimed_bytes=100 * 3600 * 8_000)
    with open_audio(saved(tmp_path / "liar.wav", content)) as audio:
        assert sum(len(block) for block in audio.blocks()) == 2 * RATE


def test_real_sound_beyond_the_limit_is_too_long(tmp_path: Path) -> None:
    path = saved(tmp_path / "long.wav", wav_bytes(tone(40, rate=RATE), RATE))
    settings = Settings(max_audio_hours=30 / 3600)
    given: list[NDArray[np.float32]] = []
    with open_audio(path, settings=settings) as audio, pytest.raises(AudioTooLong, match="longer than"):
        given.extend(audio.blocks())
    assert sum(len(block) for block in given) <= 30 * RATE
    with pytest.raises(AudioTooLong):
        decode(path, settings=settings, start_s=29)


def test_an_hour_of_silence_in_a_small_file_stays_within_limits(tmp_path: Path) -> None:
    path = write_silence_bomb(tmp_path / "bomb.mkv", hours=1)
    assert path.stat().st_size < 1_000_000, "115 MB once decoded"
    samples, peak = 0, 0
    with open_audio(path) as audio:
        child = psutil.Process(audio._child.pid)
        for block in audio.blocks():
            samples += len(block)
            peak = max(peak, child.memory_info().rss)
    assert samples == pytest.approx(3600 * RATE, rel=0.01)
    assert peak < 128 * 1024**2
    with pytest.raises(AudioTooLong):
        decode(path, settings=Settings(max_audio_hours=0.1))


def test_a_decoder_out_of_its_memory_limit_is_an_ordinary_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "bomb.mov", mov_with_huge_table(60_000_000))
    assert path.stat().st_size < 1000
    with pytest.raises(DecoderCrashed, match="ran out of its memory limit"):
        decode(path, settings=Settings(decode_memory_mb=256))


def test_a_film_is_decoded_within_a_quarter_of_the_usual_memory(tmp_path: Path) -> None:
    path = write_media(tmp_path / "film.mkv", tone(2), kind=Kind("matroska", "flac", "mpeg4"))
    assert len(decode(path, settings=Settings(decode_memory_mb=256))) == 2 * RATE
