"""How jobs stand: one list request for many of them, one request each for a few. Never waits, never tries again."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from transcribe_client.api import Api, Job
from transcribe_client.failures import Refused
from transcribe_client.wording import moment

FINAL = ("completed", "failed", "cancelled")
FEW = 4  # asked for one by one, which also tells their place in the queue and the time that is left
PAGE = 100  # the longest that the service gives
SPARE_PAGES = 3  # jobs of others stand between ours
MISSING_AT_ONCE = 20
GONE: Job = {"status": "gone"}


@dataclass(slots=True)
class Follower:
    """The jobs that are not final yet, as they were last seen."""

    api: Api
    jobs: dict[str, Job] = field(default_factory=dict)

    def add(self, job: Job) -> None:
        self.jobs[job["job_id"]] = _without_result(job)

    def drop(self, job_id: str) -> None:
        self.jobs.pop(job_id, None)

    def look(self) -> list[str]:
        """Look once; the ids of those that are final, or gone. They are told again until they are dropped."""
        if len(self.jobs) > FEW:
            seen = self._listed()
            missing = [job_id for job_id in self.jobs if job_id not in seen][:MISSING_AT_ONCE]
            few = list(dict.fromkeys([*missing, *self.foremost(FEW)]))
        else:
            few = list(self.jobs)
        for job_id in few:
            self._ask(job_id)
        return [job_id for job_id, job in self.jobs.items() if job["status"] in (*FINAL, "gone")]

    def foremost(self, count: int) -> list[str]:
        """Those that are being transcribed first, then those that wait."""
        standing = [(job["status"] != "processing", job_id) for job_id, job in self.jobs.items()]
        return [job_id for _, job_id in sorted(standing, key=lambda one: one[0])[:count]]

    def _ask(self, job_id: str) -> None:
        job = self.jobs.pop(job_id)  # to the end: of many that no list shows, each has its turn
        try:
            job = _without_result(self.api.get(f"/transcribe/{job_id}"))
        except Refused as failure:
            if failure.status != 404:
                raise
            job = job | GONE
        finally:
            self.jobs[job_id] = job

    def _listed(self) -> set[str]:
        seen = set[str]()
        for page, job in self._pages():
            if job["job_id"] in self.jobs:
                self.jobs[job["job_id"]] |= job
                seen.add(job["job_id"])
            if len(seen) == len(self.jobs) or page > len(self.jobs) // PAGE + SPARE_PAGES:
                break
        return seen

    def _pages(self) -> Iterator[tuple[int, Job]]:
        since = min(moment(job["created_at"]) for job in self.jobs.values()) - timedelta(milliseconds=1)
        page, after = 0, None
        while True:
            page += 1
            found: dict[str, Any] = self.api.get("/jobs/", created_after=since.isoformat(), limit=PAGE, after=after)
            yield from ((page, job) for job in found["data"])
            if not found["has_more"]:
                return
            after = found["last_id"]


def _without_result(job: Job) -> Job:
    """Of hundreds of long recordings, all the text would be too much to hold."""
    return {name: value for name, value in job.items() if name != "result"}
