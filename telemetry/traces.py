"""Traces by OpenTelemetry, from the POST through the worker to the webhook; without a collector, nothing at all.

The W3C traceparent of a request stands in its job's row: whoever works on the job goes on under it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from config import VERSION, Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

NAMESPACE = "whisper-queue"


class _State:
    tracer: "Tracer | None" = None


def start(settings: Settings, process: str) -> None:
    """In the process that makes the spans, after its fork: they are sent by a thread."""
    if not settings.otel_exporter_otlp_endpoint:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {"service.name": process, "service.namespace": NAMESPACE, "service.version": VERSION}
    provider = TracerProvider(resource=Resource.create(named))
    endpoint = settings.otel_exporter_otlp_endpoint.rstrip("/")
    exporter = OTLPSpanExporter(f"{endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    _State.tracer = provider.get_tracer(NAMESPACE, VERSION)


@contextmanager
def span(name: str, parent: str | None = None, *, kind: str = "internal", **attributes: Any) -> Iterator[Any]:
    """Around the block; a child of `parent` (a traceparent), else of the span around it. Yields the span, or None.

    An exception that leaves the block is noted by its type alone: messages may hold paths.
    """
    if _State.tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind, Status, StatusCode

    given = {key: value for key, value in attributes.items() if value is not None}
    with _State.tracer.start_as_current_span(
        name, _context(parent), SpanKind[kind.upper()], given, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def traceparent() -> str | None:
    """Of the span around the caller, for those who go on elsewhere; None without one."""
    if _State.tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def _context(parent: str | None) -> Any:
    if not parent:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent})
