"""Bytes up, bytes down: the next target only before the first byte, and the truth about how it ended."""

import asyncio
import json
from typing import Any

import pytest

from llmgateway.domain.call import Tokens
from llmgateway.domain.errors import (
    ClientGone,
    GatewayError,
    UpstreamError,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from llmgateway.flow import relay
from llmgateway.jobs.background import Background
from tests.flow.stage import DONE, FIRST, JSON_TYPE, LAST, SSE_TYPE, WHOLE, Scripted, Stage, chat, model

PAIR = model("http://b:1/v1", "http://a:1/v1")  # asked in reverse: a, then b
GOOD: Scripted = (200, JSON_TYPE, [WHOLE])
ERROR_EVENT = b'data: {"error":{"message":"boom","code":429}}\n\n'


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (UpstreamFailed("x", reason="connect"), "connect"),
        (UpstreamFailed("x", reason="reset"), "reset"),
        (UpstreamTimeout("connect", 1), "timeout_connect"),
        ((503, JSON_TYPE, [b"{}"]), "status_503"),
        ((429, JSON_TYPE, [b"{}"]), "status_429"),
        ((500, JSON_TYPE, [b"{}"]), "status_500"),
        ((200, {b"content-type": b"text/html"}, [b"<html>"]), "type"),
        ((200, {**JSON_TYPE, b"content-encoding": b"gzip"}, [b"\x1f\x8b"]), "encoding"),
        ((200, SSE_TYPE, [ERROR_EVENT]), "status_429"),
    ],
)
async def test_r_acc_04_another_target_is_tried_before_the_first_byte(
    background: Background, first: Scripted, reason: str
) -> None:
    stage = Stage(background, first, GOOD, served=PAIR)
    caller = stage.caller()
    await stage.gateway.exchange(caller)
    assert caller.told == WHOLE
    record = stage.record
    assert [(a.target, a.reason) for a in record.attempts] == [("a:1", reason), ("b:1", "ok")]
    assert record.target is not None
    assert (record.target.replica, record.tokens) == ("b:1", Tokens(5, 2))


@pytest.mark.parametrize(
    "only",
    [
        UpstreamTimeout("first_byte", 1),
        (400, JSON_TYPE, [b'{"error":{"message":"no"}}']),
        (404, JSON_TYPE, [b"{}"]),
    ],
)
async def test_what_another_target_would_not_do_better_is_told(
    background: Background, only: Scripted
) -> None:
    stage = Stage(background, only, GOOD, served=PAIR)
    with pytest.raises(UpstreamError):
        await stage.gateway.exchange(stage.caller())
    assert len(stage.upstream.requests) == 1
    assert (stage.record.tokens, stage.record.usage_source, stage.record.cost) == (Tokens(), "none", 0)


async def test_r_acc_04_three_targets_at_the_most(background: Background) -> None:
    many = model(*(f"http://h{n}:1/v1" for n in range(5)))
    stage = Stage(background, *[UpstreamFailed("x", reason="connect")] * 5, served=many)
    with pytest.raises(UpstreamFailed):
        await stage.gateway.exchange(stage.caller())
    assert len(stage.record.attempts) == relay.ATTEMPTS == 3


async def broken(background: Background, *pieces: bytes, error: type[GatewayError] = UpstreamFailed) -> Stage:
    stage = Stage(background, (200, SSE_TYPE, pieces), GOOD, served=PAIR)
    stage.upstream.counts = [UpstreamFailed("x", reason="connect")] * 4
    caller = stage.caller(chat(stream=True))
    with pytest.raises(error):
        await stage.gateway.exchange(caller)
    assert caller.told == FIRST
    assert not caller.is_finished
    return stage


async def test_after_the_first_byte_there_is_no_other_target(background: Background) -> None:
    stage = await broken(background, FIRST)
    assert stage.log == ["reserve", "close", "settle"]
    record = stage.record
    assert (record.outcome, record.status, record.usage_source) == ("upstream_error", 200, "estimated")
    assert record.tokens.completion == 1
    assert [a.reason for a in record.attempts] == ["cut"]


async def test_an_error_in_the_middle_ends_the_stream(background: Background) -> None:
    stage = await broken(background, FIRST, ERROR_EVENT, error=UpstreamRefused)
    assert stage.record.outcome == "upstream_error"


async def test_an_error_first_is_the_status_that_it_means(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [b": hi\n\n", ERROR_EVENT]))
    caller = stage.caller(chat(stream=True))
    with pytest.raises(UpstreamRefused) as refused:
        await stage.gateway.exchange(caller)
    assert refused.value.status == stage.record.status == 429
    assert not caller.started


async def test_a_stream_without_its_last_word_gets_one_if_it_is_whole(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST, LAST]))
    stage.upstream.counts = [(200, JSON_TYPE, [b'{"count":30}']), (200, JSON_TYPE, [b'{"count":1}'])]
    caller = stage.caller(chat(stream=True))
    await stage.gateway.exchange(caller)
    assert caller.told == FIRST + LAST + DONE
    assert (stage.record.outcome, stage.record.usage_source) == ("completed", "counted")


async def test_json_for_a_stream_stays_json(background: Background) -> None:
    stage = Stage(background, GOOD)
    caller = stage.caller(chat(stream=True))
    await stage.gateway.exchange(caller)
    assert caller.told == WHOLE


async def test_a_large_answer_passes_in_pieces_and_its_usage_is_found_at_its_end(
    background: Background,
) -> None:
    data = b'{"data":"' + b"x" * (relay.MAX_WHOLE + 10) + b'","usage":{"prompt_tokens":7}}'
    pieces = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    stage = Stage(background, (200, JSON_TYPE, pieces))
    caller = stage.caller()
    await stage.gateway.exchange(caller)
    assert caller.told == data
    assert caller.writes > 0
    assert stage.record.tokens == Tokens(7)


USED = b'"usage":{"prompt_tokens":7,"total_tokens":9,"completion_tokens":2}'
BEHIND = b',"prompt_logprobs":[' + b'{"1":{"decoded_token":"usage"}},' * 1000 + b"null]}"


@pytest.mark.parametrize("step", [7, 1000, 100_000])
@pytest.mark.parametrize("before", [0, relay.MAX_WHOLE - 5, relay.MAX_WHOLE + 70_000])
async def test_r_acc_14_usage_is_found_wherever_it_stands(
    background: Background, before: int, step: int
) -> None:
    """vLLM puts the probabilities of the prompt behind it."""
    start = b'{"choices":[{"message":{"content":"Hej"}}],"x":"' + b"x" * before + b'",'
    end = USED + BEHIND
    pieces = [start, *(end[at : at + step] for at in range(0, len(end), step)), b" " * relay.MAX_WHOLE]
    stage = Stage(background, (200, JSON_TYPE, pieces))
    caller = stage.caller()
    await stage.gateway.exchange(caller)
    assert caller.told == b"".join(pieces)
    assert (stage.record.tokens, stage.record.usage_source) == (Tokens(7, 2), "upstream")


async def test_r_acc_02_who_leaves_amid_a_large_answer_pays_for_its_words(background: Background) -> None:
    words = "word " * 2000
    data = json.dumps({"choices": [{"message": {"content": words}, "logprobs": "x" * 3_000_000}]}).encode()
    stage = Stage(
        background, (200, JSON_TYPE, [data[at : at + 65_536] for at in range(0, len(data), 65_536)])
    )
    stage.upstream.counts = [UpstreamFailed("x", reason="connect")] * 4
    caller = stage.caller()
    caller.on_write = lambda: stage.watch.interrupt_all(ClientGone("gone"))
    with pytest.raises(ClientGone):
        await stage.gateway.exchange(caller)
    record = stage.record
    assert (record.outcome, record.usage_source) == ("client_gone", "estimated")
    assert record.tokens.completion >= len(words) // 5


async def test_a_slow_reader_is_waited_for(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST, FIRST, LAST, DONE]))
    caller, slow = stage.caller(chat(stream=True)), asyncio.Event()

    async def read() -> None:
        await slow.wait()

    caller.is_slow = read()
    call: asyncio.Future[Any] = asyncio.ensure_future(stage.gateway.exchange(caller))
    for _ in range(20):
        await asyncio.sleep(0)
    assert caller.told == FIRST
    slow.set()
    await call
    assert caller.told == FIRST + FIRST + LAST + DONE


REFUSED: Scripted = (400, JSON_TYPE, [b'{"error":{"message":"Unknown parameter: \'stream_options\'"}}'])


async def test_a_server_that_refuses_to_say_usage_is_asked_without_and_remembered(
    background: Background,
) -> None:
    uncounted: Scripted = (200, SSE_TYPE, [FIRST, LAST, DONE])
    stage = Stage(background, REFUSED, uncounted, uncounted, REFUSED, uncounted)
    for _ in range(2):
        caller = stage.caller(chat(stream=True))
        await stage.gateway.exchange(caller)
        assert caller.told == FIRST + LAST + DONE
    asked = [b"stream_options" in request.body for _, request in stage.chats]
    assert asked == [True, False, False]
    stage.clock.pass_seconds(601)
    await stage.gateway.exchange(stage.caller(chat(stream=True)))
    assert [b"stream_options" in request.body for _, request in stage.chats][3:] == [True, False]
    assert [record.outcome for record in stage.journal.settled] == ["completed"] * 3
    assert [len(record.attempts) for record in stage.journal.settled] == [1, 1, 1]


async def test_a_refusal_that_only_speaks_of_usage_is_the_caller_s(background: Background) -> None:
    stage = Stage(background, REFUSED, REFUSED, REFUSED, REFUSED)
    for _ in range(2):
        with pytest.raises(UpstreamRefused):
            await stage.gateway.exchange(stage.caller(chat(stream=True)))
    asked = [b"stream_options" in request.body for _, request in stage.chats]
    assert asked == [True, False, True, False], "nothing is remembered of a request that fails anyway"


async def test_an_answer_that_was_broken_off_is_not_made_whole_by_a_last_word(background: Background) -> None:
    stage = Stage(background, (200, SSE_TYPE, [FIRST, DONE]))
    caller = stage.caller(chat(stream=True))
    with pytest.raises(UpstreamFailed, match="broke off"):
        await stage.gateway.exchange(caller)
    assert caller.told == FIRST
    assert (stage.record.outcome, stage.record.attempts[0].reason) == ("upstream_error", "cut")
