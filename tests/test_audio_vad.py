"""Speech is found where stock faster-whisper finds it: same network, same numbers, same rules."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faster_whisper.vad import get_speech_timestamps, get_vad_model
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio.decode import open_audio
from audio.silero import Silero
from audio.tensors import read_tensors
from audio.vad import FRAME, HYSTERESIS, THRESHOLD, Region, speech_probabilities, speech_regions

RATE = 16_000
ROOT = Path(__file__).parents[1]
SPEECH = ROOT / "demo" / "samples" / "english-minute.webm"
# Kernels of different processors round differently. A thousandth of a probability decides nothing, unless the
# probability stands that near to a threshold; then an edge of a region moves by a frame, 32 ms.
SAME = 1e-3


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    if not SPEECH.is_file():
        pytest.skip("the sample recordings are not here")
    with open_audio(SPEECH) as audio:
        return np.concatenate(list(audio.blocks()))


def stock_probabilities(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(audio, (0, FRAME - len(audio) % FRAME))
    stock: NDArray[np.float32] = get_vad_model()(padded).reshape(-1)
    return stock


def hum(length: int, seed: int = 0) -> NDArray[np.float32]:
    """A voice-like buzz that comes and goes, with noise: enough to move the network up and down."""
    times, rng = np.arange(length) / RATE, np.random.default_rng(seed)
    buzz = np.sum([np.sin(2 * np.pi * 130 * k * times) / k for k in range(1, 25)], axis=0)
    swell = np.clip(np.sin(2 * np.pi * 0.4 * times) * 2, 0, 1)
    return np.asarray(0.2 * buzz * swell + 0.003 * rng.standard_normal(length), np.float32)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 20 * FRAME, 20 * FRAME + 500, 10 * RATE])
def test_probabilities_are_those_of_stock_for_any_length(length: int) -> None:
    audio = hum(length)
    ours = speech_probabilities(audio)
    assert ours.dtype == np.float32
    assert ours.shape == (length // FRAME + 1,)
    np.testing.assert_allclose(ours, stock_probabilities(audio), atol=SAME)


def test_probabilities_are_those_of_stock_on_speech(speech: NDArray[np.float32]) -> None:
    ours = speech_probabilities(speech)
    assert ours.max() > 0.9, "it is speech"
    np.testing.assert_allclose(ours, stock_probabilities(speech), atol=SAME)


def edges(regions: list[Region]) -> list[tuple[int, int]]:
    return [(region.start, region.end) for region in regions]


def assert_same_regions(ours: list[Region], stock: list[tuple[int, int]]) -> None:
    """No edge is moved by more than a frame."""
    np.testing.assert_allclose(edges(ours), stock, rtol=0, atol=FRAME)


@st.composite
def sounds(draw: st.DrawFn) -> NDArray[np.float32]:
    """Stretches of silence, a constant, noise, a voice-like buzz, clicks and full scale, one after the other."""
    pieces = []
    for kind, length, volume, seed in draw(st.lists(st.tuples(KINDS, LENGTHS, VOLUMES, SEEDS), min_size=1, max_size=6)):
        rng = np.random.default_rng(seed)
        pieces.append(volume * np.asarray({
            "silence": np.zeros(length),
            "constant": np.ones(length),
            "noise": rng.standard_normal(length).clip(-1, 1),
            "buzz": hum(length, seed),
            "clicks": rng.random(length) < 0.001,
            "square": np.sign(np.sin(np.arange(length) * rng.uniform(0.01, 3))),
        }[kind], np.float32))  # fmt: skip
    return np.concatenate(pieces).astype(np.float32)


KINDS = st.sampled_from(["silence", "constant", "noise", "buzz", "clicks", "square"])
LENGTHS, VOLUMES, SEEDS = st.integers(0, 3 * RATE), st.sampled_from([1e-6, 1e-3, 0.05, 0.3, 1.0]), st.integers(0, 999)


@given(audio=sounds())
@settings(max_examples=60, deadline=None)
def test_no_sound_is_heard_otherwise_than_by_stock(audio: NDArray[np.float32]) -> None:
    ours, stock = speech_probabilities(audio), stock_probabilities(audio)
    np.testing.assert_allclose(ours, stock, atol=SAME)
    borderline = np.abs(np.concatenate([stock - THRESHOLD, stock - THRESHOLD + HYSTERESIS])).min() < SAME
    assert borderline or speech_regions(ours, length=len(audio)) == speech_regions(stock, length=len(audio))


def test_ten_minutes_do_not_drift_away_from_stock(speech: NDArray[np.float32]) -> None:
    """What the LSTM remembers is carried from run to run; errors must fade, not add up."""
    audio = np.tile(speech, 10)
    ours, stock = speech_probabilities(audio), stock_probabilities(audio)
    np.testing.assert_allclose(ours, stock, atol=SAME)
    assert_same_regions(speech_regions(ours, length=len(audio)), edges(speech_regions(stock, length=len(audio))))


def test_the_network_keeps_its_state_from_one_run_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = hum(5 * RATE)
    whole = speech_probabilities(audio)
    monkeypatch.setattr("audio.vad.FRAMES_PER_RUN", 37)
    np.testing.assert_allclose(speech_probabilities(audio), whole, atol=SAME)


def test_each_call_begins_from_a_fresh_state_and_leaves_its_input_alone() -> None:
    audio = hum(3 * RATE)
    before = audio.copy()
    first = speech_probabilities(audio)
    speech_probabilities(hum(RATE, seed=5))
    assert np.array_equal(speech_probabilities(audio), first)
    assert np.array_equal(audio, before)


def test_silence_is_not_speech() -> None:
    probabilities = speech_probabilities(np.zeros(10 * RATE, np.float32))
    assert probabilities.max() < 0.5
    assert speech_regions(probabilities, length=10 * RATE) == []


class Says:
    """In place of stock's network: the given probabilities."""

    def __init__(self, probabilities: NDArray[np.float32]) -> None:
        self.probabilities = probabilities

    def __call__(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.probabilities


@st.composite
def probability_tracks(draw: st.DrawFn) -> NDArray[np.float32]:
    """Runs of silence, doubt and speech, of lengths about those that the rules speak of."""
    levels = st.sampled_from([0.0, 0.1, 0.34, 0.35, 0.4, 0.49, 0.5, 0.51, 0.9, 1.0])
    runs = draw(st.lists(st.tuples(levels, st.integers(1, 70)), min_size=1, max_size=12))
    return np.concatenate([np.full(length, level, np.float32) for level, length in runs])


@given(track=probability_tracks(), tail=st.integers(0, FRAME - 1), silence=st.sampled_from([0, 100, 160, 300, 2000]),
       speech=st.sampled_from([0, 64, 250]), pad=st.sampled_from([0, 30, 400]))  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_regions_follow_the_rules_of_stock(
    track: NDArray[np.float32], tail: int, silence: int, speech: int, pad: int
) -> None:
    length = (len(track) - 1) * FRAME + tail
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faster_whisper.vad.get_vad_model", lambda: Says(track))
        stock = get_speech_timestamps(
            np.zeros(length, np.float32),
            min_silence_duration_ms=silence, min_speech_duration_ms=speech, speech_pad_ms=pad,
        )  # fmt: skip
    ours = speech_regions(track, length=length, min_silence_ms=silence, min_speech_ms=speech, pad_ms=pad)
    assert [(region.start, region.end) for region in ours] == [(one["start"], one["end"]) for one in stock]


def test_regions_of_speech_are_those_of_stock(speech: NDArray[np.float32]) -> None:
    ours = speech_regions(speech_probabilities(speech), length=len(speech))
    assert_same_regions(ours, [(one["start"], one["end"]) for one in get_speech_timestamps(speech)])
    assert ours[0].start_s == ours[0].start / RATE
    assert ours[-1].end_s == ours[-1].end / RATE


def test_importing_the_room_loads_neither_the_engine_nor_the_network() -> None:
    """A worker forks after its imports, and a session that was loaded before a fork is a trap."""
    modules = "'faster_whisper', 'ctranslate2', 'onnxruntime', 'av'"
    look = f"import sys, audio.decode, audio.split, audio.vad; print([m for m in ({modules}) if m in sys.modules])"
    done = subprocess.run((sys.executable, "-c", look), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_weights_are_found_without_importing_faster_whisper_or_onnxruntime() -> None:
    look = """
import sys, numpy, audio.vad
audio.vad.speech_probabilities(numpy.zeros(512, numpy.float32))
print([module for module in ("faster_whisper", "onnxruntime", "onnx") if module in sys.modules])
"""
    done = subprocess.run((sys.executable, "-c", look), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match="unpack"):
        read_tensors(tmp_path / "empty.onnx")
    with pytest.raises(KeyError, match="forward_basis"):
        Silero({"another.weight": np.zeros(3, np.float32)})
