"""Whether a failed attempt is tried again, when and where: pure. The database owns the counters."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from config import Settings

MOST_DOUBLINGS = 60  # 2**60 s is longer than any limit, and a float can hold it


class Cause(StrEnum):
    FAILURE = "failure"  # it raised
    LOSS = "loss"  # its child crashed, hung or was killed for memory
    INFRA = "infra"  # the whole worker died: no fault of the recording
    WORKER = "worker"  # the worker could not do it: its storage, model files, device, memory or disk


@dataclass(frozen=True, slots=True)
class Counters:
    """What has ended attempts of a job, by cause. A worker's own trouble is not counted: it is limited by time."""

    failures: int = 0
    losses: int = 0
    infra_losses: int = 0

    def plus(self, cause: Cause) -> Self:
        match cause:
            case Cause.FAILURE:
                return replace(self, failures=self.failures + 1)
            case Cause.LOSS:
                return replace(self, losses=self.losses + 1)
            case Cause.INFRA:
                return replace(self, infra_losses=self.infra_losses + 1)
            case Cause.WORKER:
                return self


@dataclass(frozen=True, slots=True)
class Limits:
    failures: int
    losses: int
    infra_losses: int
    stalled_s: float
    base_s: float
    max_s: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            failures=settings.max_failures,
            losses=settings.max_losses,
            infra_losses=settings.max_infra_losses,
            stalled_s=settings.max_stalled_seconds,
            base_s=settings.retry_base_seconds,
            max_s=settings.retry_max_seconds,
        )


@dataclass(frozen=True, slots=True)
class Again:
    delay_s: float
    retrying: bool  # by the retry queue, where a crash takes no neighbour along
    counters: Counters


@dataclass(frozen=True, slots=True)
class Dead:
    reason: str
    counters: Counters


def plan(
    cause: Cause,
    counters: Counters,
    limits: Limits,
    *,
    retryable: bool,
    chance: float,
    stalled_s: float = 0,
    alone: bool = False,
) -> Again | Dead:
    """`chance` in 0..1 draws the delay: exponential backoff with full jitter (AWS Architecture Blog, 2015).

    `stalled_s`: seconds since a worker first could not do it. `alone`: it needs a worker that has its device to itself.
    """
    now = counters.plus(cause)
    if cause is Cause.WORKER:
        return _another_worker(now, limits, chance=chance, stalled_s=stalled_s, alone=alone)
    if not retryable:
        return Dead("trying again cannot help", now)
    exhausted = _exhausted(now, limits)
    if exhausted:
        return Dead(exhausted, now)
    if cause is Cause.INFRA:
        return Again(delay_s=0, retrying=now.losses > 0, counters=now)
    doublings = min(now.failures + now.losses - 1, MOST_DOUBLINGS)
    ceiling_s = min(limits.max_s, limits.base_s * 2**doublings)
    return Again(delay_s=chance * ceiling_s, retrying=now.losses > 0, counters=now)


def _another_worker(
    counters: Counters, limits: Limits, *, chance: float, stalled_s: float, alone: bool
) -> Again | Dead:
    """A pause that grows by half each time on average, so that trouble of hours costs no thousand attempts."""
    if stalled_s >= limits.stalled_s:
        return Dead(f"no worker could do it for {limits.stalled_s:g} s", counters)
    ceiling_s = min(limits.max_s, max(limits.base_s, stalled_s))
    return Again(delay_s=(0.5 + chance / 2) * ceiling_s, retrying=alone or counters.losses > 0, counters=counters)


def _exhausted(counters: Counters, limits: Limits) -> str | None:
    if counters.failures >= limits.failures:
        return f"failed {counters.failures} times"
    if counters.losses >= limits.losses:
        return f"crashed, hung or ran out of memory {counters.losses} times"
    if counters.infra_losses >= limits.infra_losses:
        return f"lost its worker {counters.infra_losses} times"
    return None
