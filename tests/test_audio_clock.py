"""Every time is the video's own: what begins late begins late, gaps in the time stamps are silence, lies are not."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from audio.decode import open_audio
from audio.split import windows
from config import Settings
from tests.media import Samples, Track, noise, silence, tone, write_media, write_tracks

RATE = 16_000
EXACT_S = 0.08  # a film's pictures and sound may lie so far apart
MUXERS = {"mp4": "aac", "mov": "aac", "matroska": "libopus", "webm": "libopus", "mpegts": "aac"}
Sound = NDArray[np.float32]


def decode(path: Path, *, start_s: float = 0.0, repair: bool = False, settings: Settings | None = None) -> Sound:
    with open_audio(path, start_s=start_s, repair=repair, settings=settings) as audio:
        return np.concatenate([np.zeros(0, np.float32), *audio.blocks()])


def beeps(*seconds: float, length_s: float) -> Samples:
    """Silence, and a beep of 0.2 s at each of the seconds."""
    sound = silence(length_s, rate=48_000)
    for second in seconds:
        at = round(second * 48_000)
        sound[:, at : at + 9_600] = tone(0.2, rate=48_000)
    return sound


def heard_at(sound: Sound) -> list[float]:
    """The seconds at which beeps begin."""
    loud = np.abs(sound) > 0.1
    near = np.flatnonzero(loud)
    return [round(at / RATE, 2) for at, gap in zip(near, np.diff(near, prepend=-RATE), strict=True) if gap > 0.1 * RATE]


def is_silent(sound: Sound) -> bool:
    return float(np.abs(sound).max(initial=0)) < 1e-3


@pytest.mark.parametrize("muxer", MUXERS)
def test_sound_that_begins_late_in_a_film_begins_late(tmp_path: Path, muxer: str) -> None:
    late = Track(beeps(0.5, 2, length_s=3), gaps=((0, 5.0),))
    path = write_tracks(tmp_path / "late", late, muxer=muxer, codec=MUXERS[muxer], film_s=9)
    sound = decode(path)
    assert heard_at(sound) == pytest.approx([5.5, 7], abs=EXACT_S)
    assert is_silent(sound[: 5 * RATE])
    with open_audio(path) as audio:
        assert audio.info.duration == pytest.approx(8, abs=1.1), "where the sound or the film ends"


@pytest.mark.parametrize("muxer", MUXERS)
def test_a_gap_in_the_stamps_is_silence(tmp_path: Path, muxer: str) -> None:
    track = Track(beeps(0.5, 2.5, length_s=4), gaps=((2, 20.0),))
    sound = decode(write_tracks(tmp_path / "gap", track, muxer=muxer, codec=MUXERS[muxer]))
    assert heard_at(sound) == pytest.approx([0.5, 22.5], abs=EXACT_S)
    assert len(sound) / RATE == pytest.approx(24, abs=0.15)


@pytest.mark.parametrize("muxer", ["matroska", "mpegts"])
def test_packets_that_were_lost_one_by_one_do_not_add_up(tmp_path: Path, muxer: str) -> None:
    """Each is shorter than what is tolerated."""
    losses = tuple((second / 4, 0.06) for second in range(1, 40))
    track = Track(beeps(0.2, 9.9, length_s=11), gaps=losses)
    sound = decode(write_tracks(tmp_path / "lossy", track, muxer=muxer, codec="aac"))
    assert heard_at(sound) == pytest.approx([0.2, 9.9 + 39 * 0.06], abs=2 * EXACT_S)


@pytest.mark.parametrize(("muxer", "codec"), [("matroska", "libopus"), ("mp4", "aac"), ("mpegts", "aac")])
def test_what_begins_long_after_zero_was_cut_out_and_begins_with_its_first_moment(
    tmp_path: Path, muxer: str, codec: str
) -> None:
    for film_s in (0, 3):
        gaps = ((0.0, 3600.0),)
        track = Track(beeps(0.5, length_s=2), gaps=gaps)
        path = write_tracks(tmp_path / "cut", track, muxer=muxer, codec=codec, film_s=film_s, film_gaps=gaps)
        assert heard_at(decode(path)) == pytest.approx([0.5], abs=EXACT_S)


def test_a_format_that_counts_from_zero_may_begin_late_without_a_film(tmp_path: Path) -> None:
    """As a browser plays it. A transport stream has no zero: it begins where it begins."""
    track = Track(beeps(0.5, length_s=2), gaps=((0, 5.0),))
    for muxer, at in (("webm", 5.5), ("mp4", 5.5), ("mpegts", 0.5)):
        path = write_tracks(tmp_path / muxer, track, muxer=muxer, codec=MUXERS[muxer])
        assert heard_at(decode(path)) == pytest.approx([at], abs=EXACT_S)


@pytest.mark.parametrize("ending", ["m4a", "webm", "mkv", "ogg", "mp3", "wma", "avi", "mp4", "opus"])
def test_what_an_encoder_puts_before_the_sound_is_no_delay(tmp_path: Path, ending: str) -> None:
    path = write_media(tmp_path / f"plain.{ending}", beeps(0.5, 2.5, length_s=3), rate=48_000)
    sound = decode(path)
    assert heard_at(sound) == pytest.approx([0.5, 2.5], abs=0.06)
    assert len(sound) / RATE == pytest.approx(3, abs=0.12)


def test_hours_that_only_a_stamp_claims_are_left_out(tmp_path: Path) -> None:
    """The file is small: what it says of hours is not believed, and the sound after it is not lost."""
    track = Track(beeps(0.5, 2.5, length_s=4), gaps=((2, 5 * 3600.0),))
    sound = decode(write_tracks(tmp_path / "liar", track, muxer="matroska"))
    assert heard_at(sound) == pytest.approx([0.5, 2.5], abs=EXACT_S)


def test_gaps_together_are_bounded_too(tmp_path: Path) -> None:
    gaps = tuple((float(at), 1000.0) for at in range(1, 10))
    sound = decode(write_tracks(tmp_path / "liar", Track(beeps(0.5, 9.5, length_s=11), gaps=gaps), muxer="matroska"))
    assert 3011 <= len(sound) / RATE <= 3612, "three of nine thousand seconds"
    assert len(heard_at(sound)) == 2


def test_silence_never_makes_a_recording_too_long(tmp_path: Path) -> None:
    track = Track(beeps(0.5, 2.5, length_s=4), gaps=((2, 300.0),))
    path = write_tracks(tmp_path / "long", track, muxer="matroska")
    assert heard_at(decode(path, settings=Settings(max_audio_hours=0.05))) == pytest.approx([0.5, 2.5], abs=EXACT_S)
    assert heard_at(decode(path)) == pytest.approx([0.5, 302.5], abs=EXACT_S)


def test_a_duration_that_contradicts_a_long_gap_is_believed(tmp_path: Path) -> None:
    track = Track(beeps(0.5, 2.5, length_s=4), gaps=((2, 600.0),))
    content = bytearray(write_tracks(tmp_path / "honest", track, muxer="matroska").read_bytes())
    at = content.index(b"\x44\x89\x88") + 3  # Duration, in ms
    content[at : at + 8] = np.array(4000.0, ">f8").tobytes()
    (tmp_path / "short").write_bytes(bytes(content))
    assert heard_at(decode(tmp_path / "honest"))[1] == pytest.approx(602.5, abs=EXACT_S)
    assert heard_at(decode(tmp_path / "short"))[1] == pytest.approx(2.5, abs=EXACT_S)


def test_a_joined_transport_stream_goes_on_where_its_film_jumps_too(tmp_path: Path) -> None:
    """A hole in the sound alone is a hole; where picture and sound jump together, a piece was cut out or joined."""
    track = Track(beeps(0.5, 12.5, length_s=14), gaps=((12, 100.0),))
    holed = write_tracks(tmp_path / "holed", track, muxer="mpegts", film_s=115)
    joined = write_tracks(tmp_path / "joined", track, muxer="mpegts", film_s=14, film_gaps=((12, 100.0),))
    assert heard_at(decode(holed)) == pytest.approx([0.5, 112.5], abs=EXACT_S)
    assert heard_at(decode(joined)) == pytest.approx([0.5, 12.5], abs=EXACT_S)


@pytest.mark.parametrize(("ending", "muxer"), [("ogg", "ogg"), ("ts", "mpegts"), ("mp3", "mp3")])
def test_recordings_one_after_the_other_lose_nothing_and_gain_nothing(tmp_path: Path, ending: str, muxer: str) -> None:
    """Stamps begin anew in the middle."""
    codec = {"ogg": "libopus", "mpegts": "aac", "mp3": "libmp3lame"}[muxer]
    one = write_tracks(tmp_path / "one", Track(beeps(0.5, length_s=3)), muxer=muxer, codec=codec).read_bytes()
    two = write_tracks(tmp_path / "two", Track(beeps(1.5, length_s=3)), muxer=muxer, codec=codec).read_bytes()
    path = tmp_path / f"both.{ending}"
    path.write_bytes(one + two)
    assert heard_at(decode(path, repair=True)) == pytest.approx([0.5, 4.5], abs=0.15)


def test_stamps_that_overlap_lose_nothing_and_a_later_gap_makes_up_for_it(tmp_path: Path) -> None:
    """Half a second was sent twice, and two seconds later one was lost."""
    track = Track(beeps(0.5, 2.5, 5.5, length_s=7), gaps=((2, -0.5), (4, 1.0)))
    sound = decode(write_tracks(tmp_path / "overlap", track, muxer="nut", codec="pcm_s16le"))
    assert heard_at(sound) == pytest.approx([0.5, 2.5, 6.0], abs=EXACT_S)


@pytest.mark.parametrize("muxer", ["matroska", "mp4", "mpegts"])
def test_a_later_start_gives_exactly_the_rest_also_within_silence(tmp_path: Path, muxer: str) -> None:
    track = Track(noise(6, rate=48_000), gaps=((0, 3.0), (2, 40.0), (4, 0.2)))
    path = write_tracks(tmp_path / "gaps", track, muxer=muxer, codec="aac", film_s=50)
    whole = decode(path)
    for start in (1, 2 * RATE + 7, 3 * RATE, 20 * RATE + 12_345, len(whole) - 100):
        for repair in (False, True):
            assert np.array_equal(decode(path, start_s=start / RATE, repair=repair), whole[start:])


def test_sound_that_was_damaged_in_a_film_keeps_its_time(tmp_path: Path) -> None:
    """What cannot be read becomes silence; what follows is not early."""
    path = write_tracks(
        tmp_path / "film", Track(beeps(0.5, 18.5, length_s=20) + noise(20, rate=48_000) // 40), muxer="mp4"
    )
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + 60_000
    content[middle : middle + 20_000] = b"\xff" * 20_000
    path.write_bytes(bytes(content))
    sound = decode(path, repair=True)
    assert heard_at(sound)[-1] == pytest.approx(18.5, abs=0.1)


def test_silence_of_a_gap_costs_neither_windows_nor_time(tmp_path: Path) -> None:
    def listen(sound: Sound) -> Sound:
        assert sound.any(), "nobody has to listen to what was never recorded"
        return np.ones(len(sound) // 512 + 1, np.float32)

    track = Track(beeps(0.5, 2.5, length_s=4), gaps=((2, 3000.0),))
    path = write_tracks(tmp_path / "gap", track, muxer="matroska")
    for vad in (True, False):
        with open_audio(path) as audio:
            cut = [window for window in windows(audio.blocks(), vad=vad, listen=listen) if len(window.audio)]
        assert len(cut) <= 6
        assert cut[-1].position_s == pytest.approx(3004, abs=1)
