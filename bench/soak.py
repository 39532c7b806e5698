"""The whole stack with the real engine under random faults, while callers submit: at the end the books must balance.

`python -m bench.soak --minutes 5 --seed N`: one summary line; exit status 1 when a promise broke.
"""

import argparse
import hashlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from bench.callers import Api, Books, Callers, Recording
from bench.havoc import FINAL, Havoc
from stack.running import Stack
from tests.checker import check_invariants
from tests.media import write_silent_film
from tests.speech import word_error_rate

SAMPLES = Path(__file__).parents[1] / "demo" / "samples"
SPOKEN = ("english.wav", "british.m4a", "german.mp3", "french.ogg", "spanish.webm", "silence.mp3")
CALLERS, PAUSE_S = 3, 2.5
QUIET_WITHIN_S = 240.0
WORST_WER = 0.34  # of one short recording; words wrong to words said
SETTINGS: dict[str, Any] = {"lease_seconds": 5, "republish_seconds": 5, "retry_max_seconds": 5, "log_format": "json"}
Row = dict[str, Any]


@dataclass(slots=True)
class Verdict:
    counts: dict[str, int]
    broken: list[str] = field(default_factory=list)

    def expect(self, sentence: str, offenders: Sequence[object]) -> None:
        if offenders:
            self.broken.append(f"{sentence}: {list(offenders)[:5]}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return soak(Path(folder), minutes=given.minutes, seed=given.seed)


def soak(folder: Path, *, minutes: float, seed: int) -> int:
    folder.chmod(0o755)  # PostgreSQL is another user where we are root
    random = Random(seed)
    good, poison = recordings(folder)
    with Stack(folder / "data", fast=False, whisper_model_size="demo", **SETTINGS) as stack:
        api, havoc = Api(stack.url), Havoc(stack, random)
        callers = Callers(api, good * 4 + poison, random, count=CALLERS, pause_s=PAUSE_S)
        with callers.calling():
            rage(havoc, api, callers.books, good[0], random, minutes * 60)
        verdict = judge(stack, callers.books)
    verdict.expect("a caller got a wrong answer", callers.errors)
    tell(verdict, havoc, callers.books, seed)
    return 1 if verdict.broken else 0


def recordings(folder: Path) -> tuple[list[Recording], list[Recording]]:
    """Speech whose text is known, and files that must become dead letters."""
    good = [Recording(SAMPLES / name, (SAMPLES / name).with_suffix(".txt").read_text()) for name in SPOKEN]
    corrupt, prose = folder / "corrupt.wav", folder / "prose.mp3"
    corrupt.write_bytes(Random(1).randbytes(20_000))
    prose.write_text("This was never a recording.\n" * 200)
    film = write_silent_film(folder / "silent.mp4")
    return good, [Recording(path, None) for path in (corrupt, prose, film)]


def rage(havoc: Havoc, api: Api, books: Books, canary: Recording, random: Random, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        Event().wait(random.uniform(1, 6))
        fault = havoc.strike()
        try:
            havoc.recover(fault, api, books, canary)
        except AssertionError as stuck:
            print(stuck, flush=True)
            return  # the books will say what is stuck


def database(stack: Stack) -> Engine:
    address = next(entry.address for entry in stack.entries() if entry.name == "postgres")
    password = (stack.data_dir / "secrets" / "postgres").read_text().strip()
    return create_engine(f"postgresql+psycopg2://postgres:{password}@127.0.0.1:{urlsplit(address).port}/transcription")


def judge(stack: Stack, books: Books) -> Verdict:
    engine = database(stack)
    end = time.monotonic() + QUIET_WITHIN_S
    while unfinished(engine) and time.monotonic() < end:
        Event().wait(0.5)
    jobs = rows(engine, "SELECT job.*, text FROM transcription_jobs job LEFT JOIN transcription_results ON id = job_id")
    verdict = Verdict({status: sum(job["status"] == status for job in jobs) for status in FINAL})
    check_books(verdict, jobs, books)
    check_transcripts(verdict, jobs, books)
    check_recordings(verdict, jobs, stack.data_dir / "audio")
    try:
        with Session(engine) as session:
            check_invariants(session, longest_silence_s=0)
    except AssertionError as broken:
        verdict.broken.append(str(broken))
    engine.dispose()
    return verdict


def unfinished(engine: Engine) -> list[Row]:
    return rows(engine, "SELECT id FROM transcription_jobs WHERE completed_at IS NULL")


def rows(engine: Engine, statement: str) -> list[Row]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(statement)).mappings()]


def check_books(verdict: Verdict, jobs: list[Row], books: Books) -> None:
    by_id = {str(job["id"]): job for job in jobs}
    lost = [job_id for job_id in books.accepted if job_id not in by_id]
    stuck = [job["id"] for job in jobs if job["status"] not in FINAL]
    strangers = [job for job in jobs if str(job["id"]) not in books.accepted]
    double = [job["filename"] for job in strangers if job["filename"] not in books.unanswered]
    verdict.counts |= {"lost": len(lost), "stuck": len(stuck), "double": len(double), "unanswered": len(strangers)}
    verdict.expect("lost", lost)
    verdict.expect("stuck", stuck)
    verdict.expect("there without having been sent once more", double)
    alive = [job_id for job_id in books.cancelled if job_id in by_id and by_id[job_id]["status"] != "cancelled"]
    verdict.expect("cancelled, and then something else", alive)


def check_transcripts(verdict: Verdict, jobs: list[Row], books: Books) -> None:
    for job in jobs:
        recording = books.accepted.get(str(job["id"]))
        if recording is None or job["status"] == "cancelled":
            continue
        expected = "failed" if recording.said is None else "completed"
        if job["status"] != expected:
            verdict.broken.append(f"{recording.path.name} {job['id']} is {job['status']}: {job['error_message']}")
        elif recording.said is not None and word_error_rate(recording.said, job["text"]) > WORST_WER:
            verdict.broken.append(f"{recording.path.name} {job['id']} became: {job['text']}")


def check_recordings(verdict: Verdict, jobs: list[Row], folder: Path) -> None:
    """Also of jobs whose callers got no answer: whole, or not there."""
    half = [job["id"] for job in jobs if not is_whole(folder / job["storage_key"], job["sha256"])]
    verdict.expect("half-written", half)


def is_whole(path: Path, sha256: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def tell(verdict: Verdict, havoc: Havoc, books: Books, seed: int) -> None:
    worst = max(havoc.recoveries.items(), key=lambda item: item[1], default=("nothing", 0.0))
    for fault, seconds in sorted(havoc.recoveries.items(), key=lambda item: -item[1]):
        print(f"  {seconds:6.1f} s  {fault}")
    for sentence in verdict.broken:
        print(f"BROKEN  {sentence}")
    counts = verdict.counts | {"faults": havoc.faults.total(), "refused_503": books.refused}
    summary = {"accepted": len(books.accepted), **counts, "worst_recovery_s": round(worst[1], 1), "seed": seed}
    print(json.dumps(summary | {"ok": not verdict.broken}))


if __name__ == "__main__":
    sys.exit(main())
