"""Which language is spoken, what the model is shown, how a window in two languages is cut: rules, without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audio.split import Window
from jobs import language_detection as detection
from jobs.recognition import Recogniser
from jobs.script import script_of, style_prompt
from languages import MULTI
from transcript import DecodeOptions, Language, Segment

RATE = 16_000
Sound = NDArray[np.float32]
GIVEN = Language("de", 1.0)
GERMAN, ENGLISH, GREEK = {"de": 0.9, "en": 0.1}, {"en": 0.9, "de": 0.1}, {"el": 0.4, "es": 0.3, "en": 0.3}


def sound(*levels: float, seconds: float = 5.0) -> Sound:
    """Stretches of a constant: a number is what is said in it."""
    return np.concatenate([np.full(round(seconds * RATE), level, np.float32) for level in levels])


def window(audio: Sound, *speech: tuple[float, float], start_s: float = 0.0) -> Window:
    length_s = len(audio) / RATE
    return Window(start_s, audio, start_s + length_s, speech or ((0.0, length_s),))


class Model:
    """Hears the language that the mean of the sound stands for; its text says how it was asked."""

    revision = None

    def __init__(
        self, languages: Mapping[float, Mapping[str, float]], logprobs: Mapping[str, float] | None = None
    ) -> None:
        self.languages, self.logprobs, self.calls = languages, logprobs or {}, list[tuple[int, DecodeOptions]]()

    def detect_languages(self, audio: Sound) -> dict[str, float]:
        nearest = min(self.languages, key=lambda level: abs(level - float(audio.mean())))
        return dict(self.languages[nearest])

    def prompt_excess(self, options: DecodeOptions) -> int:
        return max(0, len((options.initial_prompt or "").split()) - 3)

    def transcribe(
        self, windows: Sequence[Sound], options: DecodeOptions, speech: Any = ()
    ) -> list[tuple[Segment, ...]]:
        self.calls.append((len(windows), options))
        assert len(speech) == len(windows)
        text = {"zh": " 这个国家", "el": " xxx"}.get(options.language or "", f" {options.language}")
        quality = self.logprobs.get(options.language or "", -0.2)
        return [(Segment(0.0, len(one) / RATE, text, avg_logprob=quality),) for one in windows]


class AtOnce:
    """In place of model_pool.Fallback: one model, every window in one call."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, call: Any) -> Any:
        return call(self.model)

    def map(self, call: Any, items: Sequence[Any]) -> Any:
        return iter(call(self.model, list(items)))


def recogniser(model: Model, options: DecodeOptions | None = None, **more: Any) -> Recogniser:
    more.setdefault("language", None)
    return Recogniser(AtOnce(model), options or DecodeOptions(), **more)  # type: ignore[arg-type]


def test_a_language_without_doubt_is_decided_by_the_first_window() -> None:
    model = Model({0.1: GERMAN, 0.5: ENGLISH})
    ours = recogniser(model, elsewhere=lambda: pytest.fail("there is no doubt"))
    segments = ours.recognise([window(sound(0.1)), window(sound(0.5), start_s=5.0)])
    assert ours.language == Language("de", 0.9)
    assert [(one.language, one.start) for one in segments] == [("de", 0.0), ("de", 5.0)]
    assert len(model.calls) == 1, "both windows in one call"


def test_in_doubt_other_places_of_the_recording_are_heard() -> None:
    ours = recogniser(Model({0.1: GREEK, 0.5: ENGLISH}), elsewhere=lambda: iter([sound(0.5), sound(0.5)]))
    ours.recognise([window(sound(0.1))])
    assert ours.language is not None
    assert ours.language.code == "en"


def test_in_doubt_the_language_that_reads_best_is_taken() -> None:
    model = Model({0.1: GREEK}, {"el": -1.4, "es": -0.3, "en": -0.9})
    ours = recogniser(model)
    (segment,) = ours.recognise([window(sound(0.1))])
    assert ours.language == Language("es", 0.3)
    assert segment.language == "es"


def test_where_two_languages_read_alike_the_one_that_whisper_was_trained_more_on_is_taken() -> None:
    ours = recogniser(Model({0.1: {"el": 0.2, "en": 0.15, "ar": 0.1}}, {"el": -0.8, "en": -0.85, "ar": -0.8}))
    ours.recognise([window(sound(0.1))])
    assert ours.language is not None
    assert ours.language.code == "en"
    clearly = recogniser(Model({0.1: {"el": 0.2, "en": 0.15}}, {"el": -0.4, "en": -0.85}))
    clearly.recognise([window(sound(0.1))])
    assert clearly.language is not None
    assert clearly.language.code == "el"


def test_a_prompt_that_is_too_long_is_told_with_the_result() -> None:
    for prompt, told in (("one two three", []), ("one two three four five", ["prompt_cut"])):
        ours = recogniser(Model({0.1: GERMAN}), DecodeOptions(initial_prompt=prompt, language="de"), language=GIVEN)
        assert ours.warnings() == []
        ours.recognise([window(sound(0.1))])
        assert [one["code"] for one in ours.warnings()] == told
        assert all("2 tokens" in one["message"] for one in ours.warnings())


def test_only_allowed_languages_are_detected() -> None:
    ours = recogniser(Model({0.1: {"el": 0.8, "es": 0.15, "en": 0.05}}), DecodeOptions(languages=("en", "es")))
    ours.recognise([window(sound(0.1))])
    assert ours.language is not None
    assert ours.language.code == "es"
    assert ours.language.probability == pytest.approx(0.75)
    assert detection.among({"fr": 1.0}, ("en", "de")) == {"en": 0.5, "de": 0.5}


def test_a_window_is_cut_in_the_pause_where_the_language_changes() -> None:
    audio = np.concatenate([sound(0.5, seconds=9.0), sound(0.1, seconds=10.0)])
    speech = ((0.5, 4.0), (4.5, 8.5), (9.5, 14.0), (14.5, 18.5))
    ours = recogniser(Model({0.5: ENGLISH, 0.1: GERMAN}), DecodeOptions(language=MULTI))
    segments = ours.recognise([window(audio, *speech, start_s=100.0)])
    assert [(one.language, one.start, one.end) for one in segments] == [("en", 100.45, 109.0), ("de", 109.45, 119.0)]
    assert ours.language == Language("de", None), "the one that is spoken most"


def test_a_short_or_doubtful_phrase_stays_in_the_language_around_it() -> None:
    speech = ((0.0, 4.0), (4.5, 9.5), (10.5, 15.0))
    audio = sound(0.5, 0.1, 0.5)
    for doubtful in ({"de": 0.5, "en": 0.5}, {"de": 0.55, "en": 0.45}):
        ours = recogniser(Model({0.5: ENGLISH, 0.1: doubtful}), DecodeOptions(language=MULTI))
        assert [one.language for one in ours.recognise([window(audio, *speech)])] == ["en"]
    whole = detection.cut_by_language(audio, ((0.0, 1.0), (1.5, 2.0)), lambda _: ENGLISH)
    assert whole == [(0.0, 15.0, "en")]
    assert detection.cut_by_language(audio, (), lambda _: GERMAN) == [(0.0, 15.0, "de")]


def test_the_script_of_chinese_is_that_of_the_first_text_that_tells() -> None:
    model = Model({0.1: {"zh": 1.0}})
    ours = recogniser(model)
    ours.recognise([window(sound(0.1), start_s=5.0 * number) for number in range(3)])
    assert [(count, options.initial_prompt) for count, options in model.calls] == [
        (1, None),
        (2, style_prompt("simplified")),
    ]
    resumed = recogniser(model, language=Language("zh", 1.0), said=[Segment(0, 1, "這個國家", language="zh")])
    resumed.recognise([window(sound(0.1))])
    assert model.calls[-1][1].initial_prompt == style_prompt("traditional")
    asked = recogniser(model, DecodeOptions(language="zh", initial_prompt="名字"), language=Language("zh", 1.0))
    asked.recognise([window(sound(0.1))])
    assert model.calls[-1][1].initial_prompt == "名字", "a caller's prompt is not touched"


@pytest.mark.parametrize(
    ("text", "script"),
    [("这个国家", "simplified"), ("這個國家", "traditional"), ("你好", None), ("", None), ("abc", None)],
)
def test_a_script_is_told_by_characters_that_differ(text: str, script: str | None) -> None:
    assert script_of(text) == script


def test_on_request_each_window_sees_the_text_before_it_but_never_a_guess() -> None:
    model = Model({0.5: ENGLISH})
    options = DecodeOptions(condition_on_previous_text=True, initial_prompt="Names:")
    said = [Segment(0, 1, " wild guess", temperature=0.8), Segment(1, 2, " Hello.")]
    ours = recogniser(model, options, language=Language("en", 1.0), said=said)
    ours.recognise([window(sound(0.5)), window(sound(0.5), start_s=5.0)])
    shown = [(count, one.initial_prompt) for count, one in model.calls]
    assert shown == [(1, "Names: Hello."), (1, "Names: Hello. en")]
