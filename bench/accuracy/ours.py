"""Our side: recordings go through the running service as any caller's do, and its segments come back.

It starts a stack of its own with the settings asked for, or uses one by its address.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.accuracy.cache import Asked
from bench.accuracy.manifest import Recording
from bench.clients import service

AT_ONCE = 4  # uploads
POLL_S = 0.5
FINAL = ("completed", "failed", "cancelled")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    key: str = ""
    model: str = ""  # to ask for; empty: the service's own

    def hear(self, recordings: Sequence[Recording], asked: Asked, *, given: bool) -> dict[str, Json]:
        """Answers by the recordings' ids, in the form of stock's. A job that failed has an empty text and its error."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        with (
            httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False) as client,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            jobs = list(pool.map(lambda one: self._submit(client, one, asked, given=given), recordings))
            return {one.id: _answer(client, job) for one, job in zip(recordings, jobs, strict=True)}

    def _submit(self, client: httpx.Client, recording: Recording, asked: Asked, *, given: bool) -> str:
        fields = {
            "beam_size": str(asked.beam_size), "vad_filter": str(asked.vad).lower(),
            "word_timestamps": str(asked.words).lower(),
        }  # fmt: skip
        fields |= {"language": recording.language} if given else {}
        fields |= {"model_size": self.model} if self.model else {}
        with recording.path.open("rb") as file:
            answer = client.post("/transcribe/", data=fields, files={"file": (recording.path.name, file)})
        if answer.status_code != 202:
            raise SystemExit(f"The service refused {recording.id}: {answer.status_code} {answer.text[:300]}")
        return str(answer.json()["job_id"])


@contextmanager
def own_service(model: Path, settings: Mapping[str, str]) -> Iterator[Service]:
    """A whole stack for as long as it is needed. `settings`: by their names, as in the environment."""
    told: dict[str, object] = {"max_waiting_jobs": 0, "whisper_model_size": model, "model_allowed_paths": model.parent}
    with service(**told | {name.lower(): value for name, value in settings.items()}) as stack:
        yield Service(stack.url)


def _answer(client: httpx.Client, job: str) -> Json:
    while (found := client.get(f"/transcribe/{job}").raise_for_status().json())["status"] not in FINAL:
        time.sleep(POLL_S)
    if found["status"] != "completed":
        return {"language": None, "text": "", "segments": [], "error": found["error"]}
    result = found["result"]
    return {
        "language": result["language"],
        "probability": result["language_probability"],
        "text": result["text"],
        "segments": [_segment(segment) for segment in result["segments"]],
        "model_used": found["model_used"],
    }


def _segment(segment: Json) -> Json:
    words = [{name: word[name] for name in ("word", "start", "end")} for word in segment.get("words") or ()]
    return {"start": segment["start"], "end": segment["end"], "text": segment["text"], "words": words}
