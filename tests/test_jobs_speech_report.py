"""A result says where nothing was found: how much was speech, what could be heard but held no words."""

import numpy as np

from audio.split import Window
from jobs.speech_report import SpeechReport


def window(start_s: float, *, speech: tuple[tuple[float, float], ...] = (), **more: object) -> Window:
    loud = more.get("loud", ())
    return Window(start_s, np.zeros(16, np.float32), start_s + 30, speech, loud)  # type: ignore[arg-type]


def test_speech_is_counted_and_loud_parts_are_joined_across_checkpoints() -> None:
    report = SpeechReport()
    report.add([window(0, speech=((0.5, 2.0), (3.0, 4.0)), loud=((10.0, 12.0),))])
    report = SpeechReport.of(report.as_json())  # another attempt goes on
    report.add([window(30, speech=((0.0, 1.0),), loud=((13.0, 20.0), (40.0, 42.0)))])
    report.add([window(60, loud=((100.0, 130.0),))])
    assert report.as_json() == {"speech_seconds": 3.5, "no_speech_in": [[10.0, 20.0], [100.0, 130.0]]}
    (warning,) = report.warnings(has_text=True)
    assert (warning["code"], warning["ranges"]) == ("no_speech_in", [[10.0, 20.0], [100.0, 130.0]])


def test_an_empty_text_is_never_without_a_warning() -> None:
    assert [one["code"] for one in SpeechReport().warnings(has_text=False)] == ["no_speech_found"]
    assert SpeechReport(3.0).warnings(has_text=True) == []


def test_a_short_noise_is_not_worth_a_warning_and_a_day_of_music_is_bounded() -> None:
    report = SpeechReport()
    report.add([window(0, loud=((3.0, 5.0),))])
    assert report.warnings(has_text=True) == []
    for minute in range(500):
        report.add([window(60.0 * minute, loud=((60.0 * minute, 60.0 * minute + 30),))])
    assert 200 <= len(report.as_json()["no_speech_in"]) <= 201
