"""Which of several sound tracks is heard: the one asked for, else the one that somebody speaks in. All are listed."""

import json
from collections.abc import Mapping
from io import BytesIO, FileIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from audio import media, tracks
from audio.decode import AudioInfo, Selection, open_audio
from audio.sink import Options
from errors import CodecMissing, MediaError, NoSuchTrack
from tests.media import Kind, Track, noise, pitch, silence, tone, wav_bytes, write_media, write_tracks

RATE = 16_000
LOW, MIDDLE, HIGH = 330, 550, 880  # Hz; one a track


def tones(*given: Mapping[str, object], seconds: float = 3) -> list[Track]:
    notes = zip((LOW, MIDDLE, HIGH), given, strict=False)
    return [Track(tone(seconds, hz=hz, rate=48_000), **what) for hz, what in notes]  # type: ignore[arg-type]


def film(path: Path, *given: Track, muxer: str = "matroska", film_s: float = 3) -> Path:
    return write_tracks(path / "film", *given, muxer=muxer, film_s=film_s)


def heard(path: Path, **what: object) -> tuple[float, AudioInfo]:
    """The pitch of what is decoded."""
    with open_audio(path, take=Selection(**what)) as audio:  # type: ignore[arg-type]
        sound: NDArray[np.float32] = np.concatenate(list(audio.blocks()))
    return pitch(sound), audio.info


THREE = ({"language": "eng"}, {"language": "ger", "title": "Kommentar"}, {"language": "fre"})


@pytest.mark.parametrize("muxer", ["matroska", "mp4", "mpegts"])
def test_all_tracks_are_listed(tmp_path: Path, muxer: str) -> None:
    _, info = heard(film(tmp_path, *tones(*THREE), muxer=muxer))
    assert [(track["index"], track["language"], track["channels"]) for track in info.tracks] == [
        (0, "en", 1), (1, "de", 1), (2, "fr", 1),
    ]  # fmt: skip
    assert {frozenset(track) for track in info.tracks} == {
        frozenset(("index", "language", "title", "channels", "default"))
    }
    assert info.tracks[1]["title"] == ("Kommentar" if muxer == "matroska" else None)
    assert "warnings" not in info.as_json(), "they are the result's"


def test_a_track_of_an_unknown_language_and_a_hostile_title_is_listed_harmlessly(tmp_path: Path) -> None:
    title = "a\nb\x1b[31m\u202e" + "\U0001f600" * 500
    made = [Track(tone(1, rate=48_000), language="tlh", title=title) for _ in range(40)]
    with open_audio(film(tmp_path, *made)) as audio:
        listed = audio.info.tracks
    assert len(listed) == 32
    assert listed[0]["language"] == "tlh"
    assert listed[0]["title"].startswith("a b [31m")
    assert len(listed[0]["title"]) <= 80
    assert json.dumps(listed).isascii()


ASKED = {"0": LOW, "2": HIGH, "en": LOW, "eng": LOW, "English": LOW, "de": MIDDLE, "ger": MIDDLE, "deu": MIDDLE}
ASKED |= {"DE": MIDDLE, "fr-FR": HIGH}


@pytest.mark.parametrize(("asked", "hz"), ASKED.items())
def test_a_track_is_chosen_by_number_or_language(tmp_path: Path, asked: str, hz: int) -> None:
    found, info = heard(film(tmp_path, *tones(*THREE)), track=asked)
    assert found == pytest.approx(hz, abs=2)
    assert info.track == (LOW, MIDDLE, HIGH).index(hz)
    assert info.warnings == []


def test_of_two_in_one_language_the_marked_one_is_chosen(tmp_path: Path) -> None:
    both = tones({"language": "eng"}, {"language": "eng", "default": True})
    assert heard(film(tmp_path, *both), track="en")[0] == pytest.approx(MIDDLE, abs=2)


@pytest.mark.parametrize("asked", ["3", "99", "es", "-1", "Klingon", "--repair"])
def test_a_track_that_is_not_there_is_a_final_error_that_lists_those_that_are(tmp_path: Path, asked: str) -> None:
    with pytest.raises(NoSuchTrack, match=r"0 \(en\); 1 \(de, Kommentar\); 2 \(fr\)"):
        heard(film(tmp_path, *tones(*THREE)), track=asked)
    assert not NoSuchTrack.retryable


def test_a_plain_wav_file_has_one_track_without_a_language(tmp_path: Path) -> None:
    (tmp_path / "plain.wav").write_bytes(wav_bytes(tone(1, hz=LOW, rate=RATE), RATE))
    found, info = heard(tmp_path / "plain.wav", track="0")
    assert found == pytest.approx(LOW, abs=2)
    assert heard(tmp_path / "plain.wav")[1] == info
    with pytest.raises(NoSuchTrack, match="without a language"):
        heard(tmp_path / "plain.wav", track="de")


def test_the_marked_track_comes_before_the_language_asked_for_and_that_before_the_first(tmp_path: Path) -> None:
    unmarked, marked = tones(*THREE), tones(*THREE[:2], {"language": "fre", "default": True})
    assert heard(film(tmp_path, *marked), language="de")[0] == pytest.approx(HIGH, abs=2)
    assert heard(film(tmp_path, *unmarked), language="de")[0] == pytest.approx(MIDDLE, abs=2)
    assert heard(film(tmp_path, *unmarked), language="es")[0] == pytest.approx(LOW, abs=2)
    assert heard(film(tmp_path, *unmarked))[0] == pytest.approx(LOW, abs=2)


def test_marks_on_all_tracks_say_nothing(tmp_path: Path) -> None:
    all_marked = tones(*({**what, "default": True} for what in THREE))
    assert heard(film(tmp_path, *all_marked), language="de")[0] == pytest.approx(MIDDLE, abs=2)


@pytest.mark.parametrize("default", [False, True])
def test_a_silent_track_gives_way_to_the_first_with_sound_in_it(tmp_path: Path, *, default: bool) -> None:
    """Whispered noise of a microphone that nobody uses is silence too."""
    dead = Track(noise(3, rate=48_000) // 400, default=default)
    spoken = Track(tone(3, hz=HIGH, rate=48_000), language="eng")
    path = film(tmp_path, dead, Track(silence(3, rate=48_000)), spoken)
    found, info = heard(path)
    assert found == pytest.approx(HIGH, abs=2)
    assert info.track == 2
    assert [warning["code"] for warning in info.warnings] == ["audio_track_silent"]
    assert "track 0 is silent: track 2" in info.warnings[0]["message"]
    assert heard(path, track="0")[1].track == 0, "unless it is asked for"


def test_where_all_are_silent_the_first_is_taken(tmp_path: Path) -> None:
    _, info = heard(film(tmp_path, *[Track(silence(2, rate=48_000))] * 2))
    assert (info.track, info.warnings) == (0, [])


def test_a_resumed_attempt_hears_the_same_track(tmp_path: Path) -> None:
    path = film(tmp_path, Track(silence(6, rate=48_000)), Track(noise(6, rate=48_000)), film_s=6)
    with open_audio(path) as audio:
        whole = np.concatenate(list(audio.blocks()))
    for repair in (False, True):
        with open_audio(path, start_s=2.5, repair=repair) as audio:
            assert np.array_equal(np.concatenate(list(audio.blocks())), whole[round(2.5 * RATE) :])


def test_the_look_for_sound_ends_with_the_first_sound_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tracks._Look] = []

    class Look(tracks._Look):
        def __init__(self) -> None:
            super().__init__()
            looks.append(self)

    monkeypatch.setattr(tracks, "LOOKED_AT", 4 * RATE)
    monkeypatch.setattr(tracks, "_Look", Look)
    quiet, loud = Track(silence(20, rate=48_000)), Track(tone(20, rate=48_000))
    for given, most_s in (((loud, quiet), 1.0), ((quiet, quiet), 4.5)):
        looks.clear()
        with FileIO(film(tmp_path, *given, film_s=20)) as file:
            media.decode(file, BytesIO(), Options(0, 60 * RATE, repair=False, memory_mb=0, parent=0))
        assert [look.heard for look in looks] == [given[0] is loud, False]
        assert max(look._samples for look in looks) <= most_s * RATE


def test_a_codec_that_nobody_names_is_told_by_its_tag(tmp_path: Path) -> None:
    content = wav_bytes(tone(1, rate=RATE), RATE).replace(b"\x10\0\0\0\1\0", b"\x10\0\0\0\x77\x77")
    (tmp_path / "odd.wav").write_bytes(content)
    with pytest.raises(CodecMissing, match=r"coded as \(ww"):
        heard(tmp_path / "odd.wav")


MISSING = {"mov": ("mov", b"sowt", b"ac-4", "ac4"), "matroska": ("matroska", b"A_PCM/INT/LIT", b"A_ZZZ/INT/LIT", "")}


@pytest.mark.parametrize("name", MISSING)
def test_a_codec_that_is_missing_is_called_missing(tmp_path: Path, name: str) -> None:
    muxer, codec, other, said = MISSING[name]
    path = write_media(tmp_path / "film", tone(1), kind=Kind(muxer, "pcm_s16le"))
    path.write_bytes(path.read_bytes().replace(codec, other))
    with pytest.raises(CodecMissing, match=f"coded .*{said}.*no decoder"):
        heard(path)
    assert not CodecMissing.retryable


def test_a_track_without_a_decoder_gives_way_to_one_that_has_one(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "film", *tones({}, {}), muxer="mov", codec="pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"sowt", b"ac-4", 1))
    found, info = heard(path)
    assert found == pytest.approx(MIDDLE, abs=2)
    assert info.tracks[0]["channels"] is None
    with pytest.raises(CodecMissing, match="ac4"):
        heard(path, track="0")
    assert issubclass(CodecMissing, MediaError)
