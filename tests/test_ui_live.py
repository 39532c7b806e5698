"""The page while a job runs, in a real browser, with the test in the place of the worker."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, expect

from config import Settings
from tests.api_client import WAV
from tests.browser import Watch, chromium, visited
from tests.callers import serving
from tests.checker import finish, take
from tests.openai_service import say
from tests.page import open_view, row, submitted

pytestmark = [pytest.mark.xdist_group("ui")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def test_place_progress_and_text_appear_as_they_come_and_without_a_reload(
    browser: Browser, settings: Settings, data_dir: Path
) -> None:
    with serving(data_dir / "api.log") as url, httpx.Client(base_url=url) as http, visited(browser, Watch(url)) as page:
        first, second = (submitted(http, WAV, name) for name in ("first.wav", "second.wav"))
        open_view(page, "/", "Recordings")
        expect(row(page, "second.wav").locator(".state")).to_have_text("number 2 in the queue")
        fence = take(UUID(first), settings).fence
        expect(row(page, "first.wav").locator(".badge")).to_have_text("processing")
        expect(row(page, "second.wav").locator(".state")).to_have_text("next in the queue")
        page.goto(f"/ui/#/jobs/{first}")
        expect(page.locator(".head .badge")).to_have_text("processing")
        texts = page.locator(".segments .text")
        for number in range(2):
            say(UUID(first), number, " one")
            expect(texts).to_have_text(["one"] * (number + 1))
        expect(page.get_by_role("button", name="Edit")).to_have_count(0)
        assert finish(fence, "one one")
        expect(page.locator(".head .badge")).to_have_text("completed")
        expect(page.get_by_role("button", name="Edit")).to_have_count(2)
        page.goto(f"/ui/#/jobs/{second}")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".head .badge")).to_have_text("cancelled")
