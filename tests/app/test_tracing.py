"""Tracing is off, and costs nothing, until a collector is named."""

import subprocess
import sys

from llmgateway.app.tracing import tracing_to


def test_nothing_of_it_is_loaded_where_it_is_off() -> None:
    """Redis's client takes along the metrics of an SDK that is installed; traces and the sender are ours."""
    ours = {"opentelemetry.sdk.trace", "opentelemetry.exporter", "llmgateway.observability.traces"}
    look = f"import sys, llmgateway.asgi; sys.exit(bool({ours} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
    assert tracing_to(None) is None


def test_the_start_says_which_extra_is_missing() -> None:
    hide = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from llmgateway.app.tracing import tracing_to\n"
        "from llmgateway.settings import BadSettings\n"
        "try: tracing_to('http://127.0.0.1:1')\n"
        "except BadSettings as bad: print(*bad.complaints)"
    )
    done = subprocess.run([sys.executable, "-c", hide], check=True, capture_output=True, text=True)
    assert "pip install 'llmgateway[otel]'" in done.stdout
