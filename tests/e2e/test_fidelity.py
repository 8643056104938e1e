"""What the upstream streams is what the caller gets: the same bytes, wherever the network cut them."""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.e2e.deployment import CHAT, Tenant, figures
from tests.lab.breaking import BETWEEN_PARTS, split_at
from tests.lab.client import EVENT_END, Answer, chat, post
from tests.lab.exchange import Exchange
from tests.lab.telling import SSE

pytestmark = pytest.mark.e2e

COMMENT = re.compile(rb"(?:(?<=[\r\n])|\A): keep-alive\n\n")
AT_ONCE = 16
PROMPT, COMPLETION = 21, 34


def chunk(
    delta: dict[str, Any], *, end: str = "\n", reason: str | None = None, ascii_only: bool = False
) -> bytes:
    said = {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    return f"data: {json.dumps(said, ensure_ascii=ascii_only)}{end}{end}".encode()


USAGE = (
    b'data: {"id":"c-1","object":"chat.completion.chunk","choices":[],"usage":'
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\n'
    % (PROMPT, COMPLETION, PROMPT + COMPLETION)
)
DONE = b"data: [DONE]\n\n"

# All that has broken a relay somewhere: text of every width, every line end, what is none but looks like one,
# fields that only one vendor sends, comments, several `data:` lines, and a word that looks like the end.
SAID = b"".join(
    [
        b": the server says hello\n\n",
        chunk({"role": "assistant", "content": "", "reasoning": "Hm\u2028\u2029\u0085 hm"}),
        chunk({"content": "\N{GRINNING FACE}\N{WOMAN}\u200d\N{ROCKET} \u6f22\u5b57 caf\u00e9"}, end="\r\n"),
        chunk({"content": "\U0001f600"}, ascii_only=True),
        chunk({"content": 'data: [DONE]\\n "usage": {"error"'}),
        b'data: {"choices":[{"index":0,\r\ndata: "delta":{"content":"2"}}], "vendor" : {"x": 1e400}}\r\n\r\n',
        chunk(
            {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": '{"a":'}}]},
            end="\r",
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"\u6f22"}'}}]}),
        chunk({}, reason="tool_calls"),
    ]
)
OFFSETS = range(1, len(SAID + USAGE + DONE))


async def split(x: Exchange) -> None:
    """The same stream, cut in two where the question says; usage where it was asked for."""
    stream = SAID + (USAGE if x.question.wants_usage else b"") + DONE
    await x.head(content_type=SSE)
    for part in split_at(stream, x.question.fields["splits"]):
        await x.piece(part)
        await asyncio.sleep(BETWEEN_PARTS)
    await x.end()


async def relayed(tenant: Tenant, cuts: Iterator[list[int]], **more: Any) -> list[Answer]:
    """The answers to the same question, cut in each of these ways."""
    answers: list[Answer] = []

    async def one_after_the_other() -> None:
        async with await tenant.gateway.connect() as connection:
            for splits in cuts:
                question = chat("scripted-6", stream=True, splits=splits, **more)
                answers.append(await connection.ask(post(CHAT, question, tenant.key.secret)))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())
    return answers


def digest_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return hashlib.sha256(COMMENT.sub(b"", answer.body)).hexdigest()


async def test_r_fault_07_a_stream_cut_at_every_byte(tenant: Tenant) -> None:
    tenant.upstream.script("scripted-6", split)
    answers = await relayed(tenant, ([offset] for offset in OFFSETS))
    assert {digest_of(answer) for answer in answers} == {hashlib.sha256(SAID + DONE).hexdigest()}
    records = await tenant.records(len(OFFSETS), seconds=20)
    assert {figures(record) for record in records} == {("completed", 200, PROMPT, COMPLETION, "upstream")}


async def test_r_fault_07_every_byte_alone(tenant: Tenant) -> None:
    tenant.upstream.script("scripted-6", split)
    answers = await relayed(tenant, iter([[*OFFSETS]]))
    assert [digest_of(answer) for answer in answers] == [hashlib.sha256(SAID + DONE).hexdigest()]
    assert figures(await tenant.record()) == ("completed", 200, PROMPT, COMPLETION, "upstream")


async def test_r_acc_13_usage_that_was_asked_for_stays(tenant: Tenant) -> None:
    tenant.upstream.script("scripted-6", split)
    cuts = ([offset] for offset in range(len(SAID), len(SAID + USAGE + DONE)))
    answers = await relayed(tenant, cuts, stream_options={"include_usage": True})
    assert {digest_of(answer) for answer in answers} == {hashlib.sha256(SAID + USAGE + DONE).hexdigest()}


async def test_a_long_stream_is_the_same_stream(tenant: Tenant) -> None:
    answer = await tenant.ask("ok-3000", stream=True, stream_options={"include_usage": True})
    (call,) = tenant.calls
    assert COMMENT.sub(b"", answer.body) == bytes(call.sent)
    assert figures(await tenant.record()) == ("completed", 200, 3, 3000, "upstream")


async def test_a_whole_answer_is_the_same_answer(tenant: Tenant) -> None:
    answer = await tenant.ask("ok-5", n=3)
    (call,) = tenant.calls
    assert answer.body == bytes(call.sent)
    assert answer.header("content-length") == str(len(call.sent))


async def test_r_fault_06_comments_stand_between_events_only(tenant: Tenant) -> None:
    """Two events come in two pieces each, with pauses that are longer than the keep-alive."""

    async def slow(x: Exchange) -> None:
        await x.head(content_type=SSE)
        *parts, last = split_at(SAID, [90, len(SAID) - 20])
        for part in parts:
            await x.piece(part)
            await asyncio.sleep(0.9)
        await x.piece(last)
        await x.done()
        await x.end()

    tenant.upstream.script("scripted-7", slow)
    answer = await tenant.ask("scripted-7", stream=True)
    assert answer.body.count(b": keep-alive\n\n") >= 2
    assert COMMENT.sub(b"", answer.body) == SAID + DONE
    said = [end.end() for end in EVENT_END.finditer(SAID)]
    at = answer.body.index(b": keep-alive")
    assert at in (0, *said), "the first comment stands where an event ends"


async def test_comments_after_an_id_are_no_events_to_the_sdk(tenant: Tenant) -> None:
    """openai-python keeps the last id, and takes every blank line after it for an event without data."""
    events = [b"id: %d\n" % n + chunk({"content": f"{n} "}) for n in range(3)]

    async def slow(x: Exchange) -> None:
        await x.head(content_type=SSE)
        for event in events:
            await x.piece(event)
            await asyncio.sleep(0.9)
        await x.piece(chunk({}, reason="stop"))
        await x.done()
        await x.end()

    tenant.upstream.script("scripted-8", slow)
    answer = await tenant.ask("scripted-8", stream=True)
    assert answer.body.count(b": keep-alive\n") >= 2
    whole = b"".join(events) + chunk({}, reason="stop") + DONE
    assert answer.body.replace(b": keep-alive\n", b"") == whole
    client = AsyncOpenAI(base_url=tenant.gateway.base_url, api_key=tenant.key.secret)
    async with client:
        stream = await client.chat.completions.create(
            model="scripted-8", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        said = [chunk.choices[0].delta.content async for chunk in stream]
    assert said == ["0 ", "1 ", "2 ", None]
