"""One rule at all doors for what a language is called."""

import pytest
from pydantic import ValidationError

from api.openai_schemas import SpeechOptions
from api.schemas import TranscribeOptions
from languages import LANGUAGES, language_code

CALLED = {
    "en": "en", "EN": "en", " English ": "en", "en-US": "en", "en_GB": "en", "eng": "en", "zh-CN": "zh",
    "zh-Hant-TW": "zh", "cmn": "zh", "yue": "yue", "nb": "no", "nb-NO": "no", "jv": "jw", "iw": "he",
    "Haitian Creole": "ht", "ger": "de", "deu": "de", "Mandarin": "zh", "fil": "tl", "haw": "haw",
    "auto": None, "": None, "und": None,
}  # fmt: skip


@pytest.mark.parametrize(("name", "code"), CALLED.items())
def test_a_language_is_called_by_code_region_or_name(name: str, code: str | None) -> None:
    assert language_code(name) == code
    assert TranscribeOptions(language=name).language == code
    assert SpeechOptions(model="whisper-1", language=name).language == code


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_code_and_name_of_whisper_is_known(code: str) -> None:
    assert language_code(code) == language_code(LANGUAGES[code]) == code


@pytest.mark.parametrize("name", ["klingon", "e n", "-", "x-en", "multi"])
def test_what_no_language_is_called_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown language"):
        language_code(name)


def test_several_languages_are_asked_for_with_commas_or_as_a_list() -> None:
    assert TranscribeOptions.model_validate({"language": "Multi", "languages": "English, de-AT,en"}).languages == [
        "en",
        "de",
    ]
    assert TranscribeOptions.model_validate({"languages": ["fr"]}).languages == ["fr"]
    with pytest.raises(ValidationError, match="list of languages"):
        TranscribeOptions.model_validate({"languages": 7})
