"""Workers that live, each with its children: what they draw from, why one takes no jobs, whether it is cordoned."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from jobs import cordons, presence, read
from models import Cordon, Process


@dataclass(frozen=True, slots=True)
class Worker:
    worker: str  # its name
    queues: list[str]
    children: int
    started_at: datetime
    ill: list[dict[str, Any]]  # {code, message, since} of each child that is
    cordon: Cordon | None


def workers(session: Session, *, within_s: float) -> list[Worker]:
    ordered = {one.worker: one for one in cordons.cordons(session)}
    children: dict[str, list[Process]] = {}
    for child in read.transcribers(session, within_s=within_s):
        children.setdefault(child.worker, []).append(child)
    return [_worker(name, members, ordered.get(name)) for name, members in children.items()]


def _worker(name: str, members: Sequence[Process], cordon: Cordon | None) -> Worker:
    ill = [child.illness for child in members if child.illness and presence.is_ill(child)]
    return Worker(name, members[0].queues, len(members), min(child.started_at for child in members), ill, cordon)
