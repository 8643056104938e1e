"""A call from its key to its line: the order in which its blocks are left, and what it leaves behind."""

import asyncio
import gc

import pytest

from llmgateway.domain.call import Tokens
from llmgateway.domain.errors import (
    ClientGone,
    LedgerUnavailable,
    ModelNotAllowed,
    NotAuthenticated,
    ShuttingDown,
)
from llmgateway.jobs.background import Background
from tests.flow.stage import (
    DONE,
    FIRST,
    JSON_TYPE,
    LAST,
    SSE_TYPE,
    USAGE,
    WHOLE,
    Stage,
    chat,
    key_document,
    turns,
)


async def test_a_whole_answer(background: Background) -> None:
    stage = Stage(background, (200, JSON_TYPE, [WHOLE]))
    caller = stage.caller()
    await stage.gateway.exchange(caller)
    assert (caller.status, caller.told, caller.is_finished) == (200, WHOLE, True)
    assert stage.log == ["reserve", "settle", "finish", "close"]
    record = stage.record
    assert (record.user, record.project, record.model, record.request_id) == ("alice", None, "m", "request")
    assert (record.outcome, record.status, record.tokens, record.usage_source) == (
        "completed",
        200,
        Tokens(5, 2),
        "upstream",
    )
    assert [(a.target, a.status, a.reason) for a in record.attempts] == [("a:1", 200, "ok")]
    assert stage.admit.in_flight == len(stage.watch.calls) == 0
    assert stage.sunk[0].id == record.id


async def test_a_stream_is_settled_before_its_last_word(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST, LAST, USAGE, DONE]))
    caller = stage.caller(chat(stream=True))
    await stage.gateway.exchange(caller)
    assert caller.told == FIRST + LAST + DONE
    assert stage.log == ["reserve", "settle", "finish", "close"]
    assert stage.record.ttft_ms is not None


@pytest.mark.parametrize("models", [None, ["other"]])
async def test_what_is_refused_before_it_is_accepted_leaves_no_line(
    background: Background, models: list[str] | None
) -> None:
    stage = Stage(background)
    stage.shelf.documents["keys"] = key_document(models=models)
    caller = stage.caller(token="wrong") if models is None else stage.caller()
    with pytest.raises((NotAuthenticated, ModelNotAllowed)):
        await stage.gateway.exchange(caller)
    assert stage.log == []


async def test_no_ledger_no_dispatch(background: Background) -> None:
    stage = Stage(background, (200, JSON_TYPE, [WHOLE]))
    stage.journal.is_full = True
    with pytest.raises(LedgerUnavailable):
        await stage.gateway.exchange(stage.caller())
    assert stage.upstream.requests == []
    assert stage.admit.in_flight == 0


async def test_a_hang_up_closes_upstream_then_the_line_then_the_place(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), silent=True)
    stage.upstream.counts = [(200, JSON_TYPE, [b'{"count":30}']), (200, JSON_TYPE, [b'{"count":1}'])]
    caller = stage.caller(chat(stream=True))
    call = asyncio.ensure_future(stage.gateway.exchange(caller))
    await turns()
    stage.look(0.2)
    await turns()
    caller.leave.set()
    with pytest.raises(ClientGone):
        await call
    assert stage.log == ["reserve", "close", "settle"]
    record = stage.record
    assert (record.outcome, record.status, record.tokens, record.usage_source) == (
        "client_gone",
        200,
        Tokens(30, 1),
        "counted",
    )
    assert stage.admit.in_flight == 0
    assert not call.cancelled()


async def test_the_shutdown_ends_a_call_without_asking_anybody(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), silent=True)
    call = asyncio.ensure_future(stage.gateway.exchange(stage.caller(chat(stream=True))))
    await turns()
    stage.watch.interrupt_all(ShuttingDown("bye"))
    with pytest.raises(ShuttingDown):
        await call
    assert (stage.record.outcome, stage.record.usage_source) == ("shutdown", "estimated")
    assert len(stage.upstream.requests) == 1


async def test_a_cancelled_call_is_settled_too(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), silent=True)
    call = asyncio.ensure_future(stage.gateway.exchange(stage.caller(chat(stream=True))))
    await turns()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert stage.log == ["reserve", "close", "settle"]


async def test_a_call_leaves_nothing_to_the_collector(background: Background) -> None:
    """A cycle would give the next call memory that no cache has seen."""
    stage = Stage(background, *[(200, SSE_TYPE, [FIRST, LAST, USAGE, DONE])] * 60)
    for _ in range(30):
        await stage.gateway.exchange(stage.caller(chat(stream=True)))
    gc.collect()
    gc.disable()
    try:
        for _ in range(30):
            await stage.gateway.exchange(stage.caller(chat(stream=True)))
        assert gc.collect() < 30  # less than one object a call
    finally:
        gc.enable()
