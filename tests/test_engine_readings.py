"""Which reading of a window is believed: loops, improbable words, prompts, and what was asked for."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from engines.readings import LATER_S, REPETITIVE, SAMPLED, Reading, believed, repetition
from transcript import DecodeOptions, Segment

GERMAN = DecodeOptions(language="de")
PROMPTED = DecodeOptions(language="de", initial_prompt="Herr Möller")
LOOP = " and then" * 40
TWO_CITIES = (
    "It was the best of times, it was the worst of times. It was the age of wisdom, it was the age of foolishness. "
    "It was the epoch of belief, it was the epoch of incredulity. It was the season of light, it was the season of "
    "darkness."
)
MENU = (
    "Нажмите 1 для записи вашего сообщения при статусе недоступен, нажмите 2 для записи вашего сообщения при статусе "
    "занято. Нажмите 3 для записи вашего имени, нажмите 4 для записи временного сообщения, нажмите 5 для смены пароля."
)


def heard(text: str = " Guten Tag.", logprob: float = -0.2) -> tuple[Segment, ...]:
    return (Segment(0, 1, text, avg_logprob=logprob),)


class Reader:
    """Answers by a rule, and keeps what it was asked."""

    def __init__(self, rule: Callable[[Reading], tuple[Segment, ...]]) -> None:
        self._rule = rule
        self.asked: list[Reading] = []

    def __call__(self, reading: Reading) -> tuple[Segment, ...]:
        self.asked.append(reading)
        return self._rule(reading)


def test_a_text_that_can_be_believed_is_read_once() -> None:
    reader = Reader(lambda _: heard())
    assert believed(reader, PROMPTED) == heard()
    assert reader.asked == [Reading(PROMPTED)]


@pytest.mark.parametrize("bad", [heard(LOOP), heard(logprob=-1.2)])
def test_what_is_not_believed_is_read_a_moment_later_in_the_window_before_anything_is_sampled(
    bad: tuple[Segment, ...],
) -> None:
    reader = Reader(lambda reading: heard() if reading.later_s else bad)
    assert believed(reader, GERMAN) == heard()
    assert reader.asked == [Reading(GERMAN), Reading(GERMAN, later_s=LATER_S)]


def test_samples_come_last_and_of_all_readings_the_most_probable_one_is_kept() -> None:
    by_temperature = {0.0: heard(" Gut.", -1.2), SAMPLED[0]: heard(" Gutes", -1.1)}
    reader = Reader(lambda reading: by_temperature[reading.temperatures[0]])
    assert believed(reader, GERMAN) == heard(" Gutes", -1.1)
    assert reader.asked[-1] == Reading(GERMAN, SAMPLED)
    by_temperature[SAMPLED[0]] = heard(" Gans", -1.4)
    assert believed(reader, GERMAN) == heard(" Gut.", -1.2)


def test_a_loop_is_kept_only_where_every_reading_is_one() -> None:
    assert believed(lambda reading: heard(" Unklar.", -1.5) if reading.later_s else heard(LOOP), GERMAN) == heard(
        " Unklar.", -1.5
    )
    assert believed(lambda _: heard(LOOP), GERMAN) == heard(LOOP)


def test_a_prompt_is_dropped_where_it_makes_the_model_loop() -> None:
    reader = Reader(lambda reading: heard(LOOP) if reading.options.initial_prompt else heard())
    assert believed(reader, PROMPTED) == heard()
    assert reader.asked == [Reading(PROMPTED), Reading(GERMAN)]


@pytest.mark.parametrize("options", [DecodeOptions(language="de", temperature=0.0), DecodeOptions(temperature=0.4)])
def test_a_temperature_that_was_asked_for_is_the_only_one(options: DecodeOptions) -> None:
    reader = Reader(lambda _: heard(LOOP))
    assert believed(reader, options) == heard(LOOP)
    assert reader.asked == [Reading(options, (options.temperature or 0.0,))]


@pytest.mark.parametrize("before", [(), heard(LOOP), heard(logprob=-1.2)])
def test_silence_is_believed_whichever_reading_finds_it(before: tuple[Segment, ...]) -> None:
    reader = Reader(lambda reading: () if reading.temperatures == SAMPLED else before)
    assert believed(reader, GERMAN) == ()
    assert len(reader.asked) == (3 if before else 1)


@pytest.mark.parametrize(("logprob", "kept"), [(-0.4, True), (-0.84, False)])
def test_where_speech_is_improbable_words_must_be_more_probable(logprob: float, kept: bool) -> None:
    said = (replace(heard(" You", logprob)[0], no_speech_prob=0.71),)
    reader = Reader(lambda _: said)
    assert believed(reader, GERMAN) == (said if kept else ())
    assert len(reader.asked) == 1


def test_a_loop_where_speech_is_improbable_is_not_kept() -> None:
    loop = replace(heard(LOOP, -0.1)[0], no_speech_prob=0.8)
    assert believed(lambda _: (loop,), GERMAN) == ()
    assert believed(lambda _: (*heard(), loop), GERMAN) == heard(), "what another pass has heard stays"
    assert believed(lambda _: (replace(loop, no_speech_prob=0.3),), GERMAN) != ()


def test_each_pass_over_a_window_is_judged_by_itself() -> None:
    first = (Segment(0, 9, f" {TWO_CITIES}", avg_logprob=-0.1), Segment(9, 20, f" {MENU}", avg_logprob=-0.1))
    again = (Segment(20, 28, LOOP, avg_logprob=-0.3),)
    reader = Reader(lambda reading: first if reading.later_s else first + again)
    assert believed(reader, GERMAN) == first


@pytest.mark.parametrize("text", [TWO_CITIES, MENU, "はい、" * 3, "x", ""])
def test_what_people_say_again_on_purpose_is_no_loop_in_any_script(text: str) -> None:
    assert repetition(text) <= REPETITIVE


@pytest.mark.parametrize("text", [LOOP, "И ещё, " * 40, "謝謝" * 60, "0-1-2-3-" * 30])
def test_a_loop_is_one_in_any_script(text: str) -> None:
    assert repetition(text) > REPETITIVE
