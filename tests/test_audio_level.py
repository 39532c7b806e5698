"""Very quiet sound is made as loud as usual; other sound is left as it is; loud parts are named to the second."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from audio.decode import open_audio
from audio.level import gain, joined, loud_parts
from audio.split import Window, windows

RATE = 16_000
SPEECH = Path(__file__).parents[1] / "demo" / "samples" / "english.wav"
Sound = NDArray[np.float32]


def noise(seconds: float, rms: float, seed: int = 0) -> Sound:
    rng = np.random.default_rng(seed)
    return np.asarray(rms * rng.standard_normal(round(seconds * RATE)), np.float32)


@pytest.fixture(scope="module")
def speech() -> Sound:
    with open_audio(SPEECH) as audio:
        return np.concatenate(list(audio.blocks()))


def spoken(sound: Sound) -> list[Window]:
    return [window for window in windows([sound], vad=True) if len(window.audio)]


@pytest.mark.parametrize("rms", [0.0, 0.005, 0.05, 0.5])
def test_ordinary_sound_and_silence_are_left_as_they_are(rms: float) -> None:
    assert gain(noise(5, rms)) == 1.0


def test_quiet_sound_becomes_as_loud_as_speech_is() -> None:
    quiet = noise(5, 0.0005)
    assert np.sqrt(np.mean(np.square(quiet * gain(quiet)))) == pytest.approx(0.05, rel=0.2)
    assert gain(noise(5, 1e-6)) == 1000.0, "no more than 60 dB"
    assert gain(noise(0.01, 0.0005)) == 1.0


def test_a_click_does_not_make_quiet_speech_loud() -> None:
    sound = noise(30, 0.0005)
    sound[RATE : RATE + 400] = 0.9
    assert gain(sound) > 50


@pytest.mark.parametrize("softer_db", [0, 20, 40, 50])
def test_speech_is_heard_however_soft_it_is(speech: Sound, softer_db: int) -> None:
    loud, soft = spoken(speech), spoken(np.rint(speech * 10 ** (-softer_db / 20) * 32768).astype(np.float32) / 32768)
    assert len(soft) == len(loud) == 1
    assert soft[0].start_s == pytest.approx(loud[0].start_s, abs=0.1)
    assert soft[0].speech_s == pytest.approx(loud[0].speech_s, abs=0.3)
    assert np.abs(soft[0].audio).max() > 0.05, "the recogniser too hears it at the usual level"


@pytest.mark.parametrize("rms", [1e-5, 1e-4, 1e-3, 0.05])
def test_noise_is_no_speech_however_quiet_it_is(rms: float) -> None:
    assert spoken(noise(40, rms)) == []


def test_loud_parts_are_told_to_the_second_and_joined() -> None:
    sound = np.concatenate([noise(2, 1e-4), noise(3, 0.05), noise(1, 1e-4), noise(2.5, 0.05)])
    parts = loud_parts(sound)
    assert parts == [(2.0, 5.0), (6.0, 8.0)]
    assert joined(parts, gap_s=1) == [(2.0, 8.0)]
    assert loud_parts(noise(0.5, 0.05)) == []


def test_what_is_passed_over_although_it_is_loud_is_named(speech: Sound) -> None:
    """In seconds of the recording, also where it lies before, between and behind speech, and across looks of 33 s."""
    sound = np.concatenate([noise(50, 0.05), speech, noise(20, 1e-4), speech, noise(10, 0.05)])
    parts = joined([part for window in windows([sound], vad=True, start_s=100.0) for part in window.loud], gap_s=2)
    first_s, last_s = 100.0, 100.0 + len(sound) / RATE
    assert len(parts) == 2
    assert parts[0] == pytest.approx((first_s, first_s + 50), abs=2.5)
    assert parts[1] == pytest.approx((last_s - 10, last_s), abs=2.5)
