"""Events become counters here, and counters text for Prometheus. What is true at this moment is not counted here:
api/metrics.py asks the database for it when it is scraped.

Processes that find PROMETHEUS_MULTIPROC_DIR share their counters in that folder, and so outlive their death.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import REGISTRY, Counter, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from telemetry.events import subscribe
from telemetry.shared_counters import read

PREFIX = "whisper_queue"
SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
FACTORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
FILLS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1)
Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Told:
    """How an event changes a metric."""

    metric: Counter | Histogram
    labels: tuple[str, ...] = ()  # fields of the event, in the order of the metric's labels
    amount: str = ""  # the field that is added or observed; without one, 1 is
    when: Callable[[Fields], bool] = lambda _: True

    def take(self, fields: Fields) -> None:
        amount = float(str(fields.get(self.amount) or 0)) if self.amount else 1.0
        values = [str(fields.get(name) or "") for name in self.labels]
        metric = self.metric.labels(*values) if values else self.metric
        if isinstance(metric, Histogram):
            metric.observe(max(amount, 0))
        else:
            metric.inc(max(amount, 0))


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(f"{PREFIX}_{name}", meaning, labels)


def _histogram(name: str, meaning: str, *labels: str, buckets: Iterable[float] = SECONDS) -> Histogram:
    return Histogram(f"{PREFIX}_{name}", meaning, labels, buckets=tuple(buckets))


MOVES = _counter("job_moves", "Changes of a job's status; from '' when it is accepted.", "from_status", "to_status")
DEAD = _counter("dead_letters", "Jobs that failed for good, by the code of their error.", "code")
WAITED = _histogram("job_wait_seconds", "From acceptance to the first attempt.", "priority")
TOOK = _histogram("job_total_seconds", "From acceptance to completion.", "priority")
RAN = _histogram("job_run_seconds", "Attempts that completed their job.")
FACTOR = _histogram(
    "job_real_time_factor", "Seconds of work for a second of audio, of attempts that completed.", buckets=FACTORS
)
AUDIO = _counter("audio_seconds", "Audio that was transcribed.")
RETRIES = _counter("retries", "Attempts that failed and will be repeated, by the code of their error.", "code")
LOST = _counter("lost_attempts", "Leases that ran out: loss, the child died; infra, its whole worker did.", "cause")
HITS = _counter("pool_hits", "Leases of a model that was loaded already.")
LOADS = _histogram("pool_load_seconds", "Loads of a model: the pool's misses.", "size")
EVICTIONS = _counter("pool_evictions", "Models that were unloaded.", "reason")
FALLBACKS = _counter("pool_oom_fallbacks", "Times that memory ran out and less was tried.", "during")
FILL = _histogram("engine_batch_fill", "Windows in a batch, as a share of what would have fitted.", buckets=FILLS)
WINDOWS = _counter("engine_windows", "Windows that the device has decoded, aligned or listened to.")
BUSY = _counter("engine_busy_seconds", "Time in which a lane of the device was at work.")
DIED = _counter("engine_deaths", "Engine servers that ended and were started again.", "device")
WEBHOOKS = _counter("webhook_tries", "Tries to deliver a webhook: delivered, retrying, failed or disabled.", "outcome")
REQUESTS = _counter("http_requests", "Requests that were answered.", "method", "route", "status")
REQUEST_TIMES = _histogram(
    "http_request_seconds", "Until the answer began; of an upload, its whole body.", "route", buckets=REQUEST_SECONDS
)
REFUSED = _counter("refused_requests", "Requests that were asked to come again later.", "code")
RUNG = _counter("doorbells", "Jobs that the relay has told the queues.")
TICKS = _histogram("relay_tick_seconds", "One look of the leading relay.", buckets=REQUEST_SECONDS)
DELETED = _counter("deleted_jobs", "Jobs that housekeeping has deleted.")


def _is_first_claim(fields: Fields) -> bool:
    return fields.get("to_status") == "processing" and fields.get("attempt") == 1


EVENTS: dict[str, tuple[_Told, ...]] = {
    "job.moved": (
        _Told(MOVES, ("from_status", "to_status")),
        _Told(DEAD, ("code",), when=lambda moved: moved.get("to_status") == "failed"),
        _Told(WAITED, ("priority",), "age_s", when=_is_first_claim),
        _Told(TOOK, ("priority",), "age_s", when=lambda moved: moved.get("to_status") == "completed"),
    ),
    "attempt.completed": (
        _Told(RAN, amount="seconds"),
        _Told(AUDIO, amount="audio_s"),
        _Told(FACTOR, amount="factor", when=lambda attempt: attempt.get("factor") is not None),
    ),
    "attempt.lost": (_Told(LOST, ("cause",)),),
    "job.retrying": (_Told(RETRIES, ("code",)),),
    "pool.hit": (_Told(HITS),),
    "pool.loaded": (_Told(LOADS, ("size",), "seconds"),),
    "pool.evicted": (_Told(EVICTIONS, ("reason",)),),
    "pool.oom": (_Told(FALLBACKS, ("during",)),),
    "engine.batch_halved": (_Told(FALLBACKS, ("during",)),),
    "engine.ran": (_Told(FILL, amount="fill"), _Told(WINDOWS, amount="rows"), _Told(BUSY, amount="seconds")),
    "engine.died": (_Told(DIED, ("device",)),),
    **{
        f"webhook.{outcome}": (_Told(WEBHOOKS, ("outcome",)),)
        for outcome in ("delivered", "retrying", "failed", "disabled")
    },
    "http.answered": (
        _Told(REQUESTS, ("method", "route", "status")),
        _Told(REQUEST_TIMES, ("route",), "seconds"),
    ),
    "request.refused": (_Told(REFUSED, ("code",)),),
    "relay.ticked": (_Told(TICKS, amount="seconds"), _Told(RUNG, amount="rung")),
    "housekeeping.deleted": (_Told(DELETED, amount="deleted_jobs"),),
}
OF_THE_POOL = ("pool.hit", "pool.loaded", "pool.evicted")


def start(*, without: Container[str] = ()) -> None:
    """Count what this process says, from now on, but for the events `without`."""
    subscribe(lambda name, fields: None if name in without else take(name, fields))


def take(name: str, fields: Fields) -> None:
    with suppress(OSError):  # a full disk must not cost a job
        for told in EVENTS.get(name, ()):
            if told.when(fields):
                told.take({**fields, "outcome": name.rpartition(".")[2]})


@dataclass(frozen=True, slots=True)
class _Together(Collector):
    parts: tuple[Collector, ...]

    def collect(self) -> Iterator[Metric]:
        for part in self.parts:
            yield from part.collect()


def expose(accept: str, folder: str = "", *states: Collector) -> tuple[bytes, str]:
    """The counters of this process, or of all that share `folder`, and `states`: text and its media type.

    `accept` as in the header of that name.
    """
    encode, media_type = choose_encoder(accept)
    counters = read(folder) if folder else REGISTRY
    return encode(_Together((counters, *states))), media_type
