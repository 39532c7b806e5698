"""A Chromium for the tests of the page: found on this machine, watched for everything that no page of ours may do.

Where there is none these tests are skipped, unless REQUIRE_BROWSER=1 says that this is a mistake.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",  # tests may run as root, and show only pages of ours
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
REFUSED = "Failed to load resource: the server responded with a status of"  # the browser's line; our page tells it too


def find_chromium(playwright: Playwright) -> str:
    """Its path. Skips, or fails where a browser is required."""
    found = [shutil.which(name) for name in NAMES] + [playwright.chromium.executable_path]
    path = next((path for path in found if path and Path(path).exists()), None)
    if path is None:
        message = f"no browser: none of {', '.join(NAMES)} is on PATH, and `playwright install chromium` was not run"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """What a page has said and asked for. `refusals`: statuses that the test provokes."""

    url: str
    refusals: set[int] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def on(self, page: Page) -> Page:
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))
        page.on("request", self._see)
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        is_expected = any(f"{REFUSED} {status}" in message.text for status in self.refusals)
        if message.type in ("error", "warning") and not is_expected:
            self.said.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _see(self, request: Request) -> None:
        if not request.url.startswith(("blob:", "data:")):
            self.hosts.add(urlsplit(request.url).netloc)

    def check(self) -> None:
        assert not self.said, "\n".join(self.said)
        assert self.hosts == {urlsplit(self.url).netloc}


@contextmanager
def visited(browser: Browser, watch: Watch, **options: object) -> Iterator[Page]:
    """A page of a fresh context, which must have said nothing bad in the end."""
    context: BrowserContext = browser.new_context(base_url=watch.url, locale="en-GB", **options)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    try:
        yield watch.on(context.new_page())
        watch.check()
    finally:
        context.close()
