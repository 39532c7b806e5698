"""How long an urgent clip of ten seconds takes while a recording of three hours is on the same device.

`python -m bench.priority`: a stack with a `base` of random weights. Promised: at most 3 x its time on an idle service.
"""

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench import recordings
from bench.models import FOLDER, model
from bench.sounds import write_wav
from stack.running import Stack

RESULTS = Path(__file__).with_name("results") / "priority.json"
PROMISE = 3.0
Json = dict[str, Any]


def submit(http: httpx.Client, path: Path, **options: str) -> str:
    with path.open("rb") as file:
        answer = http.post("/transcribe/", files={"file": (path.name, file)}, data={"beam_size": "1", **options})
    return str(answer.raise_for_status().json()["job_id"])


def seconds(http: httpx.Client, path: Path, size: str) -> float:
    """From the POST to the completed job, for ten new seconds of speech."""
    write_wav(path, 10)
    started = time.monotonic()
    job_id = submit(http, path, model_size=size, priority="high", temperature="0", language="en")
    while (job := http.get(f"/transcribe/{job_id}").json())["status"] != "completed":
        if job["status"] == "failed":
            raise RuntimeError(job["error"])
        time.sleep(0.01)
    return time.monotonic() - started


def run(rounds: int) -> Json:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = str(model("base"))
        long, short = recordings.write_speech(folder / "long.wav", 3 * 3600), folder / "clip.wav"
        settings: Json = {"model_allowed_paths": FOLDER, "whisper_model_size": chosen}
        with Stack(folder / "data", **settings) as stack, httpx.Client(base_url=stack.url, timeout=60) as http:
            seconds(http, short, chosen)  # loads it
            idle = [seconds(http, short, chosen) for _ in range(rounds)]
            busy_with = submit(http, long, model_size=chosen, temperature="0", language="en")
            while not http.get(f"/transcribe/{busy_with}").json()["progress"]:
                time.sleep(0.1)
            busy = [seconds(http, short, chosen) for _ in range(rounds)]
    return {
        "idle_s": round(median(idle), 2),
        "busy_s": round(median(busy), 2),
        "ratio": round(median(busy) / median(idle), 2),
        "worst_ratio": round(max(busy) / median(idle), 2),
        "rounds": rounds,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.priority", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    found = run(parser.parse_args().rounds)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0 if found["ratio"] <= PROMISE else 1


if __name__ == "__main__":
    sys.exit(main())
