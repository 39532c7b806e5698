"""Who may see what of the page, in a real browser: with no key, a wrong one, a user's, the operator's. No worker."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from config import Settings
from tests.browser import Watch, chromium, visited
from tests.callers import make_key, serving
from tests.page import open_view, signed_in, submitted

pytestmark = [pytest.mark.xdist_group("ui")]
KEY = "page-3f9a41c07d52e86b"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def url(browser: Browser, settings: Settings, data_dir: Path) -> Iterator[str]:
    with serving(data_dir / "api.log", api_key=KEY) as url:
        yield url


def test_a_key_is_asked_for_and_a_wrong_one_is_told(browser: Browser, url: str) -> None:
    with visited(browser, Watch(url, refusals={401})) as page:
        page.goto("/ui/#/letters")
        dialog = page.get_by_role("dialog", name="Sign in")
        dialog.get_by_label("API key").fill("tk_of_nobody")
        dialog.get_by_role("button", name="Sign in").click()
        expect(dialog.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
        dialog.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters")
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters")
        assert page.evaluate("localStorage.getItem('api-key')") is None
        page.get_by_role("button", name="Sign out").click()
        expect(dialog).to_be_visible()


def test_a_key_is_kept_on_the_device_on_request(browser: Browser, url: str) -> None:
    watch = Watch(url, refusals={401})
    with visited(browser, watch) as page:
        page.goto("/ui/")
        page.get_by_label("API key").fill(KEY)
        page.get_by_label("Keep me signed in").check()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Recordings")
        other = watch.on(page.context.new_page())
        other.goto("/ui/")
        expect(other.get_by_role("heading", level=1)).to_have_text("Recordings")


def test_a_key_that_is_refused_later_is_asked_for_again_over_what_is_there(browser: Browser, url: str) -> None:
    with visited(browser, Watch(url, refusals={401})) as page:
        open_view(signed_in(page, KEY), "/", "Recordings")
        page.evaluate("sessionStorage.setItem('api-key', 'tk_revoked')")
        page.get_by_role("searchbox", name="Name").fill("x")
        dialog = page.get_by_role("dialog", name="Sign in")
        dialog.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)
        expect(page.get_by_text("No recording matches.")).to_be_visible()


def test_a_user_sees_own_recordings_and_no_view_for_operators(browser: Browser, url: str, settings: Settings) -> None:
    _, key = make_key(settings, "alice", role="user")
    with httpx.Client(base_url=url, headers={"X-API-Key": KEY}) as operator:
        others = submitted(operator, b"RIFF....WAVE", "others.wav")
    with httpx.Client(base_url=url, headers={"X-API-Key": key}) as user:
        submitted(user, b"RIFF....WAVE", "mine.wav")
    with visited(browser, Watch(url, refusals={403, 404})) as page:
        open_view(signed_in(page, key), "/", "Recordings")
        expect(page.get_by_role("link", name="mine.wav")).to_be_visible()
        expect(page.get_by_role("link", name="others.wav")).to_have_count(0)
        expect(page.get_by_role("navigation").get_by_role("link")).to_have_count(1)
        page.goto(f"/ui/#/jobs/{others}")
        expect(page.get_by_role("alert")).to_contain_text("There is no job with this id")


def test_where_no_key_is_needed_none_is_asked_for(browser: Browser, settings: Settings, data_dir: Path) -> None:
    with serving(data_dir / "api.log") as url, visited(browser, Watch(url)) as page:
        open_view(page, "/", "Recordings")
        expect(page.get_by_role("link", name="Dead letters")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
