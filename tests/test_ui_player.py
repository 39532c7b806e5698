"""The player of the page in a real browser: played, sought and slowed by mouse and by keyboard, and named for all."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from config import Settings
from tests.api_client import wav_of_silence
from tests.browser import Watch, chromium, visited
from tests.callers import serving
from tests.page import open_view, submitted
from tests.processes import until

pytestmark = [pytest.mark.xdist_group("ui")]
AT = "document.querySelector('audio').currentTime"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, settings: Settings, data_dir: Path) -> Iterator[Page]:
    """At a recording of two minutes that nobody has transcribed yet."""
    with serving(data_dir / "api.log") as url, httpx.Client(base_url=url) as http, visited(browser, Watch(url)) as page:
        job_id = submitted(http, wav_of_silence(120), "long.wav")
        open_view(page, f"/jobs/{job_id}", "long.wav")
        until(lambda: page.evaluate("document.querySelector('audio').duration") == 120)
        yield page


def player(page: Page) -> Locator:
    return page.get_by_role("group", name="Player of long.wav")


def share_of(page: Page, name: str) -> float:
    """Of the recording, in percent, as the bar is painted."""
    painted = page.evaluate(f"getComputedStyle(document.querySelector('.seek')).getPropertyValue('--{name}')")
    return float(painted.rstrip("%"))


def test_it_plays_at_the_chosen_speed_and_pauses_and_says_which(page: Page) -> None:
    player(page).get_by_role("combobox", name="Speed").select_option("1.5")
    player(page).get_by_role("button", name="Play").click()
    until(lambda: page.evaluate(AT) > 0.3)
    assert page.evaluate("document.querySelector('audio').playbackRate") == 1.5
    player(page).get_by_role("button", name="Pause").press("Space")
    expect(player(page).get_by_role("button", name="Play")).to_be_focused()
    assert page.evaluate("document.querySelector('audio').paused")


def test_the_bar_is_moved_by_keys_and_by_the_mouse_and_tells_the_time(page: Page) -> None:
    bar = player(page).get_by_role("slider", name="Position")
    bar.press("ArrowRight")
    assert page.evaluate(AT) == 5
    bar.press("PageUp")
    expect(bar).to_have_attribute("aria-valuetext", "0:35 of 2:00")
    bar.press("ArrowLeft")
    expect(bar).to_have_attribute("aria-valuetext", "0:30 of 2:00")
    assert share_of(page, "played") == 25
    bar.press("Home")
    assert page.evaluate(AT) == 0
    bar.press("ArrowLeft")
    assert page.evaluate(AT) == 0
    box = bar.bounding_box()
    assert box is not None
    bar.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert page.evaluate(AT) == pytest.approx(60, abs=1.5)
    expect(player(page).locator(".time").first).to_have_text(re.compile("^(0:59|1:0[01])$"))
    expect(player(page).locator(".time").last).to_have_text("2:00")
    bar.press("Home")
    until(lambda: share_of(page, "loaded") > share_of(page, "played"))  # painted ahead of what was played
