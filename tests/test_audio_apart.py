"""Each channel by itself: all that is said in any, once, in the order of time, and the same from any position."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import apart
from audio.apart import windows_apart
from audio.split import Samples, Window
from tests.test_audio_split import awkward_starts, either, hear_loudness, recordings, samples_of, stretches

RATE = 16_000
FIELDS = [field.name for field in fields(Window)]
Together = tuple[Window, ...]


def beside(*channels: Samples) -> Samples:
    longest = max(map(len, channels))
    return np.stack([np.pad(channel, (0, longest - len(channel))) for channel in channels], axis=1)


def chopped(sound: Samples, size: int) -> Iterator[Samples]:
    return (sound[start : start + size] for start in range(0, len(sound), size))


def split(sound: Samples, *, vad: bool = True, start_s: float = 0.0, size: int = 10 * RATE) -> list[Together]:
    found = windows_apart(chopped(sound, size), vad=vad, start_s=start_s, listen=hear_loudness)
    return [together for together in found if len(together[0].audio)]


def same(ours: Iterable[Together], others: Iterable[Together]) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for our, other in zip(ours, others, strict=True)
        for one, two in zip(our, other, strict=True)
        for name in FIELDS
    )


conversations = st.lists(recordings(), min_size=1, max_size=3).map(lambda channels: beside(*channels))


@given(sound=conversations, vad=either, start_s=awkward_starts)
@settings(max_examples=15, deadline=None)
def test_every_position_can_be_the_last_before_a_crash(sound: Samples, *, vad: bool, start_s: float) -> None:
    whole = split(sound, vad=vad, start_s=start_s)
    for done, together in enumerate(whole, 1):
        position = together[-1].position_s
        assert {window.position_s for window in together} == {position}
        rest = sound[samples_of(position) - samples_of(start_s) :]
        assert same(split(rest, vad=vad, start_s=position, size=7 * RATE + done), whole[done:])


@given(sound=conversations)
@settings(max_examples=20, deadline=None)
def test_all_that_is_said_in_a_channel_is_in_one_of_its_windows(sound: Samples) -> None:
    covered = np.zeros(sound.shape, np.int8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart, "COPY", 2.0)  # of chance sounds a single sample may be all that two channels share
        whole = split(sound)
    for together in whole:
        assert [window.start_s for window in together] == sorted(window.start_s for window in together)
        for window in together:
            start = samples_of(window.start_s)
            assert 0 < len(window.audio) <= 30 * RATE
            assert window.start_s <= window.speech_from_s
            assert 0 < window.speech_s <= len(window.audio) / RATE
            assert np.array_equal(window.audio, sound[start : start + len(window.audio), window.channel])
            covered[start : start + len(window.audio), window.channel] += 1
    assert covered.max(initial=0) <= 1
    assert not sound[covered == 0].any()


def test_no_window_holds_a_long_silence_because_somebody_else_speaks_in_it() -> None:
    one, two = stretches((5, 0.5), (15, 0), (5, 0.5)), stretches((6, 0), (12, 0.4), (7, 0))
    (together,) = split(beside(one, two))
    assert [(window.channel, round(window.start_s), round(len(window.audio) / RATE)) for window in together] == [
        (0, 0, 5), (1, 6, 13), (0, 20, 5),
    ]  # fmt: skip


def test_windows_of_all_channels_come_in_order_of_time() -> None:
    one = np.concatenate([stretches((9, 0.5 * (at % 2)), (1, 0)) for at in range(20)])
    two = np.concatenate([stretches((9, 0.5 * (1 - at % 2)), (1, 0)) for at in range(20)])
    starts = [window.start_s for together in split(beside(one, two)) for window in together]
    assert starts == sorted(starts)
    assert len(starts) == 20


@pytest.mark.parametrize("gain", [1.0, 0.3, -1.0])
@pytest.mark.parametrize("vad", [True, False])
def test_a_copy_and_a_silent_channel_are_left_out(gain: float, *, vad: bool) -> None:
    rng = np.random.default_rng(0)
    voice = (stretches((20, 0.5), (5, 0)) * rng.uniform(0.5, 1, 25 * RATE)).astype(np.float32)
    nearly = (gain * voice + rng.normal(0, 0.01, len(voice)) * (voice != 0)).astype(np.float32)
    found = split(beside(np.zeros_like(voice), voice, nearly), vad=vad)
    assert {window.channel for together in found for window in together} == {1}


@pytest.mark.parametrize("vad", [True, False])
def test_two_voices_at_once_are_both_kept(*, vad: bool) -> None:
    rng = np.random.default_rng(0)
    voices = (rng.uniform(-0.5, 0.5, (20 * RATE, 2))).astype(np.float32)
    found = split(voices, vad=vad)
    assert {window.channel for together in found for window in together} == {0, 1}


def test_silence_says_how_far_it_was_passed() -> None:
    passed = list(windows_apart(chopped(np.zeros((100 * RATE, 2), np.float32), 10 * RATE), vad=True))
    assert all(len(together) == 1 and not len(together[0].audio) for together in passed)
    positions = [together[0].position_s for together in passed]
    assert positions[-1] == 100
    assert all(before < after for before, after in pairwise(positions))
    assert list(windows_apart([], vad=True)) == []
