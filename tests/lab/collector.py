"""An OpenTelemetry collector for tests: takes OTLP over HTTP on loopback and keeps what it was sent."""

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from typing_extensions import override


class Collector:
    """Leaving the block stops it. Values are those of the protocol's own classes."""

    def __init__(self) -> None:
        self.traces: list[Any] = []
        self.metrics: list[Any] = []
        kinds: dict[str, tuple[Any, list[Any]]] = {
            "/v1/traces": (ExportTraceServiceRequest, self.traces),
            "/v1/metrics": (ExportMetricsServiceRequest, self.metrics),
        }

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kind, kept = kinds[self.path]
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                kept.append(kind.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            @override
            def log_message(self, *words: object) -> None:
                """Keeps quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[Any]:
        return [
            span for sent in self.traces for resource in sent.resource_spans
            for scope in resource.scope_spans for span in scope.spans
        ]  # fmt: skip

    @property
    def histograms(self) -> dict[str, list[Any]]:
        """The points of each metric, as they were sent last."""
        found: dict[str, list[Any]] = {}
        for sent in self.metrics:
            for metric in self._metrics(sent):
                found[metric.name] = list(metric.histogram.data_points)
        return found

    @staticmethod
    def _metrics(sent: Any) -> Iterator[Any]:
        for resource in sent.resource_metrics:
            for scope in resource.scope_metrics:
                yield from scope.metrics


def told(attributes: Any) -> dict[str, Any]:
    """A list of attributes as a mapping."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
