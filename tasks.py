"""Every Celery task, and the only place that sends one. Tasks are short: the work is in `jobs/` and `webhooks/`."""

import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import redis
from kombu.exceptions import OperationalError

import errors
from celery_app import app
from config import Settings, get_settings
from database import transaction
from jobs import claim, dead
from jobs.routing import DLQ, WEBHOOKS
from jobs.sweep import Doorbell
from telemetry import traces
from telemetry.events import emit
from webhooks import doorbells

if TYPE_CHECKING:
    from outbound import Outbound

REDIS_TIMEOUT_S = 2


BROKER_ERRORS = (redis.RedisError, OperationalError, OSError)


class _Child:
    """What this worker child does with a job; worker.py sets it before the first task."""

    run: Callable[[uuid.UUID], None] | None = None


def equip(run: Callable[[uuid.UUID], None]) -> None:
    _Child.run = run


@app.task(name="transcribe")
def transcribe(job_id: str) -> None:
    assert _Child.run is not None, "A task ran before worker.py equipped the child. This is a bug."
    _Child.run(uuid.UUID(job_id))


@app.task(name="dead_letter")
def dead_letter(error_id: str) -> None:
    """Tell the operator once: the log line `job.dead` is the hook for alerts."""
    with transaction() as session:
        error = dead.mark_notified(session, uuid.UUID(error_id))
    if error is not None:
        emit("job.dead", job_id=str(error.job_id), error_id=error_id, code=error.error_type, message=error.message)


@app.task(name="deliver_webhook")
def deliver_webhook(delivery_id: str) -> None:
    """Whatever ends it in the middle, the lease that `claim` has taken ends too, and the relay rings again."""
    from access.secret import derive
    from webhooks import delivery, signature

    settings = get_settings()
    timeout_s = settings.webhook_timeout_seconds
    try:
        with transaction() as session:
            one = delivery.claim(session, uuid.UUID(delivery_id), timeout_s=timeout_s)
        if one is None:
            return
        secrets = [
            derive(settings, signature.PURPOSE, signature.seed(one.owner, number)) for number in one.secret_numbers
        ]
        with traces.span("webhook", one.traceparent, kind="producer", delivery_id=delivery_id, tries=one.tries):
            reply = delivery.send(one, _outbound(settings), secrets, timeout_s=timeout_s)
        outcome = delivery.outcome_of(one, reply)
        written, in_doubt = claim.patiently(lambda session: delivery.record(session, one, reply, outcome), timeout_s)
    except errors.Unavailable:
        emit("webhook.unavailable", delivery_id=delivery_id)
        return
    if written or in_doubt:
        delivery.tell(one, reply, outcome)


@lru_cache(maxsize=1)
def _outbound(settings: Settings) -> "Outbound":
    """One is enough for a process; loading its certificates takes longer than a call."""
    from outbound import open_outbound

    return open_outbound(settings)


def ring_webhook(doorbell: doorbells.Doorbell) -> None:
    deliver_webhook.apply_async(
        args=(str(doorbell.delivery_id),), queue=WEBHOOKS, task_id=f"{doorbell.delivery_id}.{doorbell.tries + 1}"
    )


def ring(doorbell: Doorbell) -> None:
    transcribe.apply_async(
        args=(str(doorbell.job_id),),
        queue=doorbell.queue,
        task_id=f"{doorbell.job_id}.{doorbell.attempt}",
    )


def ring_dead_letter(error_id: uuid.UUID) -> None:
    dead_letter.apply_async(args=(str(error_id),), queue=DLQ, task_id=str(error_id))


@lru_cache
def redis_client() -> "redis.Redis":
    """For looking at queues; every call ends within seconds, also where Redis is frozen."""
    url = get_settings().redis_url.get_secret_value()
    return redis.Redis.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)


def queue_length(queue: str) -> int:
    return int(redis_client().llen(queue))


def redis_answers() -> bool:
    try:
        return bool(redis_client().ping())
    except BROKER_ERRORS:
        return False


def redis_memory() -> int:
    """Bytes that Redis uses."""
    return int(redis_client().info("memory")["used_memory"])
