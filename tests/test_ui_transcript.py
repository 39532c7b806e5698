"""What a transcript tells beside its text, in a real browser, with the test in the place of the worker."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import text

from app import create_app
from config import Settings
from database import transaction
from jobs import claim as claims
from models import SegmentRow
from tests.api_client import wav_of_silence
from tests.browser import Watch, chromium, visited
from tests.checker import result_of, take
from tests.openai_service import WORDS, serving
from tests.page import check_axe, open_view, segment, submitted

pytestmark = [pytest.mark.xdist_group("ui")]
NUMBERS = {"avg_logprob": -0.1, "no_speech_prob": 0.0, "compression_ratio": 1.0, "temperature": 0.0, "tokens": []}
HOSTILE = "<img src=x onerror=document.title='owned'>"
WARNINGS: list[dict[str, Any]] = [
    {"code": "no_speech_in", "message": f"Loud parts hold no speech {HOSTILE}", "ranges": [[1, 2.5], [62, 65]]},
    {"code": "something_new", "message": "The second track was not read."},
]
TRACKS = [
    {"index": 0, "language": "en", "title": "Commentary", "channels": 2, "default": False},
    {"index": 1, "language": "de", "title": HOSTILE, "channels": 6, "default": True},
]
AUDIO = {
    "duration": 3.0, "container": "matroska", "codec": "aac", "channels": 2, "sample_rate": 48_000, "track": 1,
    "tracks": TRACKS, "speech_seconds": 2.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def http(browser: Browser, settings: Settings) -> Iterator[httpx.Client]:
    with serving(create_app(settings)) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def page(browser: Browser, http: httpx.Client) -> Iterator[Page]:
    with visited(browser, Watch(str(http.base_url).rstrip("/"))) as page:
        yield page


def told(http: httpx.Client, settings: Settings, *said: dict[str, Any], **result: Any) -> UUID:
    """A recording of three seconds, completed with these segments; each lasts a second."""
    job_id = UUID(submitted(http, wav_of_silence(3), "told.wav", language="multi"))
    fence = take(job_id, settings).fence
    with transaction() as session:
        for number, one in enumerate(said):
            row = {"number": number, "start": number, "end": number + 1, "words": WORDS, **NUMBERS, **one}
            session.add(SegmentRow(job_id=job_id, **row))
    outcome = result_of(fence, " ".join(one["text"] for one in said))
    for name, value in result.items():
        setattr(outcome, name, value)
    assert claims.finish(fence, outcome, patience_s=5)
    return job_id


def test_subtitles_have_the_size_that_was_chosen_and_other_files_stay(
    page: Page, http: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    job_id = told(http, settings, {"text": " one two three four five six seven eight"})
    open_view(page, f"/jobs/{job_id}", "told.wav")
    page.get_by_text("Subtitle options").click()
    page.get_by_label("Characters a line").fill("20")
    page.get_by_label("Lines").fill("2")
    for name, said in (("srt", "one two three four\nfive six seven eight\n"), ("txt", "one two three four five six")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {name}").click()
        download.value.save_as(tmp_path / name)
        assert said in (tmp_path / name).read_text()


def test_a_segment_says_its_language_and_channel_where_they_change(
    page: Page, http: httpx.Client, settings: Settings
) -> None:
    said = [
        {"text": " one", "language": "en", "channel": 0},
        {"text": " zwei", "language": "de", "channel": 0},
        {"text": " drei", "language": "de", "channel": 1},
        {"text": " vier", "language": "de", "channel": 1},
    ]
    open_view(page, f"/jobs/{told(http, settings, *said)}", "told.wav")
    labels = [segment(page, number).locator(".label") for number in range(4)]
    for label, expected in zip(labels, ["Channel 1 · English", "German", "Channel 2"], strict=False):
        expect(label).to_have_text(expected)
    expect(labels[3]).to_have_count(0)
    expect(segment(page, 1).locator(".text")).to_have_attribute("lang", "de")
    page.get_by_text("Details").click()
    expect(page.locator("details.about")).to_contain_text("English, German")


def test_a_recording_in_one_language_bears_no_labels(page: Page, http: httpx.Client, settings: Settings) -> None:
    job_id = told(http, settings, {"text": " one", "language": "en"}, {"text": " two", "language": "en"})
    with transaction() as session:
        session.execute(text("UPDATE transcription_jobs SET detected_language = 'en' WHERE id = :id"), {"id": job_id})
    open_view(page, f"/jobs/{job_id}", "told.wav")
    expect(segment(page, 1)).to_be_visible()
    expect(page.locator(".segments .label")).to_have_count(0)
    expect(page.get_by_label("Warnings")).to_be_hidden()


def test_warnings_are_shown_and_their_places_are_heard(page: Page, http: httpx.Client, settings: Settings) -> None:
    open_view(page, f"/jobs/{told(http, settings, {'text': ' one'}, warnings=WARNINGS)}", "told.wav")
    warnings = page.get_by_label("Warnings").get_by_role("listitem")
    expect(warnings).to_have_count(2)
    expect(warnings.first).to_contain_text(str(WARNINGS[0]["message"]))
    expect(warnings.last).to_have_text("The second track was not read.")
    warnings.first.get_by_role("button", name=re.compile("Play from 1:02")).focus()
    page.wait_for_function("document.querySelector('audio').readyState > 0")
    warnings.first.get_by_role("button", name=re.compile("Play from 0:01")).click()
    assert page.evaluate("document.querySelector('audio').currentTime") == 1
    assert "owned" not in page.title()
    page.set_viewport_size({"width": 360, "height": 740})
    check_axe(page, "warnings")


def test_a_recording_without_speech_says_so(page: Page, http: httpx.Client, settings: Settings) -> None:
    warning = {"code": "no_speech_found", "message": "No speech was found in this recording."}
    open_view(page, f"/jobs/{told(http, settings, warnings=[warning])}", "told.wav")
    expect(page.locator(".segments .empty")).to_have_text("No speech was found.")
    expect(page.get_by_label("Warnings")).to_have_text(warning["message"])


def test_details_name_model_revision_sound_and_tracks(page: Page, http: httpx.Client, settings: Settings) -> None:
    job_id = told(http, settings, {"text": " one"}, model_revision="ebe41f70d5b6")
    with transaction() as session:
        statement = text("UPDATE transcription_jobs SET audio = CAST(:audio AS jsonb) WHERE id = :id")
        session.execute(
            statement, {"audio": httpx.Request("POST", "http://x", json=AUDIO).content.decode(), "id": job_id}
        )
    open_view(page, f"/jobs/{job_id}", "told.wav")
    details = page.locator("details.about")
    details.get_by_text("Details").click()
    for expected in ("revision ebe41f70d5b6", "aac in matroska, 2 channels, 48 kHz", "0:02 of 0:03", str(job_id)):
        expect(details).to_contain_text(expected)
    tracks = details.get_by_role("listitem")
    expect(tracks.first).to_have_text("0: English, Commentary, 2 ch")
    expect(tracks.last).to_have_text(f"1: German, {HOSTILE}, 6 ch, default, transcribed")
    check_axe(page, "details")


def test_delete_stands_in_a_menu_that_the_keyboard_opens_and_leaves(
    page: Page, http: httpx.Client, settings: Settings
) -> None:
    open_view(page, f"/jobs/{told(http, settings, {'text': ' one'})}", "told.wav")
    opener = page.get_by_role("button", name="More actions")
    delete = page.get_by_role("button", name=re.compile("^Delete"))
    expect(delete).to_be_hidden()
    opener.press("Enter")
    expect(delete).to_be_focused()
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    expect(delete).to_be_hidden()
    opener.press("Enter")
    page.keyboard.press("Tab")  # out of it
    expect(delete).to_be_hidden()
    opener.click()
    page.get_by_role("heading", level=1).click()
    expect(delete).to_be_hidden()
    opener.click()
    delete.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete for ever").click()
    expect(page.get_by_text("No recordings yet.")).to_be_visible()


def test_edit_shows_on_hover_and_on_focus_and_rows_end_where_the_rule_does(
    page: Page, http: httpx.Client, settings: Settings
) -> None:
    open_view(page, f"/jobs/{told(http, settings, {'text': ' one'}, {'text': ' two'})}", "told.wav")
    edit = segment(page, 1).get_by_role("button", name=re.compile("Edit"))
    expect(edit).to_have_css("opacity", "0")
    segment(page, 1).hover()
    expect(edit).to_have_css("opacity", "1")
    page.mouse.move(0, 0)
    expect(edit).to_have_css("opacity", "0")
    edit.focus()
    expect(edit).to_have_css("opacity", "1")
    right = "(selector) => document.querySelector(selector).getBoundingClientRect().right"
    assert page.evaluate(right, ".segments li") == page.evaluate(right, ".tools")
    size = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.segments .text')).fontSize)")
    assert 17 <= size <= 18
