"""Recordings on their way to the service, in a real browser: refused, put off and cancelled. No worker."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from app import create_app
from config import Settings
from tests.api_client import WAV
from tests.browser import Watch, chromium, visited
from tests.openai_service import serving
from tests.page import drop, open_view, row

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
        yield page


def test_what_the_service_refuses_says_why_and_can_be_removed(page: Page, watch: Watch) -> None:
    watch.refusals = {415}
    open_view(page, "/", "Recordings")
    drop(page, ("notes.txt", b"words"))
    refused = page.get_by_label("Uploads").get_by_role("listitem")
    expect(refused).to_contain_text("neither the file name nor the content is audio or video")
    refused.get_by_role("button", name="Remove notes.txt").click()
    expect(refused).to_have_count(0)


def test_an_upload_that_must_wait_is_sent_again_under_the_same_key(page: Page, watch: Watch) -> None:
    watch.refusals = {503}
    keys = []

    def full_at_first(route: Any) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            route.continue_()
            return
        route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "Too much is waiting.", "status": 503})

    page.route("**/transcribe/", full_at_first)
    open_view(page, "/", "Recordings")
    drop(page, ("later.wav", WAV))
    expect(page.get_by_label("Uploads")).to_contain_text("Too much is waiting. Next try in 1 s.")
    expect(row(page, "later.wav")).to_be_visible()
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_an_upload_can_be_cancelled(page: Page) -> None:
    page.route("**/transcribe/", lambda _: None)  # it is never answered
    open_view(page, "/", "Recordings")
    drop(page, ("never.wav", b"RIFF"))
    page.get_by_role("button", name="Cancel the upload of never.wav").click()
    expect(page.get_by_label("Uploads").get_by_role("listitem")).to_have_count(0)
