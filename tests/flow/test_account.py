"""The line: closed once, with the truth that can be had, at the price of its acceptance."""

import asyncio

import pytest

from llmgateway.domain.call import Tokens
from llmgateway.domain.errors import GatewayError, UpstreamFailed, UpstreamTimeout
from llmgateway.domain.pricing import Price
from llmgateway.jobs.background import Background
from tests.flow.stage import JSON_TYPE, UNCOUNTED, WHOLE, Scripted, Stage, chat, model, turns

COUNTED = [(200, JSON_TYPE, [b'{"count":30}']), (200, JSON_TYPE, [b'{"count":2}'])]


@pytest.mark.parametrize(
    ("ending", "outcome", "status"),
    [
        (UpstreamFailed("x", reason="connect"), "upstream_error", 502),
        (UpstreamTimeout("first_byte", 1), "timeout", 504),
        ((429, JSON_TYPE, [b"{}"]), "upstream_error", 429),
        ((401, JSON_TYPE, [b"{}"]), "upstream_error", 502),
    ],
)
async def test_r_acc_02_every_ending_has_its_record(
    background: Background, ending: Scripted, outcome: str, status: int
) -> None:
    stage = Stage(background, ending)
    with pytest.raises(GatewayError):
        await stage.gateway.exchange(stage.caller())
    assert (stage.record.outcome, stage.record.status, stage.record.usage_source) == (outcome, status, "none")


async def test_r_acc_15_the_price_is_that_of_the_acceptance(background: Background) -> None:
    price = Price(id="p1", input=1_000_000, output=2_000_000, request=7)
    stage = Stage(background, (200, JSON_TYPE, [WHOLE]), served=model(price=price))
    await stage.gateway.exchange(stage.caller())
    assert (stage.record.price_id, stage.record.cost) == ("p1", 7 + 5 + 4)


async def test_what_the_upstream_does_not_say_is_counted(background: Background) -> None:
    stage = Stage(background, (200, JSON_TYPE, [UNCOUNTED]))
    stage.upstream.counts = list(COUNTED)
    caller = stage.caller()
    await stage.gateway.exchange(caller)
    assert (stage.record.tokens, stage.record.usage_source) == (Tokens(30, 2), "counted")
    assert caller.told == UNCOUNTED


async def test_what_nobody_can_count_is_estimated(background: Background) -> None:
    stage = Stage(background, (200, JSON_TYPE, [UNCOUNTED]))
    stage.upstream.counts = [UpstreamFailed("x", reason="connect")] * 4
    await stage.gateway.exchange(stage.caller())
    assert stage.record.usage_source == "estimated"
    assert stage.record.tokens.completion == 2  # "Hi you" in four-byte tokens


async def test_endpoints_that_are_not_paid_by_the_token(background: Background) -> None:
    stage = Stage(background, (200, {b"content-type": b"audio/wav"}, [b"RIFF"]))
    await stage.gateway.exchange(stage.caller(chat(endpoint="/v1/audio/speech")))
    assert (stage.record.tokens, stage.record.usage_source, stage.record.outcome) == (
        Tokens(),
        "none",
        "completed",
    )


async def test_a_call_that_is_cancelled_while_it_counts_is_settled_once(background: Background) -> None:
    stage = Stage(background, (200, JSON_TYPE, [UNCOUNTED]))
    never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    class Silent:
        """A tokeniser that does not answer."""

        status, headers = 200, JSON_TYPE

        async def read(self, most: int) -> bytes:
            return await never

        async def piece(self) -> bytes:
            raise AssertionError

        async def pour(self, sink: object) -> None:
            raise AssertionError

        def enough(self) -> None: ...

        def fail(self, error: object) -> None: ...

        def close(self) -> None: ...

    stage.upstream.counts = [lambda request: Silent()]
    call = asyncio.ensure_future(stage.gateway.exchange(stage.caller()))
    await turns()
    assert stage.log == ["reserve"]
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert stage.log == ["reserve", "settle", "close"]
    assert stage.record.usage_source == "estimated"


async def test_times_are_kept(background: Background) -> None:
    stage = Stage(background, (200, JSON_TYPE, [WHOLE]))
    caller = stage.caller()
    stage.clock.pass_seconds(0.25)
    await stage.gateway.exchange(caller)
    record = stage.record
    assert (record.duration_ms, record.overhead_us, record.ttft_ms) == (250, 250_000, None)
    assert record.ended_at == stage.clock.now()
    assert record.at == caller.at
