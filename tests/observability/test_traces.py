"""Traces and GenAI metrics as a collector gets them, over the real protocol."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from llmgateway.domain.call import Attempt, Record, Tokens
from llmgateway.observability.traces import GRACE, Traces
from llmgateway.wire.trace_context import carried, lines_of
from tests.e2e.deployment import CHAT
from tests.lab.client import Request, chat, post
from tests.lab.collector import Collector, told
from tests.lab.gateway import Gateway, serving
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually
from tests.stores.samples import record

AT = datetime(2026, 3, 28, 12, tzinfo=UTC)
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"
ERROR = 2


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def closed(**changes: Any) -> Record:
    usual = {
        "endpoint": CHAT, "model": "m", "outcome": "completed", "status": 200, "stream": True,
        "duration_ms": 1100, "ttft_ms": 100, "tokens": Tokens(10, 11, 4, 2), "user": "aino",
        "attempts": [Attempt("a:1", 502, "status_502", 5), Attempt("10.0.0.7:8000", 200, "ok", 1000)],
    }  # fmt: skip
    return record(random.Random(1), AT, **{**usual, **changes})


def traced(collector: Collector, *records: Record, caller: bytes = b"") -> list[dict[str, str]]:
    """What the model servers would be told."""
    traces = Traces(collector.url, version="1.2.3")
    lines = [carried(traces.begin(one.id, one.at, one.endpoint, caller)) for one in records]
    for one in records:
        traces(one)
        traces.left(one.id, None)
    traces.close()
    return lines


def test_a_span_tells_of_a_call_and_of_nobody(collector: Collector) -> None:
    made = closed()
    (line,) = traced(collector, made)
    (span,) = collector.spans
    assert (span.name, span.kind) == (f"POST {CHAT}", 2)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_100_000_000
    assert line["traceparent"].startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")
    said = told(span.attributes)
    assert said.items() >= {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
        "gen_ai.response.model": "Qwen3-32B", "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 11, "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2, "http.response.status_code": 200,
        "server.address": "10.0.0.7", "server.port": 8000, "llmgateway.id": made.id,
    }.items()  # fmt: skip
    assert [told(event.attributes)["reason"] for event in span.events] == ["status_502", "ok"]
    sent = b"".join(one.SerializeToString() for one in (*collector.traces, *collector.metrics))
    assert not [word for word in (made.user, made.key_id, str(made.project)) if word.encode() in sent]
    resource = told(collector.traces[0].resource_spans[0].resource.attributes)
    assert resource.items() >= {"service.name": "llmgateway", "service.version": "1.2.3"}.items()


def test_a_span_continues_the_caller_s_trace(collector: Collector) -> None:
    (line,) = traced(collector, closed(), caller=lines_of(PARENT.encode(), b"a=1"))
    (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
    assert line == {"traceparent": f"00-{TRACE}-{span.span_id.hex()}-01", "tracestate": "a=1"}


def test_what_is_not_sampled_is_passed_on_so(collector: Collector) -> None:
    (line,) = traced(collector, closed(), caller=lines_of(f"{PARENT[:-1]}0".encode()))
    assert collector.spans == []
    assert line["traceparent"].startswith(f"00-{TRACE}-")
    assert line["traceparent"].endswith("-00")


@pytest.mark.parametrize(("outcome", "is_error"), [("timeout", True), ("client_gone", False)])
def test_a_bad_end_is_an_error(collector: Collector, outcome: str, is_error: bool) -> None:
    traced(collector, closed(outcome=outcome))
    (span,) = collector.spans
    assert (span.status.code == ERROR) == is_error
    assert ("error.type" in told(span.attributes)) == is_error


def test_a_call_that_left_no_record_has_its_span(collector: Collector) -> None:
    traces = Traces(collector.url, version="1")
    traces.begin("refused", AT, CHAT, b"")
    traces.left("refused", "rate_limit_exceeded")
    traces.left("refused", None)
    traces.close()
    (span,) = collector.spans
    assert told(span.attributes)["error.type"] == "rate_limit_exceeded"


def test_metrics_have_their_names_units_and_bounds(collector: Collector) -> None:
    traced(collector, closed(), closed(outcome="recovered"))
    found = collector.histograms
    used = found["gen_ai.client.token.usage"]
    kinds = {told(point.attributes)["gen_ai.token.type"]: point.sum for point in used}
    assert kinds == {"input": 10, "output": 11}
    assert list(used[0].explicit_bounds)[-1] == 67108864
    (took,), (first,), (gap,) = (
        found[f"gen_ai.server.{name}"]
        for name in ("request.duration", "time_to_first_token", "time_per_output_token")
    )
    assert (took.sum, first.sum, gap.sum) == pytest.approx((1.1, 0.1, 0.1))
    assert (took.explicit_bounds[0], took.explicit_bounds[-1]) == pytest.approx((0.01, 81.92))


def test_a_collector_that_is_away_holds_nobody_up_for_long() -> None:
    traces, began = Traces("http://127.0.0.1:1", version="1"), time.monotonic()
    traces.begin("a", AT, CHAT, b"")
    traces.left("a", None)
    traces.close()
    assert time.monotonic() - began < 2 * GRACE + 1


async def test_from_the_caller_through_the_gateway_to_the_model_server(
    collector: Collector, upstream: ScriptedUpstream
) -> None:
    environment = serving(upstream.url, "ok-3", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    async with Gateway.embedded(environment, config="drain_pause: 0\n") as gateway:
        key = (await gateway.create_key("alice")).secret
        headers = {"traceparent": PARENT, "tracestate": "a=1"}
        asked = Request("POST", CHAT, key, chat("ok-3", stream=True), headers=headers)
        assert (await gateway.ask(asked)).status == 200
        assert (await gateway.ask(post(CHAT, chat("none"), key))).status == 404
        await gateway.stop()
    await eventually(lambda: len(collector.spans) == 2, "both calls have their spans")
    done, refused = sorted(collector.spans, key=lambda span: "error.type" in told(span.attributes))
    assert (done.trace_id.hex(), done.parent_span_id.hex()) == (TRACE, CALLER)
    assert told(refused.attributes)["error.type"] == "model_not_found"
    sent = dict(upstream.calls[-1].headers)
    assert sent["traceparent"] == f"00-{TRACE}-{done.span_id.hex()}-01"
    assert sent["tracestate"] == "a=1"
    assert collector.histograms["gen_ai.client.token.usage"]


async def test_without_a_collector_the_trace_passes_through(upstream: ScriptedUpstream) -> None:
    async with Gateway.embedded(serving(upstream.url, "ok-3"), config="drain_pause: 0\n") as gateway:
        key = (await gateway.create_key("alice")).secret
        for headers in ({"traceparent": PARENT}, {"traceparent": "no such form"}):
            await gateway.ask(Request("POST", CHAT, key, chat("ok-3"), headers=headers))
    assert [dict(call.headers).get("traceparent") for call in upstream.calls[-2:]] == [PARENT, None]
