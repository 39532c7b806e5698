"""Windows: all the speech, once, in pieces the recogniser can take, and the same again from any position."""

import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio.decode import open_audio
from audio.split import Window, windows
from audio.vad import FRAME, speech_probabilities, speech_regions
from errors import UndecodableAudio
from tests.media import noise, write_media

RATE = 16_000
SPEECH = Path(__file__).parents[1] / "demo" / "samples" / "english-minute.webm"
FIELDS = [field.name for field in fields(Window)]
Samples = NDArray[np.float32]


def hear_loudness(sound: Samples) -> Samples:
    """Speech is whatever is not zero: a VAD that is never wrong. Louder is likelier."""
    frames = np.pad(np.abs(sound), (0, FRAME - len(sound) % FRAME)).reshape(-1, FRAME)
    return np.where(frames.any(axis=1), 0.5 + frames.mean(axis=1) / 2, 0.01).astype(np.float32)


def chopped(sound: Samples, size: int) -> Iterator[Samples]:
    return (sound[start : start + size] for start in range(0, len(sound), size))


def split(sound: Samples, *, vad: bool, start_s: float = 0.0, size: int = 10 * RATE) -> list[Window]:
    """The windows with sound; what only says how far a silence was passed is left out."""
    found = windows(chopped(sound, size), vad=vad, start_s=start_s, listen=hear_loudness)
    return [window for window in found if len(window.audio)]


def samples_of(seconds: float) -> int:
    return round(seconds * RATE)


def same(ours: Iterable[Window], others: Iterable[Window]) -> bool:
    pairs = zip(ours, others, strict=True)
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for one, two in pairs for name in FIELDS)


@st.composite
def recordings(draw: st.DrawFn) -> Samples:
    """Minutes of bursts and silences of lengths about those that the rules speak of, off the grid of frames."""
    lengths = st.one_of(st.integers(1, RATE), st.integers(1, 8 * RATE), st.integers(25 * RATE, 40 * RATE))
    parts = draw(st.lists(st.tuples(lengths, lengths), max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    pieces = [np.zeros(draw(st.integers(0, 3)) * RATE, np.float32)]
    for speech, silence in parts:
        loudness = np.repeat(rng.uniform(0.05, 0.9, speech // 1600 + 1), 1600)[:speech]
        pieces += [(loudness * rng.uniform(0.5, 1, speech)).astype(np.float32), np.zeros(silence, np.float32)]
    return np.concatenate(pieces)


awkward_starts = st.sampled_from([0.0, 0.1 + 0.2, 1 / 3, 12345.678901, 3599.99996875, 86399.0000625])
either = st.booleans()


@given(sound=recordings(), vad=either, start_s=awkward_starts)
@settings(max_examples=20, deadline=None)
def test_every_window_can_be_the_last_before_a_crash(sound: Samples, *, vad: bool, start_s: float) -> None:
    """Resumed at `position_s`, with nothing but the sound from there on, exactly the windows to come are cut."""
    whole = split(sound, vad=vad, start_s=start_s)
    for done, window in enumerate(whole, 1):
        rest = sound[samples_of(window.position_s) - samples_of(start_s) :]
        assert same(split(rest, vad=vad, start_s=window.position_s, size=7 * RATE + done), whole[done:])


@given(sound=recordings(), vad=either, size=st.integers(300, 40 * RATE))
@settings(max_examples=20, deadline=None)
def test_the_size_of_the_blocks_changes_nothing(sound: Samples, *, vad: bool, size: int) -> None:
    whole = list(windows([sound], vad=vad, listen=hear_loudness))
    blocks = [np.zeros(0, np.float32), *chopped(sound, size), np.zeros(0, np.float32)]
    assert same(windows(blocks, vad=vad, listen=hear_loudness), whole)


@given(sound=recordings(), vad=either)
@settings(max_examples=25, deadline=None)
def test_windows_are_pieces_of_the_recording_in_order_and_never_too_long(sound: Samples, *, vad: bool) -> None:
    cut = split(sound, vad=vad)
    for window in cut:
        start = samples_of(window.start_s)
        assert 0 < len(window.audio) <= 30 * RATE
        piece = sound[start : start + len(window.audio)]
        assert np.allclose(window.audio, piece * (window.audio.max() / (piece.max() or 1)))  # louder where it is quiet
        assert start + len(window.audio) <= samples_of(window.position_s) <= len(sound)
        assert window.position_s * RATE == pytest.approx(round(window.position_s * RATE), abs=1e-6)
        assert 0 < window.speech_s <= len(window.audio) / RATE
    for before, after in pairwise(cut):
        assert before.position_s <= after.start_s, "no overlap, and never before the position"


@given(sound=recordings(), vad=either)
@settings(max_examples=25, deadline=None)
def test_all_speech_is_in_a_window(sound: Samples, *, vad: bool) -> None:
    covered = np.zeros(len(sound), bool)
    for window in split(sound, vad=vad):
        start = samples_of(window.start_s)
        covered[start : start + len(window.audio)] = True
    missed = sound[~covered]
    assert np.count_nonzero(missed) < (1 if vad else FRAME)


def stretches(*parts: tuple[float, float]) -> Samples:
    """(seconds, loudness) one after the other."""
    return np.concatenate([np.full(round(seconds * RATE), loudness, np.float32) for seconds, loudness in parts])


def test_a_long_silence_says_how_far_it_was_passed() -> None:
    sound = np.zeros(10 * 60 * RATE, np.float32)
    passed = list(windows(chopped(sound, 10 * RATE), vad=True, listen=hear_loudness))
    assert not any(len(window.audio) for window in passed)
    positions = [window.position_s for window in passed]
    assert positions == sorted(positions)
    assert positions[-1] == 600
    assert max(after - before for before, after in pairwise([0.0, *positions])) <= 33


def test_silence_gives_no_window() -> None:
    assert split(stretches((100, 0)), vad=True) == []
    assert split(np.zeros(0, np.float32), vad=True) == []
    assert split(np.zeros(0, np.float32), vad=False) == []


def test_silence_before_speech_is_left_out_but_for_a_little() -> None:
    (window,) = split(stretches((100, 0), (5, 0.5), (100, 0)), vad=True)
    assert window.start_s == pytest.approx(99.6, abs=0.05)
    assert len(window.audio) / RATE == pytest.approx(5.8, abs=0.1)
    assert window.speech_s == pytest.approx(5, abs=0.1)


def test_phrases_share_a_window_over_short_pauses_and_not_over_long_ones() -> None:
    cut = split(stretches((5, 0.5), (3, 0), (5, 0.5), (6, 0), (5, 0.5)), vad=True)
    assert [round(len(window.audio) / RATE) for window in cut] == [13, 5]


def test_a_window_ends_at_the_last_pause_that_fits() -> None:
    cut = split(stretches((20, 0.5), (0.6, 0), (8, 0.5), (0.6, 0), (8, 0.5)), vad=True)
    assert [round(len(window.audio) / RATE, 1) for window in cut] == [28.9, 8.3]
    assert cut[0].position_s == cut[1].start_s, "the pause is shared"


def test_long_speech_is_cut_where_it_is_weakest() -> None:
    cut = split(stretches((25, 0.5), (0.1, 0.1), (20, 0.5)), vad=True)
    assert len(cut) == 2
    assert 25 <= cut[0].position_s <= 25.1


def test_a_window_is_not_left_half_empty_because_the_next_phrase_is_long() -> None:
    cut = split(stretches((3, 0.5), (1, 0), (21, 0.5), (0.1, 0.1), (9, 0.5)), vad=True)
    assert 25 <= cut[0].position_s <= 25.1
    cut = split(stretches((18, 0.5), (1, 0), (21, 0.5)), vad=True)
    assert cut[0].position_s == pytest.approx(18.4, abs=0.1), "but a fuller one ends at the pause"


def test_a_word_at_the_edge_of_what_was_looked_at_is_not_cut() -> None:
    for start in np.arange(31.5, 34, 0.25):
        (window,) = split(stretches((start, 0), (1, 0.5), (10, 0)), vad=True)
        assert window.start_s <= start - 0.35, "with what precedes it"
        assert window.start_s + len(window.audio) / RATE >= start + 1


def test_without_vad_everything_is_covered_and_cut_where_it_is_quietest() -> None:
    sound = stretches((26, 0.5), (0.1, 0.01), (20, 0.5), (60, 0))
    cut = split(sound, vad=False)
    assert 26 <= cut[0].position_s <= 26.1
    heard = np.concatenate([window.audio for window in cut])
    assert np.array_equal(heard, sound[: len(heard)])
    assert not sound[len(heard) :].any(), "what was never recorded makes no window"
    assert [window.speech_s for window in cut] == [len(window.audio) / RATE for window in cut]


def test_positions_are_whole_milliseconds_so_that_rounding_does_no_harm() -> None:
    rng = np.random.default_rng(0)
    sound = (rng.uniform(0.05, 0.5, 200 * RATE) * (np.arange(200 * RATE) // 50_000 % 4 > 0)).astype(np.float32)
    for vad in (False, True):
        positions = [window.position_s for window in split(sound, vad=vad)][:-1]
        assert len(positions) >= 5
        assert positions == [round(position, 3) for position in positions]


@pytest.mark.parametrize("vad", [False, True])
def test_a_long_stream_is_cut_in_the_memory_of_45_seconds(*, vad: bool) -> None:
    block = stretches((7, 0.5), (3, 0))

    def hear(sound: Samples) -> Samples:
        return (sound[::FRAME] != 0).astype(np.float32) if len(sound) % FRAME else np.append(sound[::FRAME], 0)

    def stream() -> Iterator[Samples]:
        return (block.copy() for _ in range(360))

    tracemalloc.start()
    count = sum(1 for _ in windows(stream(), vad=vad, listen=hear))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count >= 120, "an hour"
    held, handed_out = 45 * RATE * 4, 2 * 30 * RATE * 4  # the last window lives until the next one is made
    assert peak < held + handed_out + 2_000_000, "and some room to calculate the energy"


def test_with_the_real_network_speech_resumes_exactly_too() -> None:
    if not SPEECH.is_file():
        pytest.skip("the sample recordings are not here")
    with open_audio(SPEECH) as audio:
        whole = list(windows(audio.blocks(), vad=True))
    assert len(whole) >= 2
    for done, window in enumerate(whole, 1):
        with open_audio(SPEECH, start_s=window.position_s) as audio:
            assert same(windows(audio.blocks(), vad=True, start_s=window.position_s), whole[done:])


def test_what_the_real_network_hears_in_the_whole_is_in_the_windows() -> None:
    if not SPEECH.is_file():
        pytest.skip("the sample recordings are not here")
    with open_audio(SPEECH) as audio:
        sound = np.concatenate([*audio.blocks(), np.zeros(50 * RATE, np.float32)])
    sound = np.concatenate([sound, np.roll(sound, 1234)])
    covered = np.zeros(len(sound), bool)
    for window in windows(chopped(sound, 10 * RATE), vad=True):
        start = samples_of(window.start_s)
        covered[start : start + len(window.audio)] = True
    heard = speech_regions(speech_probabilities(sound), length=len(sound), min_silence_ms=100, pad_ms=0)
    missed = sum(int((~covered[region.start : region.end]).sum()) for region in heard)
    assert missed <= 0.005 * sum(region.end - region.start for region in heard)


def test_a_damaged_recording_goes_on_where_strict_decoding_stopped(tmp_path: Path) -> None:
    """What an attempt does: strict, then a repair from the last position; the windows before are not made again."""
    path = write_media(tmp_path / "noise.aac", noise(60, rate=RATE), rate=RATE)
    content = bytearray(path.read_bytes())
    damage = len(content) * 7 // 10
    content[damage : damage + 3000] = bytes(3000)
    path.write_bytes(bytes(content))

    done: list[Window] = []
    with open_audio(path) as audio, pytest.raises(UndecodableAudio):
        done.extend(windows(audio.blocks(), vad=False))
    position = done[-1].position_s
    with open_audio(path, repair=True) as audio:
        whole = list(windows(audio.blocks(), vad=False))
    with open_audio(path, start_s=position, repair=True) as audio:
        assert same([*done, *windows(audio.blocks(), vad=False, start_s=position)], whole)
