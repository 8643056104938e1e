"""Who is let in: those who ask for no more than there is, within their limits, while there is room; others
are told, or wait for their turn."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from llmgateway.domain.book import LimitBook
from llmgateway.domain.call import Ask
from llmgateway.domain.catalog import Model
from llmgateway.domain.entries import MOST_COUNTED
from llmgateway.domain.errors import (
    BudgetSpent,
    ClientGone,
    InvalidRequest,
    LedgerUnavailable,
    OverLimit,
    Overloaded,
    ShuttingDown,
    StoreUnavailable,
    UpstreamFailed,
)
from llmgateway.domain.limits import Claim, Limits, Standing
from llmgateway.domain.pricing import Price
from llmgateway.jobs.background import Background
from llmgateway.stores.limits.memory_limiter import MemoryLimiter
from llmgateway.wire.sse import KEEPALIVE
from tests.flow.stage import (
    FIRST,
    JSON_TYPE,
    LAST,
    SSE_TYPE,
    USAGE,
    WHOLE,
    Scripted,
    Stage,
    chat,
    model,
    turns,
)

GOOD: Scripted = (200, JSON_TYPE, [WHOLE])  # 5 and 2 tokens
BOUNDED = model(max_output=10, max_choices=2)
NARROW = model(max_in_flight=1, max_waiting=1, max_wait=0.05)
DEAR = Price(id="p", input=1_000_000, output=2_000_000)  # micro-units: 1 and 2 a token


def limited(background: Background, *script: Scripted, served: Model = BOUNDED, **limits: int) -> Stage:
    stage = Stage(background, *script, served=served)
    stage.admit.book = LimitBook(default=Limits(**limits))
    return stage


async def used(stage: Stage) -> dict[str, int]:
    """How the limits of the one user stand now."""
    scopes = stage.admit.book.scopes_for(await stage.authenticate(stage.caller().token), BOUNDED)
    period = stage.admit.calendar.period_of(stage.clock.now())
    return {one.name: one.used for one in await stage.limiter.standings(scopes, period)}


def told(stage: Stage) -> dict[str, int]:
    """Who was turned away, by what."""
    return {limit: count for limit, count in stage.admit.refusals.items() if count}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"choices": 3}, "n"),
        ({"max_output": 11, "body": b'{"model":"m","max_tokens":11}'}, "max_tokens"),
        (
            {"max_output": 11, "body": b'{"model":"m","max_tokens":null,"max_completion_tokens":11}'},
            "max_completion_tokens",
        ),
    ],
)
async def test_asking_for_too_much(background: Background, more: dict[str, Any], param: str) -> None:
    stage = Stage(background, GOOD, served=BOUNDED)
    with pytest.raises(InvalidRequest) as refused:
        await stage.gateway.exchange(stage.caller(chat(**more)))
    assert refused.value.param == param
    assert not stage.upstream.requests


async def test_asking_for_what_there_is(background: Background) -> None:
    stage = Stage(background, GOOD, served=BOUNDED)
    await stage.gateway.exchange(stage.caller(chat(choices=2, max_output=10)))
    assert stage.admit.in_flight == 0


async def test_r_load_05_06_a_full_gateway_a_draining_one_and_one_without_memory(
    background: Background,
) -> None:
    stage = Stage(background, GOOD)
    stage.admit.in_flight = 100
    with pytest.raises(Overloaded) as refused:
        await stage.gateway.exchange(stage.caller())
    assert refused.value.retry_after
    stage.admit.in_flight = 0
    stage.admit.is_short = True
    with pytest.raises(Overloaded):
        await stage.gateway.exchange(stage.caller())
    stage.admit.is_short, stage.admit.is_open = False, False
    with pytest.raises(ShuttingDown):
        await stage.gateway.exchange(stage.caller())
    assert stage.admit.in_flight == 0
    assert not stage.journal.settled
    assert told(stage) == {"capacity": 1, "memory": 1}


# --- limits ---


async def test_a_limit_refuses_what_is_beyond_it_and_leaves_no_record(background: Background) -> None:
    stage = limited(background, GOOD, GOOD, requests_per_minute=1)
    caller = stage.caller()
    await stage.gateway.exchange(caller)
    assert [(one.name, one.limit, one.left) for one in caller.standings] == [("requests_per_minute", 1, 0)]
    with pytest.raises(OverLimit) as refused:
        await stage.gateway.exchange(stage.caller())
    assert refused.value.standings[0].name == "requests_per_minute"
    assert (len(stage.journal.settled), stage.admit.in_flight) == (1, 0)
    assert told(stage) == {"requests_per_minute": 1}


async def test_what_is_reserved_is_put_right_with_the_truth(background: Background) -> None:
    stage = limited(background, GOOD, tokens_per_day=1000, tokens_per_minute=1000)
    caller = stage.caller(chat(max_output=10, choices=2))
    await stage.gateway.exchange(caller)
    prompt = (len(chat().body) + 3) // 4
    assert {one.used for one in caller.standings} == {prompt + 20}
    assert await used(stage) == {"tokens_per_minute": 7, "tokens_per_day": 7}


async def test_money_is_reserved_and_settled_at_the_model_s_price(background: Background) -> None:
    stage = limited(background, GOOD, GOOD, served=model(price=DEAR, max_output=10), cost_per_month=70)
    await stage.gateway.exchange(stage.caller())
    assert await used(stage) == {"cost_per_month": 9}
    assert stage.record.cost == 9
    with pytest.raises(BudgetSpent) as refused:
        await stage.gateway.exchange(stage.caller(chat(max_output=10, choices=4)))
    assert refused.value.should_retry is False
    assert await used(stage) == {"cost_per_month": 9}


@pytest.mark.parametrize("failure", [UpstreamFailed("x", reason="connect"), StoreUnavailable("x")])
async def test_r_acc_09_what_was_not_served_is_given_back(background: Background, failure: Any) -> None:
    stage = limited(background, failure, tokens_per_day=1000, concurrent_requests=1)
    with pytest.raises(type(failure)):
        await stage.gateway.exchange(stage.caller())
    assert await used(stage) == {"tokens_per_day": 0, "concurrent_requests": 0}


async def test_what_the_ledger_could_not_take_is_not_charged_to_limits(background: Background) -> None:
    limits = {"tokens_per_day": 1000, "cost_per_month": 1000, "concurrent_requests": 1}
    stage = limited(background, served=model(price=DEAR, max_output=10), **limits)
    stage.journal.is_full = True
    with pytest.raises(LedgerUnavailable):
        await stage.gateway.exchange(stage.caller())
    assert await used(stage) == dict.fromkeys(limits, 0)


async def test_a_price_by_the_request_is_taken_from_budgets_too(background: Background) -> None:
    spoken: Scripted = (200, {b"content-type": b"audio/wav"}, [b"RIFF"])
    stage = limited(background, spoken, served=model(price=Price(id="p", request=40)), cost_per_month=70)
    speech = chat(endpoint="/v1/audio/speech")
    await stage.gateway.exchange(stage.caller(speech))
    assert stage.record.cost == 40
    with pytest.raises(BudgetSpent):
        await stage.gateway.exchange(stage.caller(speech))
    assert await used(stage) == {"cost_per_month": 40}


async def test_who_hangs_up_pays_for_what_was_said(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), silent=True, served=BOUNDED)
    stage.admit.book = LimitBook(default=Limits(tokens_per_day=1000, concurrent_requests=1))
    caller = stage.caller(chat(stream=True))
    call = asyncio.ensure_future(stage.gateway.exchange(caller))
    await turns()
    assert (await used(stage))["concurrent_requests"] == 1
    caller.leave.set()
    stage.look(0.2)
    with pytest.raises(ClientGone):
        await call
    tokens = stage.record.tokens
    said = tokens.prompt + tokens.completion
    assert await used(stage) == {"tokens_per_day": said, "concurrent_requests": 0}
    assert tokens.completion == 1


async def test_the_prompt_is_counted_where_tokens_are_limited(background: Background) -> None:
    stage = limited(background, GOOD, tokens_per_day=1000)
    counting = msgspec.structs.replace(BOUNDED.targets[0], tokenizer="http://a:1/extras/tokenize/count")
    stage.route.catalog = type(stage.route.catalog)([msgspec.structs.replace(BOUNDED, targets=(counting,))])
    stage.upstream.counts = [(200, JSON_TYPE, [b'{"count":50}'])]
    caller = stage.caller(chat(max_output=10))
    await stage.gateway.exchange(caller)
    assert caller.standings[0].used == 60
    assert (await used(stage))["tokens_per_day"] == 7


@pytest.mark.parametrize(
    ("ask", "reserved"),
    [
        (chat(endpoint="/v1/embeddings"), 0),
        (chat(max_output=3, choices=2), 6),
        (chat(max_output=3, choices=2, prompts=5), 30),
        (chat(), 10),
    ],
)
async def test_what_an_answer_may_be_at_most(background: Background, ask: Ask, reserved: int) -> None:
    stage = limited(background, GOOD, tokens_per_day=100_000)
    caller = stage.caller(ask)
    await stage.gateway.exchange(caller)
    assert caller.standings[0].used == reserved + (len(ask.body) + 3) // 4


async def test_a_limiter_is_asked_for_no_more_than_it_can_count(background: Background) -> None:
    """A program may ask for any maximum, and prices are in small units."""

    class Keeping(MemoryLimiter):
        @override
        async def reserve(self, claim: Claim) -> Sequence[Standing]:
            claims.append(claim)
            return await super().reserve(claim)

    claims: list[Claim] = []
    yen = Price(id="p", input=2_000_000_000, output=8_000_000_000)
    stage = limited(background, GOOD, served=model(price=yen), requests_per_minute=5)
    stage.admit.limiter = Keeping(stage.load_used, clock=stage.clock)
    await stage.gateway.exchange(stage.caller(chat(max_output=MOST_COUNTED, choices=16)))
    assert [(claim.tokens, claim.cost) for claim in claims] == [(MOST_COUNTED, MOST_COUNTED)]


# --- places ---


async def occupy(stage: Stage) -> "asyncio.Task[None]":
    call = asyncio.ensure_future(stage.gateway.exchange(stage.caller(chat(stream=True))))
    await turns()
    return call


async def test_a_full_model_lets_wait_and_a_full_queue_refuses(background: Background) -> None:
    held: Scripted = (200, SSE_TYPE, [FIRST])
    stage = Stage(background, held, GOOD, served=model(max_in_flight=1, max_waiting=1), silent=True)
    first = await occupy(stage)
    second = stage.caller()
    second.id = "01a1fb00-0000-7000-8000-000000000001"
    waiting = asyncio.ensure_future(stage.gateway.exchange(second))
    await turns()
    assert stage.places.queue("m").waiting == stage.admit.waiting["m"] == 1
    third = stage.caller()
    third.id = "01a1fb00-0000-7000-8000-000000000002"
    with pytest.raises(Overloaded) as refused:
        await stage.gateway.exchange(third)
    assert refused.value.retry_after
    assert len(stage.upstream.requests) == 1
    assert told(stage) == {"max_waiting": 1}
    stage.clock.pass_seconds(10)
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.wait([first])
    await waiting
    assert second.told == WHOLE
    record = stage.journal.settled[-1]
    assert record.overhead_us <= 9_960_000, "what it waited is the model's doing, not the gateway's"
    assert stage.admit.in_flight == stage.admit.waiting["m"] == 0


async def test_waiting_has_an_end(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), served=NARROW, silent=True)
    stage.admit.book = LimitBook(default=Limits(tokens_per_day=100_000))
    first = await occupy(stage)
    before = await used(stage)
    late = stage.caller()
    late.id = "01a1fb00-0000-7000-8000-000000000001"
    with pytest.raises(Overloaded, match="stayed busy"):
        await stage.gateway.exchange(late)
    assert await used(stage) == before, "what it had reserved is given back"
    assert (stage.places.queue("m").waiting, stage.admit.in_flight) == (0, 1)
    assert (told(stage), stage.admit.waiting["m"]) == ({"max_wait": 1}, 0)
    first.cancel()
    await asyncio.wait([first])


async def test_who_leaves_the_queue_of_a_model_that_is_paid_anyway_is_not_served(
    background: Background,
) -> None:
    served = model(max_in_flight=1, on_hangup="drain")
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), served=served, silent=True)
    first = await occupy(stage)
    waiting = stage.caller()
    waiting.id = "01a1fb00-0000-7000-8000-000000000001"
    call = asyncio.ensure_future(stage.gateway.exchange(waiting))
    await turns()
    stage.look(0.2)
    await turns()
    waiting.leave.set()
    with pytest.raises(ClientGone):
        await call
    assert len(stage.chats) == 1
    first.cancel()
    await asyncio.wait([first])


async def test_who_waits_for_a_stream_hears_that_it_waits(background: Background) -> None:
    stream: Scripted = (200, SSE_TYPE, [FIRST, LAST, USAGE])
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), stream, served=model(max_in_flight=1), silent=True)
    first = await occupy(stage)
    waiting = stage.caller(chat(stream=True))
    waiting.id = "01a1fb00-0000-7000-8000-000000000001"
    call = asyncio.ensure_future(stage.gateway.exchange(waiting))
    await turns()
    stage.look(6)
    assert waiting.told == KEEPALIVE
    first.cancel()
    call.cancel()
    await asyncio.wait([first, call])
    assert (stage.places.queue("m").waiting, stage.admit.in_flight) == (0, 0)


async def test_who_hangs_up_while_waiting_leaves_the_queue_and_no_record(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST]), served=model(max_in_flight=1), silent=True)
    first = await occupy(stage)
    waiting = stage.caller()
    waiting.id = "01a1fb00-0000-7000-8000-000000000001"
    call = asyncio.ensure_future(stage.gateway.exchange(waiting))
    await turns()
    waiting.leave.set()
    stage.look(0.2)
    with pytest.raises(ClientGone):
        await call
    assert (stage.places.queue("m").waiting, len(stage.journal.settled)) == (0, 0)
    first.cancel()
    await asyncio.wait([first])
