"""Whether the books balance after a fault: nothing lost, stuck, written twice or in half; Redis holds no-ops only."""

import base64
import json
from typing import Any
from uuid import UUID

from jobs.routing import QUEUES
from storage.keys import MARKER
from storage.local import PART
from tests.checker import check_invariants
from tests.faults.harness import FINAL, Service
from tests.processes import until


def check(service: Service, within_s: float = 60) -> None:
    """Waits until all is quiet, then raises AssertionError with the sentence that is not true."""
    until(lambda: not unfinished(service), within_s)
    until(lambda: not service.rows("SELECT 1 FROM error_logs WHERE notified_at IS NULL"), within_s)
    with service.session() as session:
        check_invariants(session, longest_silence_s=0)
    check_accepted(service)
    check_recordings(service)
    check_redis(service)


def unfinished(service: Service) -> list[dict[str, Any]]:
    return service.rows(
        "SELECT id, status, attempt, run_at FROM transcription_jobs WHERE status <> ALL(:final)", final=list(FINAL)
    )


def check_accepted(service: Service) -> None:
    """Accepted = completed + cancelled + failed; what else there is, its caller may have been refused."""
    rows = service.rows("SELECT id, filename, status FROM transcription_jobs")
    found = {row["id"] for row in rows}
    assert service.accepted <= found, f"lost: {service.accepted - found}"
    unknown = [row for row in rows if row["id"] not in service.accepted and row["filename"] not in service.in_doubt]
    assert not unknown, f"nobody sent {unknown}"
    assert len({row["filename"] for row in rows}) == len(rows), "one recording made two jobs"
    assert all(row["status"] in FINAL for row in rows), rows


def check_recordings(service: Service) -> None:
    """A job has its recording, whole; only a submit without an answer may leave one behind."""
    files = {path for path in service.audio.rglob("*") if path.is_file() and path.name != MARKER}
    rows = service.rows("SELECT storage_key, size_bytes FROM transcription_jobs")
    for row in rows:
        assert (service.audio / row["storage_key"]).stat().st_size == row["size_bytes"], row
    stray = files - {service.audio / row["storage_key"] for row in rows}
    assert len(stray) <= len(service.in_doubt), f"belong to nobody: {stray}"
    assert not [path for path in stray if path.suffix == PART], f"half-written: {stray}"


def check_redis(service: Service) -> None:
    """Every message that is left is a no-op: its job is final, its letter told."""
    bells = service.bells()
    jobs = {
        row["id"] for row in service.rows("SELECT id FROM transcription_jobs WHERE status = ANY(:s)", s=list(FINAL))
    }
    letters = {row["id"] for row in service.rows("SELECT id FROM error_logs WHERE notified_at IS NOT NULL")}
    taken: Any = bells.hvals("unacked")  # by a worker that was killed: Redis gives them back one day
    messages: list[Any] = [json.loads(pair)[0] for pair in taken]
    for queue in QUEUES:
        waiting: Any = bells.lrange(queue, 0, -1)
        messages += map(json.loads, waiting)
    awaited = {_subject(message) for message in messages} - jobs - letters
    assert not awaited, f"Redis holds {awaited}"


def _subject(message: dict[str, Any]) -> UUID:
    """The job or the letter that a doorbell is about."""
    return UUID(json.loads(base64.b64decode(message["body"]))[0][0])
