"""The watch: what happens to a call that waits."""

import asyncio

import pytest

from llmgateway.domain.errors import ClientGone
from llmgateway.jobs.background import Background
from llmgateway.wire.sse import KEEPALIVE
from tests.flow.stage import DONE, FIRST, LAST, SSE_TYPE, USAGE, ScriptedCaller, Stage, chat, model, turns


async def waiting(stage: Stage, *, stream: bool = True) -> tuple[ScriptedCaller, "asyncio.Future[None]"]:
    caller = stage.caller(chat(stream=stream))
    call = asyncio.ensure_future(stage.gateway.exchange(caller))
    await turns()
    return caller, call


async def ended(call: "asyncio.Future[None]") -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_comment_after_silence_also_before_the_first_token(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [b""]), silent=True)
    caller, call = await waiting(stage)
    stage.look(4.9)
    assert not caller.started
    stage.look(0.2)
    assert (caller.status, caller.told) == (200, KEEPALIVE)
    stage.look(4.9)
    assert caller.told == KEEPALIVE
    stage.look(5.1)
    assert caller.told == KEEPALIVE * 2
    await ended(call)


async def test_no_comment_where_something_was_said_or_nothing_streams(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), silent=True)
    caller, call = await waiting(stage)
    stage.look(5.1)
    assert caller.told == FIRST
    await ended(call)
    stage = Stage(background, (200, SSE_TYPE, [b""]), silent=True)
    caller, call = await waiting(stage, stream=False)
    stage.look(60)
    assert caller.told == b""
    await ended(call)


async def test_progress_is_written_down_where_there_is_some(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), silent=True)
    _, call = await waiting(stage)
    stage.look(1.1)
    stage.look(1.1)
    (progress,) = stage.journal.progressed
    assert (progress.usage_source, progress.outcome) == ("estimated", None)
    await ended(call)


async def test_a_model_that_is_paid_anyway_is_read_to_its_end(background: Background) -> None:
    pieces = [FIRST, LAST, USAGE, DONE]
    stage = Stage(background, served=model(on_hangup="drain"))
    release = asyncio.Event()

    class Held:
        """A reply that waits after its first piece."""

        status, headers = 200, SSE_TYPE

        async def piece(self) -> bytes:
            return pieces.pop(0)

        async def read(self, most: int) -> bytes:
            raise AssertionError

        async def pour(self, sink: object) -> None:
            await release.wait()
            assert callable(sink)
            for piece in pieces:
                sink(piece)

        def enough(self) -> None: ...

        def fail(self, error: object) -> None: ...

        def close(self) -> None: ...

    stage.upstream.script = [lambda request: Held()]
    caller, call = await waiting(stage)
    stage.look(0.2)
    await turns()
    caller.leave.set()
    await turns()
    assert not call.done()
    release.set()
    await call
    assert (stage.record.outcome, stage.record.usage_source, stage.record.tokens.completion) == (
        "client_gone",
        "upstream",
        2,
    )


async def test_a_call_that_is_over_at_once_is_never_looked_at(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), silent=True)
    caller, call = await waiting(stage)
    caller.leave.set()
    stage.look(0.05)
    await turns()
    assert not call.done()
    stage.look(0.1)
    with pytest.raises(ClientGone):
        await call
