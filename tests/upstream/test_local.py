"""An answer made inside the gateway is read and poured like one that came over a socket."""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.errors import ClientGone, UpstreamTimeout
from llmgateway.domain.ports import Reply, UpstreamRequest
from llmgateway.upstream.local import LocalReply, WithLocal
from tests.upstream.calling import question

PIECES = (b"data: 1\n\n", b"", b"data: 2\n\n", b"data: [DONE]\n\n")


def reply(pieces: Sequence[bytes] = PIECES) -> LocalReply:
    return LocalReply(200, {b"content-type": b"text/event-stream"}, pieces)


async def test_it_is_read_whole_or_in_part() -> None:
    assert await reply().read(1000) == b"".join(PIECES)
    part = reply()
    assert await part.read(3) == PIECES[0]
    assert await part.piece() == PIECES[2]
    assert await part.read(1000) == PIECES[3]
    assert await part.piece() == b""


async def test_it_is_poured_and_waits_for_a_slow_sink() -> None:
    taken: list[bytes] = []
    gate = asyncio.Event()

    def sink(data: bytes) -> Awaitable[None] | None:
        taken.append(data)
        return gate.wait() if len(taken) == 1 else None  # type: ignore[return-value]

    pouring = asyncio.ensure_future(reply().pour(sink))
    for _ in range(10):
        await asyncio.sleep(0)
    assert taken == [PIECES[0]]
    gate.set()
    await pouring
    assert b"".join(taken) == b"".join(PIECES)


async def test_what_comes_after_enough_is_not_waited_for() -> None:
    taken: list[bytes] = []
    local = reply()

    def sink(data: bytes) -> None:
        taken.append(data)
        local.enough()

    await local.pour(sink)
    assert taken == [PIECES[0]]


async def test_an_error_ends_it() -> None:
    local = reply()

    def sink(data: bytes) -> None:
        local.fail(UpstreamTimeout("total", 1))
        local.fail(ClientGone("It has hung up."))

    with pytest.raises(UpstreamTimeout):
        await local.pour(sink)
    with pytest.raises(UpstreamTimeout):
        await local.piece()


async def test_it_pauses_between_two_pieces() -> None:
    slow = LocalReply(200, {}, [b"1", b"2"], 60)
    assert await slow.piece() == b"1"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await slow.piece()
    assert await slow.read(10) == b"2"
    assert await slow.piece() == b""


async def test_others_are_told_while_a_long_answer_runs() -> None:
    """Each piece gives the event loop a turn."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await reply([b"x"] * 100).pour(lambda _: None)
    counting.cancel()
    assert turns >= 100


class Elsewhere:
    """Implements `domain.ports.Upstream`; it is never right."""

    def order(self, targets: Sequence[Target]) -> Sequence[Target]:
        return targets[::-1]

    async def send(self, target: Target, request: UpstreamRequest, deadlines: Deadlines) -> Reply:
        raise UpstreamTimeout("connect", 1)


async def test_its_providers_only_are_answered_here() -> None:
    both = WithLocal(Elsewhere(), {"echo": lambda request: reply([request.body])})
    here, there = Target(provider="echo", url="", model="m"), Target(url="http://10.0.0.1/v1", model="m")
    answer = await both.send(here, question(body=b"{}"), Deadlines())
    assert (answer.status, await answer.read(10)) == (200, b"{}")
    answer.close()
    with pytest.raises(UpstreamTimeout):
        await both.send(there, question(), Deadlines())
    assert both.order([here, there]) == [there, here]
