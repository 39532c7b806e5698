"""Pictures of every view of the page, light and dark, wide and on a phone: `python -m tests.screenshots OUT_DIR`."""

import sys
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, expect

from stack.running import Stack
from tests.browser import Watch, chromium, visited
from tests.page import finished, open_view, sample, segment, submitted

SIZES: dict[str, ViewportSize] = {"wide": {"width": 1100, "height": 700}, "phone": {"width": 360, "height": 740}}
VIEWS = {"recordings": "/", "transcript": "/jobs/{job}", "letters": "/letters", "health": "/health"}
NAMES = [("british.m4a", "interview.m4a"), ("german.mp3", "besprechung.mp3"), ("english-minute.webm", "lecture.webm")]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as data,
        chromium() as browser,
        Stack(Path(data), whisper_model_size="demo") as stack,
    ):
        job = filled(stack.url)
        for size in SIZES:
            for scheme in ("light", "dark"):
                for name, path in VIEWS.items():
                    picture(browser, stack.url, path.format(job=job), folder / f"{name}-{size}-{scheme}.png")


def filled(url: str) -> str:
    """A service with some recordings; the id of the last one, in which a word is corrected."""
    with httpx.Client(base_url=url, timeout=30) as http:
        finished(http, submitted(http, b"RIFF....WAVE, and then nothing", "cut-off.wav"))
        job = [sample(http, file, name) for file, name in NAMES][-1]
        http.patch(f"/transcribe/{job}/segments/3", json={"text": "The weather is nice today."})
        submitted(http, (Path(__file__).parents[1] / "demo/samples/english-minute.webm").read_bytes(), "standup.webm")
    return job


def picture(browser: Browser, url: str, path: str, file: Path) -> None:
    size, scheme = file.stem.split("-")[1:]
    with visited(browser, Watch(url), color_scheme=scheme, viewport=SIZES[size]) as page:
        open_view(page, path)
        _ready(page, path)
        page.screenshot(path=file)
    print(file)


def _ready(page: Page, path: str) -> None:
    expect(page.locator(".job, .letter, .segments li, .card").first).to_be_visible()
    if path == VIEWS["health"]:
        page.wait_for_timeout(11_000)  # three looks make a line
    if path.startswith("/jobs/"):
        segment(page, 2).locator(".word").nth(3).click()


if __name__ == "__main__":
    main()
