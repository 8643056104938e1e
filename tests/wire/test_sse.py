"""Events on bytes: wherever the network cuts a stream, the same whole events come out, in the same bytes."""

import itertools
import random

import pytest
from hypothesis import given, strategies as st

from llmgateway.wire.sse import EventSplitter, EventTooLarge, data_of, event_of, events

STREAM = (
    ": hello\n\n"
    'data: {"text":"Hej 👋 你好"}\n\n'
    'data: {"text":"\u2028\u2029\u0085 are text"}\r\n\r\n'
    "event: x\rdata: lone carriage returns\r\r"
    "data: two\ndata: lines\n\n"
    "data: mixed ends\r\n\n"
    "id: 7\ndata:no space\n\n"
    "data: [DONE]\n\n"
).encode()
WHOLE = list(events(STREAM))


def fed(pieces: list[bytes]) -> tuple[bytes, list[bytes], bytes]:
    splitter = EventSplitter()
    out = [splitter.feed(piece) for piece in pieces]
    return b"".join(out), [event for run in out for event in events(run)], splitter.rest


def test_the_events_of_the_reference() -> None:
    assert b"".join(WHOLE) == STREAM
    assert [data_of(event) for event in WHOLE] == [
        b"",
        '{"text":"Hej 👋 你好"}'.encode(),
        '{"text":"\u2028\u2029\u0085 are text"}'.encode(),
        b"lone carriage returns",
        b"two\nlines",
        b"mixed ends",
        b"no space",
        b"[DONE]",
    ]


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_r_fault_07_a_cut_at_every_offset(at: int) -> None:
    assert fed([STREAM[:at], STREAM[at:]]) == (STREAM, WHOLE, b"")


def test_every_byte_alone() -> None:
    assert fed([bytes([byte]) for byte in STREAM]) == (STREAM, WHOLE, b"")


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_r_fault_07_any_cuts(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert fed([STREAM[a:b] for a, b in itertools.pairwise(edges)]) == (STREAM, WHOLE, b"")


def test_only_whole_events_come_out() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert splitter.rest == b"data: 2"
    assert splitter.feed(b"\n") == b""
    assert splitter.feed(b"\ndata") == b"data: 2\n\n"


def test_a_carriage_return_at_the_end_may_be_half_an_end() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\r\n\r") == b""
    assert splitter.feed(b"\n") == b"data: 1\r\n\r\n"


def test_r_fault_09_an_event_that_never_ends_is_refused() -> None:
    splitter = EventSplitter(limit=1000)
    for _ in range(10):
        splitter.feed(b"x" * 100)
    with pytest.raises(EventTooLarge):
        splitter.feed(b"x")


def test_r_fault_09_a_large_event_in_small_pieces_passes() -> None:
    chance = random.Random(7)
    event = event_of(bytes(chance.choices(b'abc{}\\"', k=300_000)))
    splitter = EventSplitter()
    out = b"".join(splitter.feed(event[at : at + 1000]) for at in range(0, len(event), 1000))
    assert out == event
