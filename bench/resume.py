"""What a killed worker costs: an hour of recording, killed at 90 %, against the same hour undisturbed.

`python -m bench.resume`: some minutes, on a stack with the bundled model. The promise: at most 12 % is done again.
"""

import json
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import recordings
from stack.running import Stack
from tests.processes import until

RESULTS = Path(__file__).with_name("results") / "resume.json"
KILL_AT = 90.0  # percent
PROMISE = 0.12
OPTIONS = {"beam_size": "1", "temperature": "0"}  # sampling would not repeat
LEASE_S = 4
Json = dict[str, Any]


def submit(http: httpx.Client, path: Path) -> str:
    with path.open("rb") as file:
        answer = http.post("/transcribe/", files={"file": (path.name, file)}, data=OPTIONS)
    return str(answer.raise_for_status().json()["job_id"])


def wait(http: httpx.Client, job_id: str, *, percent: float) -> Json:
    """The job, once it has come so far."""
    while True:
        job: Json = http.get(f"/transcribe/{job_id}").json()
        if job["status"] == "failed" or job["progress"] >= percent:
            return job
        time.sleep(0.02)


def kill_all_of(pid: int) -> None:
    """A worker and its children at once: an orphan would finish what little is left."""
    worker = psutil.Process(pid)
    for process in (*worker.children(recursive=True), worker):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def attempt_seconds(stack: Stack, job_id: str, attempt: int) -> float:
    """How long an attempt worked, from the workers' logs, which come a moment after the result."""
    until(lambda: logged(stack, job_id, attempt), within_s=30)
    return logged(stack, job_id, attempt)[0]


def logged(stack: Stack, job_id: str, attempt: int) -> list[float]:
    lines = "".join(log.read_text() for log in (stack.data_dir / "logs").glob("worker*.log")).splitlines()
    told = [json.loads(line) for line in lines if job_id in line and '"attempt.completed"' in line]
    return [float(one["seconds"]) for one in told if one["attempt"] == attempt]


def run(hours: float) -> Json:
    with tempfile.TemporaryDirectory() as folder:
        path = recordings.write_speech(Path(folder) / "long.wav", round(hours * 3600))
        settings: Json = {"whisper_model_size": "demo", "lease_seconds": LEASE_S, "log_format": "json"}
        with Stack(Path(folder) / "data", **settings) as stack, httpx.Client(base_url=stack.url, timeout=60) as http:
            undisturbed = submit(http, path)
            whole = wait(http, undisturbed, percent=100)
            disturbed = submit(http, path)
            killed_at = wait(http, disturbed, percent=KILL_AT)["progress"]
            kill_all_of(stack.pid_of("worker"))
            resumed = wait(http, disturbed, percent=100)
            whole_s, rest_s = attempt_seconds(stack, undisturbed, 1), attempt_seconds(stack, disturbed, 2)
            return {
                "hours": hours,
                "undisturbed_s": round(whole_s, 2),
                "killed_at_percent": killed_at,
                "second_attempt_s": round(rest_s, 2),
                "done_again": round(rest_s / whole_s - (100 - killed_at) / 100, 4),
                "same_segments": resumed["result"]["segments"] == whole["result"]["segments"],
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }


def main() -> int:
    found = run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0 if found["done_again"] <= PROMISE and found["same_segments"] else 1


if __name__ == "__main__":
    sys.exit(main())
