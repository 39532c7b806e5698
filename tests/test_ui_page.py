"""The page at /ui in a real browser, on the whole service with the bundled model: what a person can do with it.

After every test the console is empty of errors, and no other host was asked for anything (tests/browser.py).
"""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from stack.running import Stack
from tests.browser import Watch, chromium, visited
from tests.page import (
    SAMPLES,
    check_axe,
    drop,
    finished,
    open_view,
    row,
    sample,
    segment,
    signed_in,
    submitted,
)
from tests.processes import until
from tests.speech import word_error_rate

pytestmark = [pytest.mark.xdist_group("ui"), pytest.mark.timeout(300)]
KEY = "page-3f9a41c07d52e86b"
SEVEN = "one two three four five six seven"
HOSTILE = "<img src=x onerror=document.title='owned'>.wav"
PHONE = {"width": 360, "height": 740}
LISTEN = """
heard = [];
new MutationObserver(changes => changes.map(({target}) => target)
    .filter(word => word.classList.contains("now")).forEach(word => heard.push(word.textContent)))
    .observe(document.querySelector(".segments"), {subtree: true, attributeFilter: ["class"]});
document.querySelector("audio").play();
"""
VIEWS = ["/", "/jobs/{minute}", "/letters", "/health"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """After the browser: where there is none, nothing is started."""
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, whisper_model_size="demo", lease_seconds=4, log_format="json", api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=30, headers={"X-API-Key": KEY}) as client:
        yield client


@pytest.fixture
def watch(stack: Stack) -> Watch:
    return Watch(stack.url)


@pytest.fixture
def page(browser: Browser, watch: Watch) -> Iterator[Page]:
    """Signed in as the operator."""
    with visited(browser, watch) as page:
        yield signed_in(page, KEY)


@pytest.fixture(scope="module")
def minute(http: httpx.Client) -> str:
    """A recording of a minute, completed, with the times of its words."""
    return sample(http, "english-minute.webm", "minute.webm")


@pytest.fixture
def dead(http: httpx.Client) -> str:
    """A job that failed for good."""
    return finished(http, submitted(http, b"RIFF....WAVE, and then nothing", "broken.wav"))


def test_a_dropped_file_becomes_text_and_a_subtitle_file_without_a_reload(page: Page, tmp_path: Path) -> None:
    open_view(page, "/", "Recordings")
    page.evaluate("window.stayed = true")
    page.get_by_text("Options", exact=True).first.click()
    page.get_by_role("combobox", name="Language", exact=True).select_option("en")
    first, second = ((SAMPLES / name).read_bytes() for name in ("english.wav", "german.mp3"))
    drop(page, ("dropped.wav", first), ("second.mp3", second))
    for name in ("dropped.wav", "second.mp3"):
        expect(row(page, name).locator(".badge")).to_have_text("completed", timeout=30_000)
    expect(page.get_by_label("Uploads").get_by_role("listitem")).to_have_count(0)
    row(page, "dropped.wav").get_by_role("link").click()
    expect(page.locator(".segments .text").first).to_be_visible()
    said = " ".join(page.locator(".segments .text").all_inner_texts())
    assert word_error_rate(SEVEN, said) <= 0.15, said
    with page.expect_download() as download:
        page.get_by_role("button", name="Download srt").click()
    download.value.save_as(tmp_path / "got.srt")
    assert download.value.suggested_filename == "dropped.srt"
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n\w", (tmp_path / "got.srt").read_text())
    assert page.evaluate("window.stayed")


def test_what_the_microphone_hears_is_submitted_once_it_is_approved(page: Page) -> None:
    open_view(page, "/", "Recordings")
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.get_by_role("timer")).to_have_text("0:01")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Transcribe it").click()
    name = page.get_by_role("link", name=re.compile(r"recording-.*\.webm"))
    expect(name).to_be_visible()
    expect(page.locator(".job", has=name).locator(".badge")).to_have_text(re.compile("completed"), timeout=30_000)


def test_the_list_is_filtered_by_address_and_goes_on_in_pages(page: Page, http: httpx.Client, minute: str) -> None:
    parts = [("files", (f"many-{number}.wav", b"RIFF....WAVE")) for number in range(27)]
    batch = http.post("/transcribe/batch", files=parts, timeout=60).json()["batch_id"]
    http.delete(f"/batches/{batch}")
    open_view(page, "/?q=many-", "Recordings")
    jobs = page.get_by_label("Recordings", exact=True).get_by_role("listitem")
    expect(jobs).to_have_count(25)
    page.get_by_role("button", name="More").click()
    expect(jobs).to_have_count(27)
    page.get_by_label("Status").select_option("completed")
    expect(page.get_by_text("No recording matches.")).to_be_visible()
    page.get_by_role("searchbox", name="Name").fill("minute")
    expect(row(page, "minute.webm")).to_be_visible()
    page.reload()
    expect(page.get_by_role("searchbox", name="Name")).to_have_value("minute")
    expect(jobs).to_have_count(1)


def test_a_recording_is_deleted_after_a_question(page: Page, http: httpx.Client) -> None:
    job_id = sample(http, "english.wav", "delete-me.wav")
    open_view(page, "/", "Recordings")
    page.get_by_role("button", name="Delete delete-me.wav").click()
    dialog = page.get_by_role("dialog", name="Delete this recording?")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Delete delete-me.wav")).to_be_focused()
    page.get_by_role("button", name="Delete delete-me.wav").click()
    dialog.get_by_role("button", name="Delete for ever").click()
    expect(row(page, "delete-me.wav")).to_have_count(0)
    assert http.get(f"/transcribe/{job_id}").status_code == 404


def test_words_are_marked_as_they_are_heard_and_a_click_seeks(page: Page, minute: str) -> None:
    open_view(page, f"/jobs/{minute}", "minute.webm")
    third = segment(page, 2).locator(".word").nth(3)
    third.click()
    expect(third).to_have_class("word now")
    expect(segment(page, 2)).to_have_attribute("aria-current", "true")
    at = page.evaluate("document.querySelector('audio').currentTime")
    assert 5 < at < 7.5
    page.evaluate(LISTEN)
    until(lambda: page.evaluate("heard")[:3] == ["five", "six", "seven"], 20)
    segment(page, 6).get_by_role("button", name=re.compile("Play from")).press("Enter")
    expect(segment(page, 6)).to_have_attribute("aria-current", "true")
    page.evaluate("document.querySelector('audio').pause()")
    page.keyboard.press("ArrowRight")
    expect(segment(page, 6).locator(".word.now")).to_have_count(1)


def test_the_player_fetches_ranges_with_the_key_and_never_the_key_in_an_address(page: Page, minute: str) -> None:
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    open_view(page, f"/jobs/{minute}", "minute.webm")
    until(lambda: page.evaluate("document.querySelector('audio').duration > 57"))
    assert any(url.endswith("/audio") for url in asked)
    assert page.evaluate("document.querySelector('audio').src").startswith("http")
    assert not [url for url in asked if KEY in url]


def test_words_are_found_counted_and_stepped_through(page: Page, minute: str) -> None:
    open_view(page, f"/jobs/{minute}", "minute.webm")
    expect(segment(page, 0)).to_be_visible()
    box = page.get_by_role("searchbox", name="Find in the text")
    box.fill("TWO three")  # over the border of two words
    count = page.locator(".find .count")
    expect(count).to_have_text("1 of 1")
    box.fill("the")
    expect(count).to_have_text(re.compile(r"1 of \d+"))
    found = int((count.text_content() or "").split()[-1])
    assert found > 3
    assert page.evaluate("CSS.highlights.get('match').size") == found
    box.press("Enter")
    expect(count).to_have_text(f"2 of {found}")
    page.get_by_role("button", name="Previous match").click()
    expect(count).to_have_text(f"1 of {found}")
    box.fill("zebra")
    expect(count).to_have_text("nothing found")


def test_a_correction_is_saved_and_the_original_kept(page: Page, http: httpx.Client, tmp_path: Path) -> None:
    job_id = sample(http, "english.wav", "correct-me.wav")
    heard = http.get(f"/transcribe/{job_id}").json()["result"]["segments"][0]["text"]
    open_view(page, f"/jobs/{job_id}", "correct-me.wav")
    segment(page, 0).get_by_role("button", name=re.compile("Edit")).click()
    page.get_by_role("textbox", name="Text at").fill("One & <b>two</b>.")
    page.keyboard.press("Control+Enter")
    expect(segment(page, 0).locator(".text")).to_have_text("One & <b>two</b>.")
    page.reload()
    expect(segment(page, 0).locator(".text")).to_have_text("One & <b>two</b>.")
    segment(page, 0).get_by_text("corrected").click()
    expect(segment(page, 0).locator("q")).to_have_text(heard)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download txt").click()
    download.value.save_as(tmp_path / "got.txt")
    assert (tmp_path / "got.txt").read_text().startswith("One & <b>two</b>.\n")
    segment(page, 0).get_by_role("button", name=re.compile("Edit")).click()
    page.get_by_role("button", name="Restore the original").click()
    expect(segment(page, 0).locator(".text")).to_have_text(heard)
    assert http.get(f"/transcribe/{job_id}").json()["result"]["segments"][0]["corrected_text"] is None


def test_an_edit_is_not_lost_by_going_elsewhere(page: Page, minute: str) -> None:
    open_view(page, f"/jobs/{minute}", "minute.webm")
    segment(page, 1).get_by_role("button", name=re.compile("Edit")).click()
    page.get_by_role("textbox", name="Text at").fill("unsaved")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # as after a look at another tab
    page.get_by_role("link", name="Health").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep it as it is").click()
    expect(page.get_by_role("textbox", name="Text at")).to_have_value("unsaved")
    assert minute in page.url
    page.get_by_role("link", name="Health").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard them").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Health")


def test_a_dead_letter_is_shown_with_its_reason_and_replayed(page: Page, http: httpx.Client, dead: str) -> None:
    open_view(page, "/letters", "Dead letters")
    letter = page.locator(".letter", has=page.locator(f"a[href='#/jobs/{dead}']"))
    expect(letter).to_contain_text("undecodable_audio")
    expect(letter).to_contain_text("it is not audio or video")
    letter.get_by_role("button", name="Details").click()
    expect(letter.get_by_label("Stack trace")).to_contain_text("Traceback")
    letter.get_by_role("button", name="Replay").click()
    until(lambda: http.get(f"/transcribe/{dead}").json()["attempt"] == 2, 20)
    finished(http, dead)
    page.get_by_label("State").select_option("resolved")
    expect(letter.locator(".badge").first).to_have_text("replayed")
    page.get_by_label("State").select_option("open")
    letter.get_by_role("button", name="Resolve").click()
    expect(letter).to_have_count(0)


def test_the_health_of_every_part_is_drawn_over_time(page: Page, http: httpx.Client, minute: str, dead: str) -> None:
    open_view(page, "/health", "Health")
    summary = page.locator(".summary")
    expect(summary).to_contain_text("failed for good")
    expect(summary.get_by_role("link", name="See the dead letters")).to_be_visible()
    for letter in http.get("/admin/errors", params={"resolved": "false"}).json()["data"]:
        http.post(f"/admin/errors/{letter['id']}/resolve")
    expect(summary).to_contain_text("All is well.", timeout=15_000)
    expect(page.get_by_role("link", name="Flower")).to_have_attribute("href", re.compile(r"^http://127\.0\.0\.1:\d+$"))
    expect(page.get_by_role("img", name=re.compile("Waiting: now"))).to_be_visible()
    waiting = page.locator(".chart .line").first
    expect(waiting).to_have_attribute("d", re.compile(r"^M0\.0 .*L240\.0 "))  # over the whole width
    expect(page.locator(".card .note").first).to_have_text(re.compile(r"^Peak, last \d+ s: \d"))
    expect(page.locator(".card .note").last).to_have_text(re.compile("^Lowest"))
    page.get_by_text("The last hour as a table").click()
    expect(page.locator("details tbody tr").first).to_contain_text(re.compile(r"\d\d:\d\d"))
    for text in ("transcription.high", "demo", "cpu"):
        expect(page.locator(".parts")).to_contain_text(text)


def test_a_recording_is_submitted_and_opened_by_keyboard_alone(page: Page) -> None:
    open_view(page, "/", "Recordings")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skip to the content
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    content = (SAMPLES / "english.wav").read_bytes()
    chooser.value.set_files({"name": "keys.wav", "mimeType": "audio/wav", "buffer": content})
    link = page.get_by_role("link", name="keys.wav")
    expect(row(page, "keys.wav").locator(".badge")).to_have_text("completed", timeout=30_000)
    for _ in range(20):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("keys.wav")
    expect(segment(page, 0)).to_be_visible()


def test_a_hostile_name_and_a_hostile_text_are_shown_as_text(page: Page, http: httpx.Client) -> None:
    job_id = sample(http, "english.wav", HOSTILE)
    text = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    http.patch(f"/transcribe/{job_id}/segments/0", json={"text": text})
    open_view(page, "/", "Recordings")
    row(page, HOSTILE).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(segment(page, 0).locator(".text")).to_have_text(text)
    page.get_by_role("searchbox").fill("<img")
    expect(page.locator(".find .count")).to_have_text("1 of 1")
    page.get_by_role("button", name="More actions").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
    assert "owned" not in page.title().replace(HOSTILE, "")
    assert page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_has_a_flaw_that_axe_finds_nor_is_wider_than_a_phone(
    browser: Browser, watch: Watch, minute: str, dead: str, scheme: str
) -> None:
    with visited(browser, watch, color_scheme=scheme, viewport=PHONE) as page:
        signed_in(page, KEY)
        for path in VIEWS:
            open_view(page, path.format(minute=minute))
            expect(page.locator(".job, .letter, .segments li, .card").first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
            check_axe(page, path)
        open_view(page, f"/jobs/{minute}")
        segment(page, 0).get_by_role("button", name=re.compile("Edit")).click()
        check_axe(page, "an edit")
        page.set_viewport_size({"width": 1280, "height": 800})
        check_axe(page, "wide")
        page.get_by_text("Details").click()
        page.get_by_role("button", name="More actions").click()
        check_axe(page, "a menu")
        page.get_by_role("button", name="Delete").click()
        check_axe(page, "a question")


def test_the_colours_are_chosen_and_kept(page: Page) -> None:
    open_view(page, "/", "Recordings")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Use dark colours").click()
    dark = page.evaluate(colour)
    assert light != dark
    page.reload()
    assert page.evaluate(colour) == dark
    page.get_by_role("button", name="Use light colours").click()
    page.emulate_media(color_scheme="dark")  # who chose what the system has goes with the system again
    expect(page.get_by_role("button", name="Use light colours")).to_be_visible()
    assert page.evaluate(colour) == dark


def test_back_leads_to_the_view_before(page: Page, minute: str) -> None:
    open_view(page, "/?status=completed", "Recordings")
    row(page, "minute.webm").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("minute.webm")
    page.go_back()
    expect(page.get_by_label("Status")).to_have_value("completed")
    page.go_forward()
    expect(page.get_by_role("heading", level=1)).to_have_text("minute.webm")
