"""A recording that is submitted by its address: fetched by the worker, once, within caps, and told as it goes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

import errors
from app import create_app
from config import Settings
from database import transaction
from engines.fake import encode_script
from jobs import attempt, fetch, read
from jobs import claim as claims
from tests.api_client import WAV, files_below, rows
from tests.far_server import Exchange, far_server
from tests.processes import until
from tests.workplaces import workplace

RECORDING = encode_script({"text": "hello"}, 1)


@pytest.fixture
def open_to_loopback(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"outbound_allow": "127.0.0.0/8", "engine": "fake", "max_upload_size_mb": 1, "retry_base_seconds": 0}
    )


@pytest.fixture
def work(open_to_loopback: Settings) -> attempt.Workplace:
    return workplace(open_to_loopback)


def submit(settings: Settings, url: str, **more: Any) -> UUID:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        answer = client.post("/transcribe/", json={"url": url, "vad_filter": False, "language": "en"} | more)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["job_id"])


def job_after(job_id: UUID, work: attempt.Workplace) -> Any:
    attempt.run(job_id, work)
    with transaction() as session:
        return read.get_job(session, job_id)


def serving(body: bytes, **headers: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.answer(200, body, **headers)


def test_a_recording_is_fetched_and_transcribed(work: attempt.Workplace) -> None:
    with far_server(serving(RECORDING)) as far:
        job = job_after(submit(work.settings, far.url("/talks/Talk%20one.wav?token=secret")), work)
    assert job.status == "completed", job.error_message
    assert job.filename == "Talk one.wav"
    assert job.download == {"received_bytes": len(RECORDING), "total_bytes": len(RECORDING)}
    assert (job.size_bytes, len(job.sha256)) == (len(RECORDING), 64)
    assert len(far.seen) == 1


def test_the_name_that_the_server_gives_is_the_recordings(work: attempt.Workplace) -> None:
    """An address often ends in a number or a word like "download"."""
    named = serving(RECORDING, Content_Disposition='attachment; filename="call 7.mp3"')
    with far_server(named) as far:
        job = job_after(submit(work.settings, far.url("/download?id=7")), work)
    assert (job.status, job.filename) == ("completed", "call 7.mp3")


def test_an_attempt_after_the_first_does_not_fetch_again(work: attempt.Workplace, tmp_path: Path) -> None:
    script = {"raise": "value_error", "times": 1, "marker": str(tmp_path / "marker")}
    with far_server(serving(encode_script(script, 1))) as far:
        job_id = submit(work.settings, far.url())
        assert job_after(job_id, work).status == "pending"
        with transaction() as session:
            session.connection().exec_driver_sql("UPDATE transcription_jobs SET run_at = now()")
        assert job_after(job_id, work).status == "completed"
        assert len(far.seen) == 1


def test_what_an_attempt_fetched_and_could_not_write_down_is_fetched_again_and_described_in_full(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording is committed, and then the database is away for longer than the attempt waits."""
    named = serving(RECORDING, Content_Disposition='attachment; filename="call 7.mp3"')
    write = attempt._Attempt._write

    def fail_once(self: attempt._Attempt, rows: list[dict[str, Any]] | None = None, **values: Any) -> None:
        if "sha256" in values and self._fence.attempt == 1:
            raise errors.Unavailable("The database is away.")
        write(self, rows, **values)

    monkeypatch.setattr(attempt._Attempt, "_write", fail_once)
    with far_server(named) as far:
        job_id = submit(work.settings, far.url("/download?id=7"))
        assert job_after(job_id, work).status == "pending"
        with transaction() as session:
            session.connection().exec_driver_sql("UPDATE transcription_jobs SET run_at = now()")
        job = job_after(job_id, work)
    assert (job.status, job.filename) == ("completed", "call 7.mp3")
    assert (job.size_bytes, len(job.sha256)) == (len(RECORDING), 64)


def test_what_a_lost_attempt_fetches_late_neither_stays_nor_takes_the_new_ones_away(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes after another attempt has fetched, and finds at its write that the job is no longer its own."""
    write, done = attempt._Attempt._write, list[str]()

    def lose(self: attempt._Attempt, rows: list[dict[str, Any]] | None = None, **values: Any) -> None:
        if "sha256" in values and self._fence.attempt == 1:
            claims.release(self._fence, reason="lost", patience_s=1)
            done.append(job_after(job_id, work).status)
        write(self, rows, **values)

    monkeypatch.setattr(attempt._Attempt, "_write", lose)
    with far_server(serving(RECORDING)) as far:
        job_id = submit(work.settings, far.url())
        job = job_after(job_id, work)
    assert (done, job.status) == (["completed"], "completed")
    assert files_below(work.settings.storage_dir) == [work.settings.storage_dir / job.storage_key]


def test_a_form_and_a_multipart_form_may_name_an_address_too(open_to_loopback: Settings) -> None:
    with TestClient(create_app(open_to_loopback), base_url="http://127.0.0.1") as client:
        urlencoded = client.post("/transcribe/", data={"url": "https://example.com/a.mp3", "language": "de"})
        multipart = client.post("/transcribe/", files={"url": (None, "https://example.com/a.mp3")})
    assert (urlencoded.status_code, multipart.status_code) == (202, 202)
    assert rows("SELECT source_url, filename, size_bytes FROM transcription_jobs") == 2 * [
        ("https://example.com/a.mp3", "a.mp3", 0)
    ]


@pytest.mark.parametrize(
    ("status", "code", "ends"), [(404, "fetch_refused", "failed"), (503, "fetch_failed", "pending")]
)
def test_what_the_far_server_says_decides_whether_it_is_tried_again(
    work: attempt.Workplace, status: int, code: str, ends: str
) -> None:
    with far_server(lambda exchange: exchange.answer(status)) as far:
        job = job_after(submit(work.settings, far.url()), work)
    assert (job.status, job.error_code) == (ends, code)
    assert str(status) in job.error_message


@pytest.mark.parametrize("announced", [True, False])
def test_a_recording_over_the_cap_is_refused_and_leaves_nothing(work: attempt.Workplace, announced: bool) -> None:
    def play(exchange: Exchange) -> None:
        exchange.begin(200, 2 * 1024**2 if announced else None, Connection="close")
        exchange.wfile.write(bytes(2 * 1024**2))
        exchange.close_connection = True

    with far_server(play) as far:
        job = job_after(submit(work.settings, far.url()), work)
    assert (job.status, job.error_code) == ("failed", "fetch_refused")
    assert files_below(work.settings.storage_dir) == []


def test_a_connection_that_breaks_is_resumed_where_it_broke(work: attempt.Workplace) -> None:
    half = len(RECORDING) // 2

    def play(exchange: Exchange) -> None:
        start = exchange.headers["Range"]
        if start is None:
            exchange.begin(200, len(RECORDING), ETag='"one"')
            exchange.wfile.write(RECORDING[:half])
            exchange.close_connection = True
            return
        rest = RECORDING[int(start[6:-1]) :]
        begin = len(RECORDING) - len(rest)
        exchange.answer(206, rest, ETag='"one"', Content_Range=f"bytes {begin}-{len(RECORDING) - 1}/{len(RECORDING)}")

    with far_server(play) as far:
        job = job_after(submit(work.settings, far.url()), work)
    assert job.status == "completed", job.error_message
    assert far.headers("Range")[1] == f"bytes={half}-"


def test_a_long_download_tells_how_far_it_is_and_stops_when_it_is_cancelled(
    work: attempt.Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "SAID_EVERY_S", 0.05)

    def play(exchange: Exchange) -> None:
        exchange.begin(200, 900_000)
        exchange.wfile.write(bytes(300_000))
        exchange.drip(bytes(1000))

    def look() -> None:
        until(lambda: (rows("SELECT download->>'received_bytes' FROM transcription_jobs") or [(None,)])[0][0])
        with TestClient(create_app(work.settings), base_url="http://127.0.0.1") as client:
            job = client.get(f"/transcribe/{job_id}").json()
            assert job["download"]["total_bytes"] == 900_000
            assert 300_000 <= job["download"]["received_bytes"] < 900_000
            assert client.delete(f"/transcribe/{job_id}").status_code == 200

    with far_server(play) as far:
        job_id = submit(work.settings, far.url())
        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            job = job_after(job_id, work)
            looking.result(30)
    assert job.status == "cancelled"
    assert files_below(work.settings.storage_dir) == []


def test_a_name_that_leads_inside_fails_at_the_worker_for_good_and_says_nothing_of_where_it_leads(
    work: attempt.Workplace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.1.2.3", 80))])
    closed = replace(work, settings=settings.model_copy(update={"engine": "fake"}))
    job = job_after(submit(settings, "http://intranet.example/a.wav"), closed)
    assert (job.status, job.error_code) == ("failed", "address_refused")
    assert "10.1.2.3" not in job.error_message


REFUSED = [
    "http://127.0.0.1/a.wav", "http://2130706433/", "http://0x7f000001/", "http://[::ffff:127.0.0.1]/", "http://[::1]/",
    "http://169.254.169.254/latest/meta-data/", "http://localhost:8000/admin/keys", "file:///etc/passwd",
    "ftp://example.com/a.wav", "//example.com/a.wav", "http://user:word@example.com/a.wav", "/etc/passwd", "x" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("field", ["url", "webhook_url"])
@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_leads_inside_is_refused_at_once(client: TestClient, field: str, address: str) -> None:
    form = {field: address}
    files = {"file": ("a.wav", WAV)} if field == "webhook_url" else None
    answer = client.post("/transcribe/", data=form, files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "address_refused"), answer.text
    assert rows("SELECT id FROM transcription_jobs") == []


def test_a_file_and_an_address_together_are_refused_and_nothing_is_stored(client: TestClient, data_dir: Path) -> None:
    form = {"url": "https://example.com/a.mp3"}
    answer = client.post("/transcribe/", data=form, files={"file": ("a.wav", WAV)})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "url")
    assert files_below(data_dir / "audio") == []


@pytest.mark.parametrize("body", [b"[]", b"{", b'"x"', b'{"url": 7}', b"\xff", b"[" * 100_000])
def test_a_json_body_that_is_none_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/transcribe/", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (413, 422), answer.text


def test_the_api_itself_fetches_nothing(work: attempt.Workplace, open_to_loopback: Settings) -> None:
    with far_server(serving(RECORDING)) as far:
        job_id = submit(work.settings, far.url())
        with TestClient(create_app(open_to_loopback), base_url="http://127.0.0.1") as client:
            assert client.get(f"/transcribe/{job_id}").json()["source_url"] == far.url()
        assert far.seen == []
