"""The whole service as `make run` starts it, with the real engine on the bundled model: what a caller gets."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil
import pytest

from stack.running import Stack
from tests.conftest import ROOT
from tests.media import Samples, write_media
from tests.processes import until
from tests.speech import word_error_rate

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]
SAMPLES = ROOT / "demo" / "samples"
SEVEN = "one two three four five six seven"
SPOKEN = json.loads((SAMPLES / "manifest.json").read_text())["english.wav"]["phrases"][0]
FINAL = ("completed", "failed", "cancelled")
REPEATABLE = {"beam_size": "1", "temperature": "0"}  # no fallback to sampling: its random numbers are the engine's own
Job = dict[str, Any]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, whisper_model_size="demo", lease_seconds=4, log_format="json") as running:
        yield running


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        yield client


def submit(http: httpx.Client, path: Path, **options: str) -> str:
    with path.open("rb") as file:
        answer = http.post("/transcribe/", files={"file": (path.name, file)}, data=options)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def finished(http: httpx.Client, job_id: str, within_s: float = 90) -> Job:
    def look() -> Job | None:
        job: Job = http.get(f"/transcribe/{job_id}").json()
        return job if job["status"] in FINAL else None

    job = until(look, within_s)
    assert job is not None
    return job


def english() -> Samples:
    """demo/samples/english.wav as (1, n) samples."""
    with av.open(str(SAMPLES / "english.wav")) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def rate() -> int:
    with av.open(str(SAMPLES / "english.wav")) as container:
        return int(container.streams.audio[0].rate)


@pytest.mark.parametrize("kind", ["wav", "mp3", "m4a", "ogg", "flac", "webm", "mp4"])
def test_speech_comes_back_as_text_from_any_container(http: httpx.Client, tmp_path: Path, kind: str) -> None:
    path = write_media(tmp_path / f"seven.{kind}", english(), rate=rate())
    job = finished(http, submit(http, path, model_size="demo"))
    assert job["status"] == "completed", job["error"]
    assert word_error_rate(SEVEN, job["result"]["text"]) <= 0.15, job["result"]["text"]
    assert (job["language"], job["model_used"]) == ("en", "demo")
    segments = job["result"]["segments"]
    assert segments[0]["start"] == pytest.approx(SPOKEN["start"], abs=0.3)
    assert segments[-1]["end"] == pytest.approx(SPOKEN["end"], abs=0.3)


def test_words_have_times_when_asked_for(http: httpx.Client) -> None:
    job = finished(http, submit(http, SAMPLES / "english.wav", word_timestamps="true", beam_size="1"))
    words = [word for segment in job["result"]["segments"] for word in segment["words"]]
    assert len(words) == job["result"]["word_count"]
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    assert SPOKEN["start"] - 0.4 <= starts[0] <= words[-1]["end"] <= SPOKEN["end"] + 0.4


@pytest.mark.parametrize(("name", "language"), [("german.mp3", "de"), ("french.ogg", "fr"), ("spanish.webm", "es")])
def test_other_languages_are_detected_and_transcribed(http: httpx.Client, name: str, language: str) -> None:
    job = finished(http, submit(http, SAMPLES / name))
    said = (SAMPLES / name).with_suffix(".txt").read_text()
    assert (job["status"], job["language"]) == ("completed", language)
    assert word_error_rate(said, job["result"]["text"]) <= 0.25, job["result"]["text"]


def test_silence_is_completed_with_an_empty_transcript(http: httpx.Client) -> None:
    job = finished(http, submit(http, SAMPLES / "silence.mp3"))
    assert (job["status"], job["result"]["text"], job["result"]["segments"]) == ("completed", "", [])
    assert job["result"]["duration"] > 1
    for name, content in (("srt", ""), ("vtt", "WEBVTT\n\n"), ("txt", "")):
        assert http.get(f"/transcribe/{job['job_id']}/result", params={"format": name}).text == content


def test_a_file_that_is_no_media_fails_clearly_and_can_be_replayed(http: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.mp3"
    path.write_text("invalid\n")
    job_id = submit(http, path)
    job = finished(http, job_id)
    assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", "undecodable_audio", 1)
    letters = http.get("/admin/errors", params={"resolved": False}).json()["data"]
    (letter,) = [one for one in letters if one["job_id"] == job_id]
    assert http.post(f"/admin/errors/{letter['id']}/replay").status_code == 202
    again = finished(http, job_id)
    assert (again["status"], again["attempt"]) == ("failed", 2)


def test_a_batch_is_completed_though_one_file_is_bad(http: httpx.Client) -> None:
    wav = (SAMPLES / "english.wav").read_bytes()
    parts = [("files", ("a.wav", wav)), ("files", ("b.docx", b"text " * 100)), ("files", ("c.wav", wav))]
    batch_id = http.post("/transcribe/batch", files=parts).json()["batch_id"]

    def done() -> Job | None:
        batch: Job = http.get(f"/batches/{batch_id}").json()
        return batch if batch["status"] == "completed" else None

    batch = until(done, 60)
    assert batch is not None
    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0, "cancelled": 0}


def test_every_log_line_of_a_job_names_it_from_the_api_to_the_worker(http: httpx.Client, stack: Stack) -> None:
    job_id = submit(http, SAMPLES / "english.wav")
    request_id = http.get(f"/transcribe/{job_id}").headers["x-request-id"]
    assert request_id
    finished(http, job_id)

    def lines(name: str) -> list[Job]:
        text = (stack.data_dir / "logs" / f"{name}.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and job_id in line]

    (accepted,) = [line for line in lines("api") if line["event"] == "job.accepted"]
    worked = until(lambda: [line for line in lines("worker") if line["event"] == "attempt.completed"])
    assert worked[0]["request_id"] == accepted["request_id"]


def test_flower_shows_the_tasks_to_those_who_may_see_them(http: httpx.Client, stack: Stack) -> None:
    finished(http, submit(http, SAMPLES / "english.wav"))
    url = next(entry.address for entry in stack.entries() if entry.name == "flower")
    password = (stack.data_dir / "secrets" / "flower").read_text().strip()
    assert httpx.get(f"{url}/api/tasks").status_code == 401

    def tasks() -> Any:
        answer = httpx.get(f"{url}/api/tasks", auth=("admin", password))
        return answer.status_code == 200 and answer.json()

    assert {task["name"] for task in until(tasks, 30).values()} >= {"transcribe"}


def test_an_upload_does_not_grow_the_api(http: httpx.Client, stack: Stack) -> None:
    """256 MiB through the API; it may keep a few pieces of 1 MiB, never the body."""
    api = psutil.Process(stack.pid_of("api"))
    size = 256 * 1024 * 1024
    before, peak = api.memory_info().rss, 0

    def body() -> Iterator[bytes]:
        nonlocal peak
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(size // (1024 * 1024)):
            peak = max(peak, api.memory_info().rss)
            yield bytes(1024 * 1024)
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = http.post("/transcribe/", content=body(), headers=headers, timeout=120)
    assert answer.status_code == 202
    assert peak - before < 32 * 1024 * 1024
    finished(http, answer.json()["job_id"])


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six minutes: the sample of a minute, again and again."""
    with av.open(str(SAMPLES / "english-minute.webm")) as container:
        to_speech = av.AudioResampler("s16", "mono", 16_000)
        frames = [piece for frame in container.decode(audio=0) for piece in to_speech.resample(frame)]
    minute = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    return write_media(tmp_path_factory.mktemp("long") / "long.flac", np.tile(minute, 6), rate=16_000)


def begun(http: httpx.Client, job_id: str) -> Job:
    """The job as soon as some of its segments are there."""

    def look() -> Job | None:
        job: Job = http.get(f"/transcribe/{job_id}").json()
        assert job["status"] in ("pending", "processing"), job
        return job if job["progress"] > 5 else None

    job = until(look, 60)
    assert job is not None
    return job


def test_a_running_job_is_cancelled_and_its_worker_is_free_within_seconds(
    http: httpx.Client, stack: Stack, long_recording: Path
) -> None:
    job_id = submit(http, long_recording)
    begun(http, job_id)
    assert http.delete(f"/transcribe/{job_id}").json()["status"] == "cancelled"
    log = stack.data_dir / "logs" / "worker.log"
    until(lambda: any("attempt.stopped" in line and job_id in line for line in log.read_text().splitlines()), 10)
    assert http.get(f"/transcribe/{job_id}").json()["status"] == "cancelled"
    assert http.get(f"/transcribe/{job_id}/segments").json()["segments"]


@pytest.fixture(scope="module")
def undisturbed(stack: Stack, long_recording: Path) -> Job:
    with httpx.Client(base_url=stack.url, timeout=30) as http:
        return finished(http, submit(http, long_recording, **REPEATABLE), 120)


def kill_worker(stack: Stack) -> None:
    os.kill(stack.pid_of("worker"), signal.SIGKILL)


def kill_children(stack: Stack) -> None:
    """As the kernel does when memory runs out."""
    for child in psutil.Process(stack.pid_of("worker")).children():
        if "engines.supervisor" not in child.cmdline():
            child.kill()


def stop_worker(stack: Stack) -> None:
    os.kill(stack.pid_of("worker"), signal.SIGTERM)


@pytest.mark.parametrize("end", [kill_worker, kill_children, stop_worker])
def test_a_recording_whose_worker_ends_goes_on_and_ends_as_if_nothing_had_happened(
    http: httpx.Client, stack: Stack, long_recording: Path, undisturbed: Job, end: Callable[[Stack], None]
) -> None:
    job_id = submit(http, long_recording, **REPEATABLE)
    begun(http, job_id)
    end(stack)
    before = http.get(f"/transcribe/{job_id}/segments").json()["segments"]
    job = finished(http, job_id, 120)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    assert job["result"]["segments"][: len(before)] == before
    assert job["result"]["segments"] == undisturbed["result"]["segments"]
    assert job["result"]["duration"] == undisturbed["result"]["duration"]


def test_an_engine_server_that_is_killed_costs_no_attempt(
    http: httpx.Client, stack: Stack, long_recording: Path, undisturbed: Job
) -> None:
    job_id = submit(http, long_recording, **REPEATABLE)
    begun(http, job_id)
    for server in engine_servers(stack):
        server.kill()
    job = finished(http, job_id, 120)
    assert (job["status"], job["attempt"]) == ("completed", 1)
    assert job["result"]["segments"] == undisturbed["result"]["segments"]


def engine_servers(stack: Stack) -> list[psutil.Process]:
    found = [
        process
        for process in psutil.Process(stack.pid_of("worker")).children(recursive=True)
        if "engines.server" in process.cmdline()
    ]
    assert found
    return found


@pytest.mark.parametrize("victim", ["api", "relay", "worker", "redis", "flower"])
def test_many_at_once_all_complete_though_a_process_is_killed(http: httpx.Client, stack: Stack, victim: str) -> None:
    def send(number: int) -> str:
        answer = httpx.post(
            f"{stack.url}/transcribe/",
            files={"file": (f"{number}.wav", wav)},
            data={"beam_size": "1", "priority": "high" if number % 4 == 0 else "normal"},
            timeout=30,
        )
        return str(answer.json()["job_id"])

    wav = (SAMPLES / "english.wav").read_bytes()
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(send, range(40 if victim == "worker" else 16)))
    os.kill(stack.pid_of(victim), signal.SIGKILL)
    until(lambda: victim in {entry.name for entry in stack.entries()}, 30)

    def statuses() -> list[str]:
        try:
            return [http.get(f"/transcribe/{job_id}").json()["status"] for job_id in jobs]
        except httpx.TransportError:
            return []

    until(lambda: (now := statuses()) and all(status in FINAL for status in now), 120)
    assert set(statuses()) == {"completed"}


def test_a_model_is_loaded_once_and_used_again(http: httpx.Client) -> None:
    wav = (SAMPLES / "english.wav").read_bytes()
    parts = [("files", (f"{n}.wav", wav)) for n in range(40)]
    before = http.get("/admin/health").json()["model_pool"]
    batch = http.post("/transcribe/batch", files=parts, data={"beam_size": "1"}).json()["batch_id"]
    until(lambda: http.get(f"/batches/{batch}").json()["status"] == "completed", 120)

    def grown() -> tuple[int, int] | None:
        after = http.get("/admin/health").json()["model_pool"]
        hits, misses = after["hits"] - before["hits"], after["misses"] - before["misses"]
        return (hits, misses) if hits + misses >= 40 else None

    hits, misses = until(grown, 30) or (0, 1)
    assert hits / (hits + misses) > 0.9


def test_a_model_is_loaded_and_unloaded_by_order_and_a_job_works_afterwards(http: httpx.Client) -> None:
    def loaded() -> list[Job]:
        (demo,) = [one for one in http.get("/admin/models").json()["data"] if one["size"] == "demo"]
        return list(demo["loaded"])

    finished(http, submit(http, SAMPLES / "english.wav"))
    assert http.delete("/admin/models/demo").status_code == 202
    until(lambda: not loaded(), 30)
    assert http.post("/admin/models/demo").status_code == 202
    assert all(one["memory_bytes"] > 0 for one in until(loaded, 30))
    assert http.delete("/admin/models/demo").json()["wanted"] == "unloaded"
    until(lambda: not loaded(), 30)
    assert finished(http, submit(http, SAMPLES / "english.wav"))["status"] == "completed"


def test_ctrl_c_stops_everything_and_a_second_start_keeps_the_data_and_warms_up(tmp_path: Path) -> None:
    with Stack(tmp_path, whisper_model_size="demo") as first:
        with httpx.Client(base_url=first.url, timeout=30) as http:
            job_id = submit(http, SAMPLES / "english.wav")
            finished(http, job_id)
        pids = [entry.pid for entry in first.entries()]
        children = [child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)]
        assert first.stop() == 0
    assert not [pid for pid in {*pids, *children} if psutil.pid_exists(pid)]
    assert not (tmp_path / "stack.json").exists()
    again = Stack(tmp_path, whisper_model_size="demo", model_warmup="true", celery_concurrency=1)
    with again as second, httpx.Client(base_url=second.url, timeout=30) as http:
        loaded = until(lambda: http.get("/admin/health").json()["model_pool"]["loaded"], 30)
        assert {model["size"] for model in loaded} == {"demo"}
        assert http.get(f"/transcribe/{job_id}").json()["status"] == "completed"
