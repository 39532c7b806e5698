"""Pictures of every view of the page, light and dark, wide and on a phone; with --docs those of the documentation.

    python -m tests.screenshots OUT_DIR [--docs] [--recordings FOLDER] [--models FOLDER] [--model NAME]

What of the recordings comes last by name is opened; without a folder, and without a model, they are those of `demo`.
"""

import argparse
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, expect

from stack.running import Stack
from tests.browser import Watch, chromium, visited
from tests.page import SAMPLES, finished, open_view, segment, submitted
from tests.processes import until

SIZES: dict[str, ViewportSize] = {"wide": {"width": 1100, "height": 700}, "phone": {"width": 360, "height": 740}}
VIEWS = {"recordings": "/", "transcript": "/jobs/{job}", "letters": "/letters", "health": "/health"}
DOCS = {"recordings": "light", "transcript": "dark", "health": "light"}
SCALE = 2  # pixels a point
LONGEST_S = 900  # that one recording may take
HISTORY_MS = 31_000  # of health: a look each 5 s
OPTIONS = {"word_timestamps": "true"}


def main() -> None:
    wanted = _arguments()
    wanted.out.mkdir(parents=True, exist_ok=True)
    settings = {"whisper_model_size": wanted.model, "model_download": "false"}
    if wanted.models:
        settings["model_cache_dir"] = str(wanted.models)
    with tempfile.TemporaryDirectory() as data, chromium() as browser, Stack(Path(data), **settings) as stack:
        job = filled(
            stack.url, sorted(path for path in wanted.recordings.iterdir() if path.suffix not in (".txt", ".json"))
        )
        if wanted.docs:
            for name, scheme in DOCS.items():
                picture(browser, stack.url, VIEWS[name].format(job=job), wanted.out / f"{name}.png", "wide", scheme)
            return
        for size in SIZES:
            for scheme in ("light", "dark"):
                for name, path in VIEWS.items():
                    file = wanted.out / f"{name}-{size}-{scheme}.png"
                    picture(browser, stack.url, path.format(job=job), file, size, scheme)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots")
    parser.add_argument("out", type=Path)
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--recordings", type=Path, default=SAMPLES)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--model", default="demo")
    return parser.parse_args()


def filled(url: str, files: list[Path]) -> str:
    """A service with recordings, one of which is cut off and one at work; the id of the last one that is done."""
    with httpx.Client(base_url=url, timeout=60) as http:
        finished(http, submitted(http, b"RIFF....WAVE, and then nothing", "cut-off.wav"))
        jobs = [finished(http, submitted(http, path.read_bytes(), path.name, **OPTIONS), LONGEST_S) for path in files]
        last = submitted(http, files[-1].read_bytes(), files[-1].with_stem("interview").name, **OPTIONS)
        until(lambda: http.get(f"/transcribe/{last}").json()["progress"] > 0, LONGEST_S)
    return jobs[-1]


def picture(browser: Browser, url: str, path: str, file: Path, size: str, scheme: str) -> None:
    watch = Watch(url)
    with visited(browser, watch, color_scheme=scheme, viewport=SIZES[size], device_scale_factor=SCALE) as page:
        open_view(page, path)
        _ready(page, path)
        page.screenshot(path=file)
    print(file)


def _ready(page: Page, path: str) -> None:
    expect(page.locator(".job, .letter, .segments li, .card").first).to_be_visible()
    if path == VIEWS["health"]:
        page.wait_for_timeout(HISTORY_MS)
    if path.startswith("/jobs/"):
        segment(page, 2).locator(".word").nth(3).click()


if __name__ == "__main__":
    main()
