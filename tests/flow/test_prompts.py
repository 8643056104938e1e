"""A prompt is counted before it goes upstream, within a deadline; else it is estimated."""

import asyncio

import pytest
from typing_extensions import override

from llmgateway.domain.catalog import Target
from llmgateway.domain.errors import UpstreamFailed
from llmgateway.domain.estimate import tokens_in
from llmgateway.flow import prompts
from llmgateway.flow.count import Count
from llmgateway.flow.prompts import Prompts
from tests.doubles import SetClock
from tests.flow.stage import JSON_TYPE, Scripted, ScriptedUpstream, chat

TARGET = Target(url="http://a:1/v1", model="m", tokenizer="http://a:1/extras/tokenize/count")
COUNTED: Scripted = (200, JSON_TYPE, [b'{"count":7}'])


def asking(*script: Scripted) -> tuple[Prompts, ScriptedUpstream, SetClock]:
    clock, upstream = SetClock(), ScriptedUpstream([])
    upstream.counts = list(script)
    return Prompts(Count(upstream, clock.monotonic), clock.monotonic), upstream, clock


async def test_the_same_prompt_is_counted_once() -> None:
    ask_for, upstream, _ = asking(COUNTED)
    assert [await ask_for(chat(), TARGET) for _ in range(3)] == [7, 7, 7]
    assert len(upstream.requests) == 1
    other = Target(url="http://a:1/v1", model="other", tokenizer=TARGET.tokenizer)
    assert await ask_for(chat(), other) == tokens_in(len(chat().body)), "another model counts otherwise"


async def test_r_fault_17_what_cannot_be_counted_is_estimated() -> None:
    ask_for, _, _ = asking(UpstreamFailed("x", reason="connect"), COUNTED)
    assert await ask_for(chat(), TARGET) in (tokens_in(len(chat().body)), 7)


async def test_r_fault_17_a_slow_tokeniser_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "SECONDS", 0.02)
    clock, asked = SetClock(), 0

    class Slow(Count):
        @override
        async def chat(self, target: Target, request: object) -> int:
            nonlocal asked
            asked += 1
            if asked == 1:
                await asyncio.get_running_loop().create_future()
            return 7

    ask_for = Prompts(Slow(ScriptedUpstream([]), clock.monotonic), clock.monotonic)
    estimate = tokens_in(len(chat().body))
    assert [await ask_for(chat(), TARGET) for _ in range(3)] == [estimate] * 3
    assert asked == 1
    clock.pass_seconds(prompts.AWAY_SECONDS + 1)
    assert await ask_for(chat(), TARGET) == 7


async def test_a_server_whose_tokeniser_is_none_is_not_asked() -> None:
    ask_for, upstream, _ = asking(COUNTED)
    silent = Target(url="http://a:1/v1", model="m", tokenizer=None)
    assert await ask_for(chat(), silent) == tokens_in(len(chat().body))
    assert not upstream.requests


async def test_sounds_and_pictures_have_no_tokens() -> None:
    ask_for, upstream, _ = asking(COUNTED)
    assert await ask_for(chat(endpoint="/v1/audio/transcriptions", model_at=(0, 1)), TARGET) == 0
    assert await ask_for(chat(endpoint="/v1/moderations"), TARGET) == 0
    assert not upstream.requests
