"""The memory of a worker for a recording of ten hours, against one of ten minutes, and when its first words are there.

`python -m bench.memory`: about ten minutes. A real stack for each recording: API, PostgreSQL, Redis, one worker child.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from bench import recordings
from stack.running import Stack

RESULTS = Path(__file__).with_name("results") / "memory.json"
SHORT_S = 600
MARGIN_MB = 150  # the promise: a long recording takes at most so much more
FIRST_SEGMENT_S = 10.0  # the promise says "seconds"; a cold worker loads its model within them
POLL_S = 0.02
FINAL = ("completed", "failed", "cancelled")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    container: str
    hours: float
    worker_mb: float  # peak resident memory of the worker's child
    decoder_mb: float  # and of the decoder that it started
    first_segment_s: float  # from the claim until the API showed a segment
    seconds: float  # from the claim until the job was completed
    segments: int


class Peaks:
    """The most that any process has had in memory, by the kernel's own count."""

    def __init__(self, worker: int) -> None:
        self._worker = psutil.Process(worker)
        self.worker_mb = self.decoder_mb = 0.0

    def look(self) -> None:
        for process in self._worker.children(recursive=True):
            if is_decoder(process):
                self.decoder_mb = max(self.decoder_mb, peak_mb(process.pid))
            else:
                self.worker_mb = max(self.worker_mb, peak_mb(process.pid))


def is_decoder(process: psutil.Process) -> bool:
    try:
        return any(word.endswith("decoder.py") for word in process.cmdline())
    except psutil.Error:
        return True  # gone already, as only decoders go


def peak_mb(pid: int) -> float:
    """VmHWM; 0 where the process has ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def measure(path: Path, seconds: int) -> Run:
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), whisper_model_size="demo", celery_concurrency=1) as stack,
    ):
        peaks = Peaks(stack.pid_of("worker"))
        job_id = submit(stack.url, path)
        first_segment_s = wait_for_segment(stack.url, job_id, peaks)
        job = wait_for_end(stack.url, job_id, peaks)
        found = len(job["result"]["segments"])
    took = (moment(job["completed_at"]) - moment(job["started_at"])).total_seconds()
    return Run(
        path.suffix[1:],
        round(seconds / 3600, 2),
        round(peaks.worker_mb, 1),
        round(peaks.decoder_mb, 1),
        round(first_segment_s, 2),
        round(took, 1),
        found,
    )


def wait_for_segment(url: str, job_id: str, peaks: Peaks) -> float:
    while not get(url, f"/transcribe/{job_id}/segments?limit=1")["segments"]:
        peaks.look()
        time.sleep(POLL_S)
    seen = datetime.now(UTC)
    return (seen - moment(get(url, f"/transcribe/{job_id}")["started_at"])).total_seconds()


def wait_for_end(url: str, job_id: str, peaks: Peaks) -> Json:
    while (job := get(url, f"/transcribe/{job_id}"))["status"] not in FINAL:
        peaks.look()
        time.sleep(0.2)
    if job["status"] != "completed":
        raise SystemExit(f"The job {job['status']}: {job['error']}")
    return job


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def submit(url: str, path: Path) -> str:
    """Streamed: the recording is never held whole here either."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'.encode()
    tail = b'\r\n--b\r\nContent-Disposition: form-data; name="beam_size"\r\n\r\n1\r\n--b--\r\n'
    length = str(len(head) + path.stat().st_size + len(tail))
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": length}
    answer: str = call(url, "POST", "/transcribe/", body(head, path, tail), headers)["job_id"]
    return answer


def body(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece
    yield tail


def get(url: str, path: str) -> Json:
    return call(url, "GET", path)


def call(
    url: str, method: str, path: str, content: Iterator[bytes] | None = None, headers: dict[str, str] | None = None
) -> Json:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=300)
    try:
        connection.request(method, path, content, headers or {})
        answer = connection.getresponse()
        found: Json = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status >= 400:
        raise SystemExit(f"{method} {path}: {answer.status} {found}")
    return found


def report(runs: list[Run]) -> Json:
    """The table's figures, and for each container whether the promise holds."""
    verdicts = {}
    for container in dict.fromkeys(run.container for run in runs):
        short, long = (run for run in runs if run.container == container)
        grown = round(long.worker_mb - short.worker_mb + long.decoder_mb - short.decoder_mb, 1)
        holds = grown <= MARGIN_MB and long.first_segment_s <= FIRST_SEGMENT_S
        verdicts[container] = {"grown_mb": grown, "first_segment_s": long.first_segment_s, "holds": holds}
    return {"margin_mb": MARGIN_MB, "runs": [asdict(run) for run in runs], "verdicts": verdicts}


def show(run: Run) -> None:
    print(
        f"{run.container:9} {run.hours:6.2f} {run.worker_mb:10.1f} {run.decoder_mb:11.1f} "
        f"{run.first_segment_s:14.2f} {run.seconds:9.1f} {run.segments:9d}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.memory", description=__doc__)
    parser.add_argument("--hours", type=float, default=10, help="length of the long recording")
    parser.add_argument("--containers", nargs="+", default=["wav", "opus"], choices=["wav", "opus"])
    given = parser.parse_args()
    print("One minute in ten is speech, the rest a quiet room. Memory: peak resident, MB. Times from the claim, s.")
    print("container  hours  worker MB  decoder MB  first segment      done  segments")
    runs = []
    for container in given.containers:
        for seconds in (SHORT_S, round(given.hours * 6) * 600):
            with tempfile.TemporaryDirectory() as folder:
                path = recordings.write(Path(folder) / f"recording.{container}", seconds)
                runs.append(measure(path, seconds))
            show(runs[-1])
    found = report(runs)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    for container, verdict in found["verdicts"].items():
        says = "holds" if verdict["holds"] else "BROKEN"
        print(f"{container}: {verdict['grown_mb']} MB more (at most {MARGIN_MB}): {says}")
    return 0 if all(verdict["holds"] for verdict in found["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
