"""The client as the calls see it: what goes up, what is told of health, and calls that end at any moment."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial

import pytest

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.errors import (
    ClientGone,
    UpstreamError,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from llmgateway.upstream.health import FAILURES
from tests.lab.breaking import raw
from tests.lab.telling import ok
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually
from tests.upstream.calling import MIB, PATIENT, Calls, calling, question

FEW = 10


@pytest.fixture
async def few(upstream: ScriptedUpstream) -> AsyncIterator[Calls]:
    """Calls over at most ten connections."""
    async with calling(upstream, most=FEW) as found:
        yield found


# --- what goes up


async def test_the_request_is_ours_from_the_first_to_the_last_byte(calls: Calls) -> None:
    asked = question(body=b'{"model":"m","x":"\xc3\xa9"}')
    await calls.client.send(calls.target(credential="sk-up"), asked, PATIENT)
    (call,) = calls.upstream.calls
    assert (call.method, call.target, call.body) == ("POST", "/ok/v1/chat/completions", asked.body)
    assert call.headers == (
        ("host", f"127.0.0.1:{calls.upstream.port}"),
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("user-agent", "llmgateway"),
        ("authorization", "Bearer sk-up"),
        ("content-type", "application/json"),
        ("x-request-id", "call-1"),
        ("content-length", str(len(asked.body))),
    )


async def test_the_credential_goes_home_only(calls: Calls) -> None:
    """A tokeniser may be anywhere; the model server's credential is not for it."""
    async with ScriptedUpstream() as other:
        target = calls.target(credential="sk-up")
        for url in (f"{calls.upstream.url}/ok/tokenize", f"{other.url}/ok/tokenize"):
            reply = await calls.client.send(target, question(path=url), PATIENT)
            assert await reply.read(MIB)
            reply.close()
        assert calls.upstream.counts[0].header("authorization") == "Bearer sk-up"
        assert other.counts[0].header("authorization") is None
        assert other.counts[0].header("host") == f"127.0.0.1:{other.port}"


async def test_targets_of_one_origin_share_its_connections(calls: Calls) -> None:
    for model in ("ok", "ok-1", "ok-2"):
        await calls.whole(model)
    assert calls.upstream.accepted_connections == 1


async def test_two_credentials_are_not_mixed_up(calls: Calls) -> None:
    for credential in ("sk-1", "sk-2", None, "sk-1"):
        reply = await calls.client.send(calls.target(credential=credential), question(), PATIENT)
        await reply.read(MIB)
        reply.close()
    seen = [call.header("authorization") for call in calls.upstream.calls]
    assert seen == ["Bearer sk-1", "Bearer sk-2", None, "Bearer sk-1"]


# --- health


async def fail(calls: Calls, model: str, times: int = FAILURES) -> None:
    for _ in range(times):
        with suppress(UpstreamError):
            await calls.poured(model, Deadlines(first_byte=0.02, idle=0.02))


def is_up(calls: Calls, model: str) -> bool:
    return calls.client.replicas.of(calls.target(model)).is_up


@pytest.mark.parametrize(("model", "still_up"), [
    ("ok", True),
    ("status-400", True),
    ("status-429", True),
    ("status-500", False),
    ("status-503", False),
    ("rst-before-headers", False),
    ("die-after-1", False),
    ("accept-and-hang", False),
    ("stall-after-1", False),
])  # fmt: skip
async def test_r_fault_16_what_counts_as_a_failure(calls: Calls, model: str, still_up: bool) -> None:
    await fail(calls, model)
    assert is_up(calls, model) == still_up
    assert calls.in_flight == 0
    assert calls.client.order([calls.target(model), calls.target("other")])[0].model != model or still_up


@pytest.mark.parametrize(("error", "still_up"), [
    (ClientGone("It has hung up."), True),
    (UpstreamRefused("The prompt is too long.", status=400), True),
    (UpstreamRefused("The engine is overloaded.", status=503), False),
    (UpstreamFailed("The engine died.", reason="error_event"), False),
])  # fmt: skip
async def test_what_a_stream_ends_with_counts_too(
    calls: Calls, error: ClientGone | UpstreamError, still_up: bool
) -> None:
    """A caller whose requests are wrong must not take a replica away from all others."""
    for _ in range(FAILURES):
        reply = await calls.send("stall-after-1", question(stream=True))
        await reply.piece()
        reply.fail(error)
        reply.close()
    assert is_up(calls, "stall-after-1") == still_up


async def test_a_tokeniser_that_fails_is_not_its_model(calls: Calls) -> None:
    calls.upstream.tokenizer("ok", "broken")
    for _ in range(FAILURES):
        asked = question(path=f"{calls.upstream.url}/ok/extras/tokenize/count")
        reply = await calls.client.send(calls.target("ok"), asked, PATIENT)
        assert reply.status == 500
        reply.close()
    assert is_up(calls, "ok")


async def test_a_cancelled_call_is_nobodys_failure(calls: Calls) -> None:
    for _ in range(FAILURES):
        task = asyncio.ensure_future(calls.whole("accept-and-hang"))
        await calls.upstream.seen(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert is_up(calls, "accept-and-hang")


# --- calls that end at any moment


async def all_is_well(calls: Calls, count: int = 100) -> None:
    """Nothing is in use, and so many calls at once succeed at once."""
    await eventually(lambda: calls.in_flight == 0, "no call is in flight")
    assert not calls.pool._waiting
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(calls.whole("ok-2") for _ in range(count)))
    assert all(b'"completion_tokens":2' in answer for answer in answers)
    assert calls.pool.connections <= FEW
    assert calls.pool._free + calls.pool.connections == FEW
    assert len(calls.pool._idle) == calls.pool.connections


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_r_load_09_a_storm_of_cancelled_calls_leaves_no_trace(few: Calls, seed: int) -> None:
    """Twice as many as there are connections, each cancelled somewhere in its life."""
    chance = random.Random(seed)
    models = ("ok-3", "ok-5x1ms", "accept-and-hang", "stall-after-2", "flood", "status-500", "reset-after-1")

    async def one() -> None:
        model = chance.choice(models)
        call = few.poured(model) if chance.random() < 0.7 else few.whole(model)
        task = asyncio.ensure_future(call)
        await asyncio.sleep(chance.uniform(0, 0.005))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def keep_calling() -> None:
        for _ in range(40):
            await one()

    await asyncio.gather(*(keep_calling() for _ in range(2 * FEW)))
    await all_is_well(few)


@pytest.mark.parametrize("turns", range(12))
async def test_r_load_10_a_call_may_be_cancelled_in_every_turn_of_the_loop(few: Calls, turns: int) -> None:
    for _ in range(3):
        task = asyncio.ensure_future(few.poured("ok-3"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await few.whole("ok")
    await all_is_well(few, 30)


@pytest.mark.parametrize("first", ["deadline", "cancel", "reset"])
async def test_r_load_10_two_ends_in_one_turn_of_the_loop_are_one(few: Calls, first: str) -> None:
    """The total deadline passes, the server breaks off, and the caller hangs up: in any order."""
    for _ in range(3):
        reply = await few.send("stall-after-2", question(stream=True))
        pouring = asyncio.ensure_future(reply.pour(lambda _: None))
        await asyncio.sleep(0)
        ends: dict[str, Callable[[], object]] = {
            "deadline": partial(reply.expire, reply._expires),
            "cancel": pouring.cancel,
            "reset": partial(reply.connection_lost, ConnectionResetError()),
        }
        ends.pop(first)()
        for end in ends.values():
            end()
        (ended,) = await asyncio.gather(pouring, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError | UpstreamTimeout | UpstreamFailed)
        reply.close()
        reply.close()
    await few.whole("ok")
    await all_is_well(few, 30)


async def test_r_load_08_callers_that_leave_before_the_answer_leave_nothing(few: Calls) -> None:
    """Four hundred of them, over ten connections."""

    async def leave(n: int) -> None:
        task = asyncio.ensure_future(few.whole("accept-and-hang"))
        await asyncio.sleep(0.002 * (n % 7))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for n in range(0, 400, 40):
        await asyncio.gather(*(leave(n + i) for i in range(40)))
    await few.whole("ok")
    await all_is_well(few)


async def test_a_cancelled_call_never_gets_the_answer_of_the_next(few: Calls) -> None:
    """Each answer carries the words of its own question, whatever was cancelled around it."""
    chance = random.Random(7)

    async def own(n: int) -> None:
        said = f'{{"n":{n}}}'.encode()
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said)
        few.upstream.script(f"m{n}", raw(answer, [len(answer) // 2], then_close=False))
        task = asyncio.ensure_future(few.whole(f"m{n}"))
        if chance.random() < 0.5:
            await asyncio.sleep(chance.uniform(0, 0.003))
            task.cancel()
        (got,) = await asyncio.gather(task, return_exceptions=True)
        assert got == said or isinstance(got, asyncio.CancelledError)

    for n in range(0, 300, 30):
        await asyncio.gather(*(own(n + i) for i in range(30)))
    few.upstream.script("ok-2", ok("2"))
    await all_is_well(few)


async def test_closing_ends_what_is_open(few: Calls) -> None:
    await few.whole("ok")
    waiting = asyncio.ensure_future(few.whole("accept-and-hang"))
    await few.upstream.seen(2)
    few.client.close()
    with pytest.raises(UpstreamFailed):
        await waiting
    await eventually(lambda: few.pool.connections == 0, "all are closed")


async def test_one_target_without_a_path_is_asked_at_the_root(calls: Calls) -> None:
    target = Target(url=calls.upstream.url, model="m")
    reply = await calls.client.send(target, question(path="/v1/chat/completions"), PATIENT)
    assert calls.upstream.calls[0].target == "/v1/chat/completions"
    reply.close()
