"""GET /metrics for Prometheus: what was counted, and what is true at this moment, as the database and Redis tell it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from api.deps import AppSettings, AppStorage, an_admin, authenticated
from api.problems import documented
from api.schemas import AdminHealth
from api.survey import survey
from config import VERSION
from telemetry.exporter import is_scraper
from telemetry.metrics import PREFIX, expose

Sample = tuple[Sequence[str], Any]  # values of the labels, and the value; None is left out
EXPOSITION = {"content": {"text/plain": {"schema": {"type": "string"}}}}
router = APIRouter(tags=["health"])


async def may_scrape(request: Request, settings: AppSettings) -> None:
    """By METRICS_TOKEN, else as an admin."""
    if not is_scraper(settings.metrics_token.get_secret_value(), request.headers.get("authorization", "")):
        await an_admin(await authenticated(request))


@router.get(
    "/metrics",
    dependencies=[Depends(may_scrape)],
    response_class=Response,
    responses={**documented(401, 403, 429), 200: {"description": "Prometheus or OpenMetrics text.", **EXPOSITION}},
)
def metrics(request: Request, settings: AppSettings, storage: AppStorage) -> Response:
    """Counters of this process (of all processes, with `make run`), and the state of the whole service."""
    state = State(survey(settings, storage, request.app.state.admission))
    body, media_type = expose(request.headers.get("accept", ""), settings.prometheus_multiproc_dir, state)
    return Response(body, media_type=media_type)


class State(Collector):
    """The same on every API process: take the max over them, never the sum."""

    def __init__(self, health: AdminHealth) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        health = self._health
        parts = ("database", "redis", "relay", "storage")
        yield InfoMetricFamily(PREFIX, "What runs here.", value={"version": VERSION})
        answers = [([part], int(getattr(health, part).ok)) for part in parts]
        yield _gauge("up", "Whether a part that all depend on answers.", ["part"], answers)
        waiting = [([queue], count) for queue, count in health.queues.items()]
        yield _gauge("queue_depth", "Wake-up messages in Redis.", ["queue"], waiting)
        free = (health.storage.model_extra or {}).get("free_bytes")
        yield _gauge("storage_free_bytes", "Room for recordings.", [], [([], free)])
        if health.database.ok:  # else nothing is known of the rest, which is not the same as nothing
            yield from _from_database(health)


def _from_database(health: AdminHealth) -> Iterator[Metric]:
    jobs, statuses = health.jobs, ("pending", "processing")
    yield _gauge("jobs", "Jobs by status.", ["status"], [([status], jobs[status]) for status in statuses])
    for name, meaning, value in (
        ("oldest_pending_seconds", "Age of the oldest waiting job.", jobs["oldest_pending_seconds"] or 0),
        ("waiting_audio_seconds", "Audio that waits; estimated.", health.backlog["audio_seconds"]),
        ("open_dead_letters", "Dead letters that nobody resolved.", jobs["dead_letters"]),
        ("workers", "Workers that are alive.", health.workers["alive"]),
        ("slots", "Jobs that can run at once.", health.workers["concurrency"]),
    ):
        yield _gauge(name, meaning, [], [([], value)])
    ill = Counter((one["code"],) for one in health.workers["ill"])
    yield _gauge("workers_ill", "Worker children that claim no job, by why.", ["code"], list(ill.items()))
    yield from _steered(health)
    yield from _devices(health.devices)
    loaded = Counter((one["size"], one["compute_type"], str(one["process"])) for one in health.model_pool["loaded"])
    yield _gauge("models_loaded", "Models in memory.", ["size", "compute_type", "process"], list(loaded.items()))


def _steered(health: AdminHealth) -> Iterator[Metric]:
    paused = [([kind], sum(one["kind"] == kind for one in health.paused)) for kind in ("queue", "caller")]
    yield _gauge("paused", "Queues and callers that an operator has paused.", ["kind"], paused)
    cordoned = len(health.workers["cordoned"])
    yield _gauge("workers_cordoned", "Workers that an operator lets begin no job.", [], [([], cordoned)])


def _devices(devices: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    labels = ["worker", "device"]
    for name, field, meaning in (
        ("device_memory_used_bytes", "memory_used", "Memory that the models of a device take."),
        ("device_memory_free_bytes", "memory_free", "Memory that a device has left."),
        ("device_windows_waiting", "waiting_windows", "Windows that wait for a device."),
        ("device_windows_per_second", "windows_per_second", "Since the start of its engine server."),
        ("device_batch_fill", "batch_fill", "Share of the room in batches that was used, likewise."),
    ):
        samples = [((one["worker"], f"{one['device']}/{one['pid']}"), one.get(field)) for one in devices]
        yield _gauge(name, meaning, labels, samples)


def _gauge(name: str, meaning: str, labels: Sequence[str], samples: Sequence[Sample]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", meaning, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family
