"""OpenTelemetry: a span for each call and the metrics of generative AI, sent to a collector over OTLP.

The one module that knows its libraries, the extra `llmgateway[otel]`; it is imported only where a collector
is configured. What people asked and who they are is in neither. The SDK batches and sends in threads of its
own, and reads what else its standard has in the environment: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from llmgateway.domain.call import Record
from llmgateway.wire.trace_context import carried, lines_of

OPERATIONS: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "chat", "/v1/responses": "chat", "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings", "/v1/images/generations": "generate_content",
}  # fmt: skip
SECONDS: Final = tuple(0.01 * 2**n for n in range(14))
TOKENS: Final = tuple(float(4**n) for n in range(14))
GRACE: Final = 2  # seconds that a sending may take, with all its tries; at the end there are two
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

Attributes = dict[str, str | int | bool]


class Traces:
    """A sink of closed records; `begin` and `left` stand around each call."""

    def __init__(self, endpoint: str, *, version: str, period: float = 60.0) -> None:
        """`endpoint` is the collector's address, `period` the seconds between two sendings of metrics."""
        known = Resource({"service.name": "llmgateway", "service.version": version})
        resource = known.merge(OTELResourceDetector().detect())  # what the environment says goes before
        spans = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=GRACE)
        metrics = OTLPMetricExporter(f"{endpoint}/v1/metrics", timeout=GRACE)
        self._tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracing.add_span_processor(BatchSpanProcessor(spans))
        reader = PeriodicExportingMetricReader(metrics, export_interval_millis=period * 1000)
        self._metering = MeterProvider([reader], resource, shutdown_on_exit=False)
        self._tracer = self._tracing.get_tracer("llmgateway", version)
        self._context = TraceContextTextMapPropagator()
        self._open: dict[str, Span] = {}
        self._used = self._histogram("gen_ai.client.token.usage", "{token}", TOKENS)
        self._took = self._histogram("gen_ai.server.request.duration", "s", SECONDS)
        self._first = self._histogram("gen_ai.server.time_to_first_token", "s", SECONDS)
        self._gaps = self._histogram("gen_ai.server.time_per_output_token", "s", SECONDS)

    def _histogram(self, name: str, unit: str, bounds: tuple[float, ...]) -> Histogram:
        meter = self._metering.get_meter("llmgateway")
        return meter.create_histogram(name, unit=unit, explicit_bucket_boundaries_advisory=bounds)

    def begin(self, id: str, at: datetime, route: str, caller: bytes) -> bytes:
        """Opens the call's span, under that of the `caller`'s lines; gives the lines for the model server."""
        parent = self._context.extract(carried(caller), Context()) if caller else Context()
        attributes: Attributes = {"http.request.method": "POST", "http.route": route, "llmgateway.id": id}
        span = self._open[id] = self._tracer.start_span(
            f"POST {route}", parent, SpanKind.SERVER, attributes, start_time=_nanoseconds(at)
        )
        told: dict[str, str] = {}
        self._context.inject(told, set_span_in_context(span))
        return lines_of(told["traceparent"].encode(), told.get("tracestate", "").encode())

    def __call__(self, record: Record) -> None:
        """Records of dead workers have no span here, and no time that was measured."""
        if record.outcome != "recovered":
            self._measure(record)
        span = self._open.pop(record.id, None)
        if span is not None:
            self._close(span, record)

    def left(self, id: str, error: str | None) -> None:
        """The call is over; what was refused has left no record."""
        span = self._open.pop(id, None)
        if span is not None:
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR))
            span.end()

    def close(self) -> None:
        """Sends what is left; waits for a collector that is away no longer than it must."""
        self._tracing.force_flush(GRACE * 1000)
        self._tracing.shutdown()
        self._metering.shutdown(GRACE * 1000)

    def _close(self, span: Span, record: Record) -> None:
        span.set_attributes(_attributes(record))
        span.set_attributes(_of_answer(record))
        if record.outcome not in ("completed", "cached", "client_gone"):
            span.set_attribute("error.type", str(record.outcome))
            span.set_status(Status(StatusCode.ERROR))
        for attempt in record.attempts:
            span.add_event("attempt", {
                "server.address": attempt.target, "http.response.status_code": attempt.status,
                "reason": attempt.reason, "ms": attempt.ms,
            })  # fmt: skip
        span.end(_nanoseconds(record.at + timedelta(milliseconds=record.duration_ms)))

    def _measure(self, record: Record) -> None:
        told, tokens = _attributes(record), record.tokens
        for kind, count in (("input", tokens.prompt), ("output", tokens.completion)):
            if count:
                self._used.record(count, {**told, "gen_ai.token.type": kind})
        if record.outcome not in ("completed", "cached"):
            told["error.type"] = str(record.outcome)
        self._took.record(record.duration_ms / 1000, told)
        if record.ttft_ms is not None:
            self._first.record(record.ttft_ms / 1000, told)
            if tokens.completion > 1:
                seconds = (record.duration_ms - record.ttft_ms) / 1000
                self._gaps.record(seconds / (tokens.completion - 1), told)


def _attributes(record: Record) -> Attributes:
    """What metrics are told apart by, too: few values, and nobody's name."""
    told: Attributes = {
        "gen_ai.operation.name": OPERATIONS.get(record.endpoint, record.endpoint.rpartition("/")[2]),
        "gen_ai.request.model": record.model,
    }
    if record.target is not None:
        host, _, port = record.target.replica.rpartition(":")
        told |= {
            "gen_ai.provider.name": record.target.provider,
            "gen_ai.response.model": record.target.model,
            "server.address": host or record.target.replica,
        }
        if host and port.isdigit():
            told["server.port"] = int(port)
    return told


def _of_answer(record: Record) -> Attributes:
    tokens = record.tokens
    told: Attributes = {
        "http.response.status_code": record.status,
        "gen_ai.request.stream": record.stream,
        "gen_ai.usage.input_tokens": tokens.prompt,
        "gen_ai.usage.output_tokens": tokens.completion,
        "llmgateway.outcome": str(record.outcome),
        "llmgateway.usage_source": record.usage_source,
    }
    if tokens.cached:
        told["gen_ai.usage.cache_read.input_tokens"] = tokens.cached
    if tokens.reasoning:
        told["gen_ai.usage.reasoning.output_tokens"] = tokens.reasoning
    return told


def _nanoseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND * 1000
