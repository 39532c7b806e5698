"""Every Celery task, and the only place that sends one. Tasks are short: the work is in `jobs/` and `webhooks/`."""

import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import redis
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]

import errors
from celery_app import app
from config import Settings, get_settings
from database import transaction
from jobs import claim, dead
from jobs.routing import DLQ, QUEUES, WEBHOOKS
from jobs.sweep import Doorbell
from telemetry import traces
from telemetry.events import emit
from webhooks import doorbells

if TYPE_CHECKING:
    from outbound import Outbound

REDIS_TIMEOUT_S = 2


BROKER_ERRORS = (redis.RedisError, OperationalError, BatchPublishError, OSError)


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


def publish(
    jobs: Sequence[Doorbell] = (), letters: Sequence[uuid.UUID] = (), deliveries: Sequence[doorbells.Doorbell] = ()
) -> None:
    """All in one pipeline. Raises one of BROKER_ERRORS; then it is not known which of them have arrived."""
    if not (jobs or letters or deliveries):
        return
    with app.producer_pool.acquire(block=True) as producer, producer.batch():  # type: ignore[attr-defined]
        for job in jobs:
            name = f"{job.job_id}.{job.attempt}"
            transcribe.apply_async((str(job.job_id),), queue=job.queue, task_id=name, producer=producer)
        for letter in letters:
            dead_letter.apply_async((str(letter),), queue=DLQ, task_id=str(letter), producer=producer)
        for one in deliveries:
            name = f"{one.delivery_id}.{one.tries + 1}"
            deliver_webhook.apply_async((str(one.delivery_id),), queue=WEBHOOKS, task_id=name, producer=producer)


@lru_cache
def redis_client() -> "redis.Redis":
    """For looking at queues; every call ends within seconds, also where Redis is frozen."""
    url = get_settings().redis_url.get_secret_value()
    return redis.Redis.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)


def queue_lengths() -> dict[str, int]:
    """Messages in each queue, in one question."""
    with redis_client().pipeline(transaction=False) as pipeline:
        for queue in QUEUES:
            pipeline.llen(queue)
        return dict(zip(QUEUES, map(int, pipeline.execute()), strict=True))


def redis_answers() -> bool:
    try:
        return bool(redis_client().ping())
    except BROKER_ERRORS:
        return False


def redis_memory() -> int:
    """Bytes that Redis uses."""
    return int(redis_client().info("memory")["used_memory"])
