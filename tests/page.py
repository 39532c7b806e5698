"""What the tests of the page share: recordings of a service that is asked beside the browser, places on the page."""

import base64
import re

import httpx
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Locator, Page, expect

from tests.conftest import ROOT
from tests.processes import until

SAMPLES = ROOT / "demo" / "samples"
STAY_SIGNED_IN = "sessionStorage.setItem('api-key', {key!r})"
AXE = Axe()


def signed_in(page: Page, key: str) -> Page:
    page.add_init_script(STAY_SIGNED_IN.format(key=key))
    return page


def submitted(http: httpx.Client, content: bytes, name: str, **options: str) -> str:
    answer = http.post("/transcribe/", files={"file": (name, content)}, data=options)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def finished(http: httpx.Client, job_id: str, within_s: float = 60) -> str:
    def is_final() -> bool:
        return http.get(f"/transcribe/{job_id}").json()["status"] in ("completed", "failed", "cancelled")

    until(is_final, within_s)
    return job_id


def sample(http: httpx.Client, file: str, name: str) -> str:
    options = {"word_timestamps": "true", "beam_size": "1"}
    return finished(http, submitted(http, (SAMPLES / file).read_bytes(), name, **options))


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    """As from a file manager."""
    encoded = [(name, base64.b64encode(content).decode()) for name, content in files]
    transfer = page.evaluate_handle(
        """files => files.reduce((transfer, [name, content]) => {
            transfer.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name));
            return transfer;
        }, new DataTransfer())""",
        encoded,
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})


def row(page: Page, name: str) -> Locator:
    return page.locator(".job", has=page.get_by_role("link", name=name, exact=True))


def segment(page: Page, number: int) -> Locator:
    return page.locator(f"#segment-{number}")


def open_view(page: Page, path: str, heading: str | re.Pattern[str] = "") -> None:
    page.goto(f"/ui/#{path}")
    expect(page.get_by_role("heading", level=1, name=heading or re.compile("."))).to_be_visible()


def check_axe(page: Page, where: str) -> None:
    results = AXE.run(page)
    assert results.violations_count == 0, f"{where}: {results.generate_report()}"
