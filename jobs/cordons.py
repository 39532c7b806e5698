"""Cordon, drain and uncordon a worker, as kubectl does a node: it begins no job; drained, it gives back what it runs.

A worker has a new name at each start, so a cordon ends with it.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from threading import Event
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

import errors
from jobs import audit
from jobs.routing import WEBHOOKS
from jobs.states import wake_relay
from jobs.turns import unmark
from models import Cordon, Job, Process

CODE = "cordoned"
LOOK_EVERY_S = 0.2
FORGET_AFTER = timedelta(days=1)  # of a worker that is gone


def cordon(session: Session, worker: str, *, drains: bool, actor: str) -> Cordon:
    """Raises NotFound where no such worker has signed in; Conflict where it takes no jobs anyway."""
    if (queues := _queues_of(session, worker)) is None:
        raise errors.NotFound("There is no worker of this name. GET /admin/workers, or `workers list`, shows them.")
    if queues == [WEBHOOKS]:
        raise errors.Conflict("This worker only sends webhooks: it takes no jobs. Stop it to have it send none.")
    changing = {"drains": drains, "ordered_by": actor}
    new = insert(Cordon).values(worker=worker, **changing)
    upsert = new.on_conflict_do_update(index_elements=["worker"], set_=changing).returning(Cordon)
    audit.note(session, actor, "worker.drained" if drains else "worker.cordoned", worker)
    return session.scalars(upsert, execution_options={"populate_existing": True}).one()


def _queues_of(session: Session, worker: str) -> list[str] | None:
    """None where there is no such worker; no name of one holds what cannot be printed."""
    of_it = select(Process.queues).where(Process.worker == worker, Process.kind == "worker").limit(1)
    return session.scalar(of_it) if worker.isprintable() else None


def uncordon(session: Session, worker: str, *, actor: str) -> None:
    """Raises NotFound where it is not cordoned."""
    ended = delete(Cordon).where(Cordon.worker == worker).returning(Cordon.worker)
    if not worker.isprintable() or session.scalar(ended) is None:
        raise errors.NotFound("This worker is not cordoned.")
    audit.note(session, actor, "worker.uncordoned", worker)


def cordons(session: Session) -> Sequence[Cordon]:
    return session.scalars(select(Cordon).order_by(Cordon.worker)).all()


def forget(session: Session) -> None:
    """Those of workers that are gone."""
    is_gone = ~exists().where(Process.worker == Cordon.worker)
    session.execute(delete(Cordon).where(is_gone, Cordon.since < func.now() - FORGET_AFTER))


class Watch:
    """One worker child's view, refreshed with each sign of life; read by its working thread."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self.found: Cordon | None = None

    def look(self, session: Session) -> None:
        self.found = session.get(Cordon, self._worker)

    @property
    def drains(self) -> bool:
        return self.found is not None and self.found.drains

    def as_illness(self) -> dict[str, Any] | None:
        """For the sign of life: it is no capacity."""
        if self.found is None:
            return None
        return {"code": CODE, "message": f"Cordoned by {self.found.ordered_by}.", "since": self.found.since}

    def rest(self, is_stopping: Callable[[], bool]) -> None:
        """Block while the worker is cordoned, or until it stops."""
        while self.found is not None and not is_stopping():
            Event().wait(LOOK_EVERY_S)


def ring_again(session: Session, job_id: UUID) -> None:
    """A doorbell that nobody answers is rung for somebody else."""
    unmark(session, Job.id == job_id)
    wake_relay(session, "cordoned")
