"""Channels become one: nothing cancels, one-sided sound is heard, and the mix of old is the mix of today."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from audio.decode import Selection, open_audio
from tests.media import Samples, noise, pitch, tone, wav_bytes, write_media

RATE = 16_000
Sound = NDArray[np.float64]


def decode(path: Path, samples: Samples, *, rate: int = RATE, start_s: float = 0.0, separate: bool = False) -> Sound:
    """In the numbers of 16 bits; (n), or (channels, n)."""
    path.write_bytes(wav_bytes(samples, rate))
    with open_audio(path, start_s=start_s, take=Selection(separate=separate)) as audio:
        return np.concatenate(list(audio.blocks())).T * 32768.0


def rms(sound: NDArray[np.generic]) -> float:
    return float(np.sqrt(np.mean(np.square(sound.astype(np.float64)))))


def stock(path: Path) -> Sound:
    """ffmpeg's own mix, as faster-whisper decodes."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(path)) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames]).astype(np.float64)


@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_opposite_polarity_does_not_cancel(tmp_path: Path, gain: float) -> None:
    voice = noise(4, rate=RATE)[0]
    mixed = decode(tmp_path / "wired", np.stack([voice, (-gain * voice).astype(np.int16)]))
    assert rms(mixed[1600:]) == pytest.approx(rms(voice) * (1 + gain) / 2, rel=0.02)
    assert rms(mixed[:1600]) > 0.9 * rms(voice) * (1 + gain) / 2, "from the first moment on"


def test_it_is_seen_whenever_it_begins_and_ends(tmp_path: Path) -> None:
    voice = noise(30, rate=RATE)[0]
    signs = np.where(np.arange(len(voice)) // (10 * RATE) == 1, -1, 1)
    mixed = decode(tmp_path / "turns", np.stack([voice, (voice * signs).astype(np.int16)]))
    for second in (5, 15, 25):
        assert rms(mixed[second * RATE : (second + 1) * RATE]) == pytest.approx(rms(voice), rel=0.02)
    lost = [second / 10 for second in range(300) if rms(mixed[second * 1600 : (second + 1) * 1600]) < 0.5 * rms(voice)]
    assert len(lost) <= 4, "a few tenths of a second, until it has changed its mind"


def test_one_sided_sound_and_one_after_the_other_is_heard_as_before(tmp_path: Path) -> None:
    left, right = noise(6, rate=RATE)[0], noise(6, rate=RATE, seed=1)[0]
    left[: 3 * RATE] = 0
    right[3 * RATE :] = 0
    mixed = decode(tmp_path / "sides", np.stack([left, right]))
    assert np.abs(mixed - (left.astype(float) + right) / 2).max() <= 1


@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_channels_that_do_not_cancel_are_mixed_as_ffmpeg_mixes_them(tmp_path: Path, channels: int, rate: int) -> None:
    path = write_media(tmp_path / "wide.flac", noise(3, rate=rate, channels=channels), rate=rate)
    with open_audio(path) as audio:
        mixed = np.concatenate(list(audio.blocks())) * 32768.0
    expected = stock(path)
    assert len(mixed) == len(expected)
    assert np.abs(mixed - expected).max() <= 2


@pytest.mark.parametrize("channels", [2, 3, 5, 12])
def test_of_channels_that_nobody_names_each_has_the_same_part(tmp_path: Path, channels: int) -> None:
    samples = noise(2, rate=RATE, channels=channels)
    assert np.abs(decode(tmp_path / "unnamed", samples) - samples.mean(axis=0)).max() <= 1


def test_four_channels_in_pairs_of_opposite_polarity_do_not_cancel(tmp_path: Path) -> None:
    voice = noise(3, rate=RATE)[0]
    mixed = decode(tmp_path / "quad", np.stack([voice, -voice, voice, -voice]))
    assert rms(mixed) > 0.8 * rms(voice)


def test_a_later_start_gives_exactly_the_rest(tmp_path: Path) -> None:
    voice = noise(9, rate=44_100)[0]
    signs = np.where(np.arange(len(voice)) // 70_000 % 2 == 1, -1, 1)
    samples = np.stack([voice, (voice * signs).astype(np.int16)])
    for separate in (False, True):
        whole = decode(tmp_path / "turns", samples, rate=44_100, separate=separate)
        for start in (1, RATE + 77, 5 * RATE):
            rest = decode(tmp_path / "turns", samples, rate=44_100, start_s=start / RATE, separate=separate)
            assert np.array_equal(rest, whole[..., start:])


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_apart_are_each_what_they_were(tmp_path: Path, channels: int) -> None:
    samples = noise(12, rate=RATE, channels=channels)
    apart = decode(tmp_path / "apart", samples, separate=True)
    assert apart.shape == (channels, 12 * RATE)
    assert np.array_equal(apart, samples)


def test_more_than_eight_channels_are_mixed_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "nine"
    path.write_bytes(wav_bytes(tone(1, rate=RATE, channels=9), RATE))
    with open_audio(path, take=Selection(separate=True)) as audio:
        assert pitch(np.concatenate(list(audio.blocks()))) == pytest.approx(440, abs=2)
    assert audio.info.apart is None
    assert [warning["code"] for warning in audio.info.warnings] == ["channels_mixed"]


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_where_the_number_of_channels_changes_nothing_is_lost(tmp_path: Path, first: int, second: int) -> None:
    parts = [
        write_media(tmp_path / f"{channels}.aac", tone(2, hz=hz, rate=RATE, channels=channels), rate=RATE).read_bytes()
        for channels, hz in ((first, 440), (second, 880))
    ]
    (tmp_path / "both.aac").write_bytes(b"".join(parts))
    with open_audio(tmp_path / "both.aac", take=Selection(separate=True)) as audio:
        sound = np.concatenate(list(audio.blocks())).T
    assert audio.info.apart == first
    assert pitch(sound[0, :RATE]) == pytest.approx(440, abs=2)
    assert pitch(sound[0, -RATE:]) == pytest.approx(880, abs=2)
