"""What the page asks for with a recording, in a real browser: by the names of the API, and only what was chosen."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from app import create_app
from config import Settings
from database import transaction
from models import Job
from tests.api_client import WAV
from tests.browser import Watch, chromium, visited
from tests.openai_service import newest, serving
from tests.page import check_axe, drop, open_view, row

pytestmark = [pytest.mark.xdist_group("ui")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def watch(browser: Browser, settings: Settings) -> Iterator[Watch]:
    with serving(create_app(settings)) as url:
        yield Watch(url)


@pytest.fixture
def page(browser: Browser, watch: Watch) -> Iterator[Page]:
    with visited(browser, watch) as page:
        open_view(page, "/", "Recordings")
        yield page


def opened(page: Page) -> None:
    page.locator(".options summary").press("Enter")
    expect(page.get_by_label("Model")).to_be_visible()


def taken(page: Page, name: str) -> Job:
    """The job that the service made of a dropped file."""
    drop(page, (name, WAV))
    expect(row(page, name)).to_be_visible()
    with transaction() as session:
        return session.get_one(Job, newest())


def test_they_are_folded_away_and_ask_for_what_the_service_does_anyway(page: Page) -> None:
    expect(page.get_by_label("Model")).to_be_hidden()
    expect(page.locator(".options .chosen")).to_be_empty()
    job = taken(page, "plain.wav")
    assert (job.language, job.task, job.priority) == (None, "transcribe", "normal")
    assert job.options["word_timestamps"]
    assert job.options["channels"] == "mix"


def test_each_choice_reaches_the_service_and_is_told_by_the_fold_after_a_reload(page: Page) -> None:
    opened(page)
    page.get_by_role("combobox", name="Language", exact=True).select_option("multi")
    page.get_by_label("Languages expected").fill("English, de")
    page.get_by_label("Sound track").fill("1")
    page.get_by_label("Channels").select_option("separate")
    page.get_by_label("Speech threshold").fill("0.35")
    page.get_by_label("Skip what is not speech").uncheck()
    page.get_by_label("Word timestamps").uncheck()
    check_axe(page, "options")
    page.reload()
    expect(page.locator(".options .chosen")).to_have_text(
        "Language: Several languages · Languages expected: English, de · Sound track: 1 · Channels: Each by itself"
        " · Speech threshold: 0.35 · Skip what is not speech: no · Word timestamps: no"
    )
    job = taken(page, "chosen.wav")
    expected = {
        "audio_track": "1",
        "channels": "separate",
        "vad_threshold": 0.35,
        "vad_filter": False,
        "word_timestamps": False,
    }
    assert job.language == "multi"
    assert expected.items() <= job.options.items()
    assert job.options["languages"] == ["en", "de"]
    opened(page)
    page.get_by_role("button", name="Use the defaults").click()
    expect(page.locator(".options .chosen")).to_be_empty()
    assert taken(page, "again.wav").language is None


def test_languages_are_expected_only_where_they_are_detected(page: Page) -> None:
    opened(page)
    page.get_by_label("Languages expected").fill("en, de")
    page.get_by_role("combobox", name="Language", exact=True).select_option("fr")
    expect(page.get_by_label("Languages expected")).to_be_hidden()
    job = taken(page, "french.wav")
    assert job.language == "fr"
    assert not job.options.get("languages")


def test_what_the_service_does_not_know_is_refused_in_its_words(page: Page, watch: Watch) -> None:
    watch.refusals = {422}
    opened(page)
    page.get_by_label("Languages expected").fill("klingon")
    drop(page, ("refused.wav", WAV))
    expect(page.get_by_label("Uploads")).to_contain_text("languages: unknown language; expected a code")
