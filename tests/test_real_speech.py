"""What only OpenAI's own weights can show: languages, soft speech, prompts, and no text where nobody speaks."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audio.decode import open_audio
from audio.split import windows
from config import Settings
from engines import Model, open_engine
from jobs.fallback import Fallback
from jobs.recognition import Recogniser
from languages import MULTI
from model_pool import ModelPool
from tests.conftest import ROOT
from tests.real_models import cached
from transcript import DecodeOptions, Language, Segment

RATE = 16_000
SAMPLES = ROOT / "demo" / "samples"
DETECT = DecodeOptions()
NUMBERS = list("1234567")
WORDS = dict(zip("one two three four five six seven".split(), NUMBERS, strict=True))  # it writes either
pytestmark = pytest.mark.timeout(300)
Sound = NDArray[np.float32]
Make = Callable[[float], Sound]


@pytest.fixture(scope="module")
def settings(real_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return cached(device="cpu", celery_concurrency=1, data_dir=tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def pool(settings: Settings) -> ModelPool[Model]:
    return ModelPool(open_engine(settings), size=1, max_size=1)


def sound_of(name: str) -> Sound:
    with open_audio(SAMPLES / name) as audio:
        return np.concatenate(list(audio.blocks()))


def pause(seconds: float) -> Sound:
    return np.zeros(round(seconds * RATE), np.float32)


def transcribed(
    pool: ModelPool[Model], sound: Sound, options: DecodeOptions = DETECT, size: str = "base"
) -> list[Segment]:
    asked = None if options.language in (None, MULTI) else Language(options.language or "", 1.0)
    ours = Recogniser(Fallback(pool, size), options, language=asked)
    found = [window for window in windows([sound], vad=options.vad_filter) if len(window.audio)]
    return ours.recognise(found)


def numbers(segments: list[Segment]) -> list[str]:
    words = re.findall(r"[a-z]+|\d", "".join(segment.text for segment in segments).lower())
    return [WORDS.get(word, word) for word in words]


def test_a_recording_in_two_languages_is_transcribed_in_both(pool: ModelPool[Model]) -> None:
    english = sound_of("english.wav")
    sound = np.concatenate([english, pause(1), sound_of("spanish.webm")])
    segments = transcribed(pool, sound, DecodeOptions(language=MULTI, languages=("en", "es")))
    turn_s = len(english) / RATE
    assert [one.language for one in segments] == ["en" if one.start < turn_s else "es" for one in segments]
    assert {one.language for one in segments} == {"en", "es"}
    assert numbers([one for one in segments if one.language == "en"]) == NUMBERS
    assert "gracias" in "".join(one.text for one in segments if one.language == "es")


@pytest.mark.parametrize("size", ["base", "tiny.en"])
def test_speech_50_db_softer_says_the_same(pool: ModelPool[Model], size: str) -> None:
    soft = np.rint(sound_of("english.wav") * 10 ** (-50 / 20) * 32768).astype(np.float32) / 32768
    assert numbers(transcribed(pool, soft, size=size)) == NUMBERS


def test_a_prompt_longer_than_the_model_takes_costs_no_text(pool: ModelPool[Model]) -> None:
    names = " ".join(f"Name{number}" for number in range(400))
    options = DecodeOptions(language="en", initial_prompt=names, hotwords=names)
    assert numbers(transcribed(pool, sound_of("english.wav"), options))[:7] == NUMBERS


def still(seconds: float) -> Sound:
    return np.asarray(1e-4 * np.random.default_rng(0).standard_normal(round(seconds * RATE)), np.float32)


def hum(seconds: float) -> Sound:
    times = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(0.1 * np.sin(2 * np.pi * 50 * times) + 0.05 * np.sin(2 * np.pi * 150 * times), np.float32)


def hiss(seconds: float) -> Sound:
    return np.asarray(0.05 * np.random.default_rng(1).standard_normal(round(seconds * RATE)), np.float32)


def rumble(count: int) -> Sound:
    """Brown noise without its slow drift, up to 1."""
    drifting = np.cumsum(np.random.default_rng(2).standard_normal(count))
    return np.asarray((drifting - np.convolve(drifting, np.full(2000, 1 / 2000), "same")) / 150, np.float32)


def traffic(seconds: float) -> Sound:
    """A street's rumble, and a car every three seconds."""
    random, count = np.random.default_rng(3), round(seconds * RATE)
    near = np.full(count, 0.05)
    for start in random.integers(0, count, round(seconds / 3)):
        length = min(random.integers(2 * RATE, 6 * RATE), count - start)
        near[start : start + length] += np.hanning(length) * random.uniform(0.1, 0.4)
    return np.asarray(near * rumble(count), np.float32)


def applause(seconds: float) -> Sound:
    """Sixty claps a second: short bursts of noise."""
    random, fading = np.random.default_rng(4), np.exp(-np.arange(800) / 120)
    found = np.zeros(round(seconds * RATE), np.float32)
    for start in random.integers(0, len(found) - 800, round(seconds * 60)):
        found[start : start + 800] += fading * random.standard_normal(800) * random.uniform(0.02, 0.15)
    return found


def hold_music(seconds: float) -> Sound:
    """Two chords in turns, and a melody by chance, a note every 0.4 s."""
    random, times = np.random.default_rng(5), np.arange(round(0.4 * RATE)) / RATE
    scale = 261.6 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)

    def beat(number: int) -> Sound:
        note, chord = 2 * random.choice(scale), scale[[0, 2, 4]] if number // 8 % 2 else scale[[3, 5, 7]]
        melody = sum(np.sin(2 * np.pi * note * part * times) / part for part in (1, 2, 3))
        under = np.sin(2 * np.pi * chord[:, None] * times).sum(axis=0)
        return np.asarray(0.15 * np.exp(-3 * times) * melody + 0.05 * under, np.float32)

    return np.concatenate([beat(number) for number in range(round(seconds / 0.4))])


@pytest.mark.parametrize("make", [pause, still, hum, hiss, traffic, applause, hold_music])
def test_nothing_is_invented_in_ten_minutes_where_nobody_speaks(pool: ModelPool[Model], make: Make) -> None:
    assert transcribed(pool, make(600.0)) == []


@pytest.mark.parametrize("make", [pause, still, hum, traffic, applause, hold_music])
def test_nothing_is_invented_where_nobody_speaks_and_no_detector_listens(pool: ModelPool[Model], make: Make) -> None:
    assert transcribed(pool, make(30.0), DecodeOptions(vad_filter=False)) == []


def test_the_silence_behind_the_last_word_is_not_decoded_again(pool: ModelPool[Model]) -> None:
    sound = sound_of("english.wav")
    (window,) = [one for one in windows([np.concatenate([sound, pause(3)])], vad=True) if len(one.audio)]
    asked = list[str]()
    with pool.lease("base") as lease:
        link: Any = vars(lease.model)["_links"][0]
        ask, link.ask_about = link.ask_about, lambda *given, **more: (asked.append(given[1]), ask(*given, **more))[1]
        try:
            (segments,) = lease.model.transcribe(
                [window.audio], replace(DETECT, language="en", temperature=0.0), [window.speech]
            )
        finally:
            link.ask_about = ask
    assert numbers(list(segments)) == NUMBERS
    assert asked == ["generate"], "one pass"
