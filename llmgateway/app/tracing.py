"""Whether calls are traced: the libraries for it are an extra, and nothing of them is loaded where no
collector is configured."""

from datetime import datetime
from importlib import import_module
from typing import Protocol

from llmgateway import __version__
from llmgateway.domain.call import Record
from llmgateway.settings import BadSettings

MODULE = "llmgateway.observability.traces"


class Tracing(Protocol):
    """A sink of closed records that is told of each call's begin and end."""

    def begin(self, id: str, at: datetime, route: str, caller: bytes) -> bytes: ...

    def __call__(self, record: Record) -> None: ...

    def left(self, id: str, error: str | None) -> None: ...

    def close(self) -> None: ...


def tracing_to(endpoint: str | None) -> Tracing | None:
    """Raises `BadSettings` where the extra is not installed."""
    if endpoint is None:
        return None
    try:
        module = import_module(MODULE)
    except ModuleNotFoundError as missing:
        raise BadSettings(
            [f"OTEL_EXPORTER_OTLP_ENDPOINT needs {missing.name}: pip install 'llmgateway[otel]'"]
        ) from None
    made: Tracing = module.Traces(endpoint.rstrip("/"), version=__version__)
    return made
