"""What is cleared away: jobs past their time, recordings of no job, history of long ago. A bounded part each round."""

import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from threading import Event, Thread
from time import monotonic
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, false, func, or_, select
from sqlalchemy.orm import Session

import errors
from config import Settings
from database import transaction
from jobs.files import adopt, delete_files
from jobs.idempotency import FORGOTTEN_AT_ONCE, forget_old
from jobs.states import FINAL
from jobs.sweep import try_lead
from models import Batch, ErrorLog, Job, JobEvent
from storage import Storage
from telemetry.events import emit

HOUSEKEEPER_LOCK = 7_203_413
ROUND_S = 10.0
ORPHANS_EVERY_S = 3600.0
ORPHAN_AGE = timedelta(hours=24)  # older than any upload that is still coming in: its jobs are inserted at the end
JOBS_AT_MOST, FILES_AT_MOST, EVENTS_AT_MOST = 100, 500, 5000  # a round
BATCHES_AT_ONCE = 200  # looked at in a round; most still have their jobs
DELETING_S = 4.0  # of a round: PostgreSQL ends a transaction that waits 10 s for a slow storage
PAUSE_S = 0.1  # between rounds, as long as one leaves work for the next


class Housekeeper:
    """One of all relays works at a time, on a thread of its own: a storage that hangs must not hold up doorbells."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._done = Event()
        self._counts: Counter[str] = Counter(deleted_jobs=0, deleted_files=0, deleted_events=0, deleted_batches=0)
        self._last_run: datetime | None = None
        self._last_batch: uuid.UUID | None = None
        self._is_adopted = False
        self._files: Iterator[str] = iter(())
        self._look_again_at = 0.0
        self._thread = Thread(target=self._run, name="housekeeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(timeout=ROUND_S)

    def stats(self) -> dict[str, Any]:
        """What this process has deleted since its start, and when it last went round."""
        return {"last_run": self._last_run, **self._counts}

    def go_round(self) -> bool:
        """Whether there was more to delete than a round may. Raises Unavailable, StorageError; what was done stays."""
        settings, storage, begun = self._settings, self._storage, monotonic()
        with transaction() as session:
            if not try_lead(session, HOUSEKEEPER_LOCK):
                return False
            jobs = delete_jobs(session, settings, storage)
        is_full = jobs == JOBS_AT_MOST or (jobs > 0 and monotonic() - begun > DELETING_S)
        self._note(deleted_jobs=jobs)
        with transaction() as session:
            events = delete_events(session, settings)
        with transaction() as session:
            batches, self._last_batch = delete_batches(session, self._last_batch)
        with transaction() as session:
            keys = forget_old(session)
        self._note(deleted_events=events, deleted_batches=batches)
        if self._adopt():
            self._note(deleted_files=self._delete_orphans())
        self._last_run = datetime.now(UTC)
        return is_full or events == EVENTS_AT_MOST or keys == FORGOTTEN_AT_ONCE

    def _run(self) -> None:
        while not self._done.is_set():
            has_more = False
            try:
                has_more = self.go_round()
            except (errors.Unavailable, errors.StorageError) as reason:
                emit("housekeeping.failed", reason=str(reason))
            except Exception as bug:  # noqa: BLE001 a thread that ended would clear away nothing ever after
                emit("housekeeping.failed", reason=type(bug).__name__, exc_info=bug)
            self._done.wait(PAUSE_S if has_more else ROUND_S)

    def _note(self, **counts: int) -> None:
        self._counts.update(counts)
        if any(counts.values()):
            emit("housekeeping.deleted", **counts)

    def _adopt(self) -> bool:
        """Once: a store that was ours and is away now raises where it is used."""
        if not self._is_adopted:
            with transaction() as session:
                self._is_adopted = adopt(session, self._storage)
        return self._is_adopted

    def _delete_orphans(self) -> int:
        """The next part of the storage; from its beginning again once in a while."""
        keys = list(islice(self._files, FILES_AT_MOST))
        if not keys and monotonic() >= self._look_again_at:
            self._look_again_at = monotonic() + ORPHANS_EVERY_S
            return self._look_again()
        with transaction() as session:
            orphans = without_job(session, keys)
        for key in orphans:
            self._storage.delete(key)
        return len(orphans)

    def _look_again(self) -> int:
        """Nothing older than our oldest job is looked at: it may belong to a database that was used before this one."""
        last = datetime.now(UTC) - ORPHAN_AGE
        with transaction() as session:
            first = session.scalar(select(func.min(Job.created_at)))
        if first is not None:
            self._files = self._storage.committed_between(first, last)
        return self._storage.discard_unfinished(last)


def delete_jobs(session: Session, settings: Settings, storage: Storage) -> int:
    """Final jobs past their time, with text, history and audio. A file that cannot be deleted keeps its job."""
    query = select(Job.id, Job.storage_key).where(Job.status.in_(FINAL), _is_past_its_time(settings))
    gone, end = [], monotonic() + DELETING_S
    for job_id, key in session.execute(query.limit(JOBS_AT_MOST).with_for_update(skip_locked=True)):
        if monotonic() > end:
            break
        try:
            delete_files(storage, job_id, key)
            gone.append(job_id)
        except errors.StorageError as reason:
            emit("housekeeping.failed", job_id=str(job_id), reason=str(reason))
    session.execute(delete(Job).where(Job.id.in_(gone)))
    return len(gone)


def _is_past_its_time(settings: Settings) -> ColumnElement[bool]:
    """As the caller asked, or by age; an open dead letter waits for its operator however old it is."""
    open_letter = select(ErrorLog.id).where(ErrorLog.job_id == Job.id, ErrorLog.resolved_at.is_(None)).exists()
    by_age = and_(_is_older(Job.completed_at, settings.retention_days), ~open_letter)
    return or_(Job.delete_at <= func.now(), by_age)


def _is_older(moment: Any, days: float) -> ColumnElement[bool]:
    return moment < func.now() - timedelta(days=days) if days else false()


def delete_events(session: Session, settings: Settings) -> int:
    """The history of jobs that have long been final."""
    is_final = select(Job.id).where(Job.id == JobEvent.job_id, Job.status.in_(FINAL)).exists()
    old = select(JobEvent.id).where(_is_older(JobEvent.at, settings.event_retention_days), is_final)
    chosen = old.order_by(JobEvent.at).limit(EVENTS_AT_MOST)  # by the number, all would be read
    return len(session.scalars(delete(JobEvent).where(JobEvent.id.in_(chosen)).returning(JobEvent.id)).all())


def delete_batches(session: Session, after: uuid.UUID | None = None) -> tuple[int, uuid.UUID | None]:
    """Of the next batches by id those whose jobs are all deleted; and where the next round goes on, None: in front."""
    some = select(Batch.id).order_by(Batch.id).limit(BATCHES_AT_ONCE)
    seen = session.scalars(some if after is None else some.where(Batch.id > after)).all()
    used = set(session.scalars(select(Job.batch_id).where(Job.batch_id.in_(seen)).distinct()))
    has_age = Batch.created_at < func.now() - ORPHAN_AGE
    chosen = delete(Batch).where(Batch.id.in_([one for one in seen if one not in used]), has_age)
    gone = len(session.scalars(chosen.returning(Batch.id)).all())
    return gone, seen[-1] if len(seen) == BATCHES_AT_ONCE else None


def without_job(session: Session, keys: list[str]) -> list[str]:
    known = set(session.scalars(select(Job.storage_key).where(Job.storage_key.in_(keys))))
    return [key for key in keys if key not in known]
