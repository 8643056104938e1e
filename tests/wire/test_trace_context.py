"""The W3C's trace context, right and wrong."""

import pytest

from llmgateway.wire.trace_context import carried, context_in, lines_of

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_is_passed_on_with_its_state() -> None:
    assert context_in({b"traceparent": PARENT}) == b"traceparent: " + PARENT + b"\r\n"
    lines = context_in({b"traceparent": PARENT, b"tracestate": b"a=1,b=2"})
    assert lines == lines_of(PARENT, b"a=1,b=2")
    assert carried(lines) == {"traceparent": PARENT.decode(), "tracestate": "a=1,b=2"}


@pytest.mark.parametrize(
    "wrong",
    [b"", b"x", PARENT + b"-more", PARENT.upper(), b"ff" + PARENT[2:], PARENT[:36] + b"0" * 16 + b"-01",
     b"00-" + b"0" * 32 + PARENT[35:], PARENT + b"\r\nx: y"],
)  # fmt: skip
def test_what_has_not_the_form_is_dropped(wrong: bytes) -> None:
    assert context_in({b"traceparent": wrong}) == b""


@pytest.mark.parametrize("state", [b"", b"a" * 513, b"a=1\r\nx: y", "ä".encode()])
def test_a_wrong_state_is_dropped_alone(state: bytes) -> None:
    assert context_in({b"traceparent": PARENT, b"tracestate": state}) == lines_of(PARENT)
