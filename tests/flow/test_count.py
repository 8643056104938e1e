"""Counts come from those who know: llama.cpp's, else vLLM's; a wrong answer is no count."""

import msgspec
import pytest

from llmgateway.domain.catalog import Target
from llmgateway.domain.errors import UpstreamError, UpstreamFailed, UpstreamTimeout
from llmgateway.flow.count import Count, text_of_messages, text_of_prompt
from tests.doubles import SetClock
from tests.flow.stage import JSON_TYPE, Scripted, ScriptedUpstream

TARGET = Target(url="http://a:1/m/v1", model="there")
CLOCK = SetClock()
GONE: Scripted = (404, JSON_TYPE, [b"{}"])


def counting(*script: Scripted) -> tuple[Count, ScriptedUpstream]:
    upstream = ScriptedUpstream([])
    upstream.counts = list(script)
    return Count(upstream, CLOCK.monotonic), upstream


def said(count: object) -> Scripted:
    return 200, JSON_TYPE, [msgspec.json.encode({"count": count})]


async def test_a_text_is_counted_beside_v1() -> None:
    count, upstream = counting(said(3))
    assert await count.text(TARGET, "Hello") == 3
    request = upstream.requests[0][1]
    assert request.path == "http://a:1/m/extras/tokenize/count"
    assert msgspec.json.decode(request.body) == {"model": "there", "input": "Hello"}


async def test_the_address_of_the_settings_goes_first() -> None:
    count, upstream = counting(said(3))
    elsewhere = msgspec.structs.replace(TARGET, tokenizer="http://t:1/tokenize")
    await count.text(elsewhere, "Hello")
    assert upstream.requests[0][1].path == "http://t:1/tokenize"


async def test_vllm_is_asked_where_llama_is_not() -> None:
    count, upstream = counting(GONE, said(4))
    assert await count.text(TARGET, "Hello") == 4
    assert upstream.requests[1][1].path == "http://a:1/m/tokenize"
    assert msgspec.json.decode(upstream.requests[1][1].body)["prompt"] == "Hello"


async def test_a_chat_is_counted_with_its_template_else_as_its_texts() -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "temperature": 1}
    count, upstream = counting(said(30))
    assert await count.chat(TARGET, chat) == 30
    assert "temperature" not in msgspec.json.decode(upstream.requests[0][1].body)
    count, upstream = counting(GONE, GONE, said(3))
    assert await count.chat(TARGET, chat) == 3
    assert msgspec.json.decode(upstream.requests[2][1].body)["input"] == "Hello"


async def test_llama_server_writes_a_chat_out_and_lists_its_tokens() -> None:
    written: Scripted = (200, JSON_TYPE, [b'{"prompt":"<user>Hello<assistant>"}'])
    listed: Scripted = (200, JSON_TYPE, [b'{"tokens":[1,2,3,4]}'])
    count, upstream = counting(GONE, written, GONE, listed, written, listed)
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    assert await count.chat(TARGET, chat) == 4
    assert msgspec.json.decode(upstream.requests[3][1].body)["content"] == "<user>Hello<assistant>"
    assert await count.chat(TARGET, chat) == 4, "what it does not know it is not asked again"
    assert len(upstream.requests) == 6


async def test_r_fault_17_a_tokeniser_that_is_away_is_left_alone_for_a_while() -> None:
    clock = SetClock()
    upstream = ScriptedUpstream([])
    upstream.counts = [UpstreamTimeout("first_byte", 2), said(3)]
    count = Count(upstream, clock.monotonic)
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await count.text(TARGET, "x")
    assert len(upstream.requests) == 1
    clock.pass_seconds(11)
    assert await count.text(TARGET, "x") == 3


async def test_prompts_of_completions_and_inputs_of_embeddings() -> None:
    count, upstream = counting(said(1), said(2))
    assert await count.chat(TARGET, {"prompt": "a"}) == 1
    assert await count.chat(TARGET, {"input": ["a", "b"]}) == 2
    assert msgspec.json.decode(upstream.requests[1][1].body)["input"] == "a\nb"


async def test_a_response_s_input_is_counted_with_its_instructions() -> None:
    count, upstream = counting(said(9))
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "http://x"}]
    items = [{"role": "user", "content": parts}, {"type": "function_call_output", "output": "b"}]
    assert await count.chat(TARGET, {"instructions": "Be brief.", "input": items}) == 9
    assert msgspec.json.decode(upstream.requests[0][1].body)["input"] == "Be brief.\na\nb"


@pytest.mark.parametrize(("prompt", "tokens"), [([5, 6, 7], 3), ([[5, 6], [7]], 3), ([True, None], 0)])
async def test_a_prompt_of_tokens_is_as_long_as_it_is(prompt: list[object], tokens: int) -> None:
    """LangChain tokenises what it wants to have embedded."""
    count, upstream = counting(said(0))
    assert await count.chat(TARGET, {"input": prompt}) == tokens
    assert len(upstream.requests) == (not tokens)
    mixed, _ = counting(said(2))
    assert await mixed.chat(TARGET, {"prompt": [*prompt, "a"]}) == tokens + 2


@pytest.mark.parametrize("wrong", [-1, "3", True, None, 1.5])
async def test_wrong_counts_are_none(wrong: object) -> None:
    count, _ = counting(said(wrong), said(wrong))
    with pytest.raises(UpstreamFailed):
        await count.text(TARGET, "x")


async def test_a_server_that_is_down_or_slow_is_told() -> None:
    count, _ = counting(UpstreamTimeout("first_byte", 2))
    with pytest.raises(UpstreamTimeout):
        await count.text(TARGET, "x")


def test_what_of_a_chat_is_text() -> None:
    parts = [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": {"url": "http://x"}}]
    assert text_of_messages([{"content": "a"}, {"content": parts}, {"content": None}, "odd"]) == "a\nb"
    assert text_of_prompt(["a", 1, "b"]) == "a\nb"
    assert text_of_prompt(7) == ""
