"""SHORT_WINDOWS: no more of a window is encoded than holds sound."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from config import Settings
from engines import SAMPLE_RATE, Model, open_engine
from engines.served import WindowedModel
from tests.test_engine_conformance import OPTIONS, decoded, text

LANGUAGES = {"english.wav": "en", "german.mp3": "de", "french.ogg": "fr", "spanish.webm": "es"}


def demo(*, short_windows: bool) -> Model:
    return open_engine(Settings(device="cpu", short_windows=short_windows)).load("demo", "default")


@pytest.mark.parametrize("seconds", [1, 3, 20, 30])
def test_short_windows_send_no_more_than_the_sound_and_a_pause(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[int] = []
    put = WindowedModel.put

    def spy(self: WindowedModel, mel: Any) -> Any:
        cut = put(self, mel)
        frames.append(cut.shape[-1])
        return cut

    monkeypatch.setattr(WindowedModel, "put", spy)
    sound = np.resize(decoded("english.wav"), seconds * SAMPLE_RATE)
    for short in (True, False):
        (segments,) = demo(short_windows=short).transcribe([sound], replace(OPTIONS, word_timestamps=True))
        assert all(0 <= one.start <= one.end <= seconds for one in segments)
    assert frames[0] == min(3000, 500 * (1 + (seconds + 1 - 1) // 5))
    assert frames[-1] == 3000


@pytest.mark.parametrize("name", LANGUAGES)
def test_short_windows_hear_what_whole_ones_hear(name: str) -> None:
    """For the bundled model and whole recordings; bench/README.md says what else may come."""
    sound, options = decoded(name), replace(OPTIONS, language=LANGUAGES[name])
    whole, cut = (text(demo(short_windows=short).transcribe([sound], options)[0]) for short in (False, True))
    assert whole
    assert cut == whole
