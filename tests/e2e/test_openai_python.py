"""The official Python SDK, unmodified: all that it can ask of the gateway."""

import array
import asyncio
import base64
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionToolParam

from tests.e2e.deployment import Tenant, figures
from tests.e2e.sdk import chat
from tests.lab.breaking import body
from tests.lab.exchange import Exchange
from tests.lab.payloads import CREATED, Said, compact
from tests.lab.telling import SSE

pytestmark = pytest.mark.e2e

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ARGUMENTS = '{"city":"Jyväskylä"}'


# --- answers


async def test_s_in_13_chat(client: AsyncOpenAI, tenant: Tenant) -> None:
    answer = await chat(client, "ok-5", n=2)
    assert [choice.message.content for choice in answer.choices] == ["w0 w1 w2 w3 w4"] * 2
    assert answer.usage.completion_tokens == 10
    record = await tenant.record()
    assert answer._request_id == record["request_id"]
    assert figures(record) == ("completed", 200, 3, 10, "upstream")
    assert record["client"] == {"sdk": "python", "version": openai.__version__, "retry": 0}


async def test_a_stream_ends_as_completed(client: AsyncOpenAI, tenant: Tenant) -> None:
    stream = await chat(client, "ok-5", stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "w0 w1 w2 w3 w4"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert figures(await tenant.record()) == ("completed", 200, 3, 5, "upstream")


async def test_a_stream_with_usage(client: AsyncOpenAI, tenant: Tenant) -> None:
    stream = await chat(client, "ok-3", stream=True, n=2, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    said = dict.fromkeys((0, 1), "")
    for chunk in chunks[:-1]:
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert said == {0: "w0 w1 w2", 1: "w0 w1 w2"}
    assert figures(await tenant.record()) == ("completed", 200, 3, 6, "upstream")


async def test_the_blocking_client(tenant: Tenant) -> None:
    def use() -> tuple[str | None, str]:
        with OpenAI(base_url=tenant.gateway.base_url, api_key=tenant.key.secret, max_retries=0) as client:
            whole = client.chat.completions.create(model="ok-3", messages=[{"role": "user", "content": "a"}])
            pieces = client.chat.completions.create(
                model="ok-3", messages=[{"role": "user", "content": "a"}], stream=True
            )
            return whole.choices[0].message.content, "".join(
                piece.choices[0].delta.content or "" for piece in pieces
            )

    assert await asyncio.to_thread(use) == ("w0 w1 w2", "w0 w1 w2")
    assert [record["outcome"] for record in await tenant.records(2)] == ["completed"] * 2


async def test_s_in_13_a_tool_call(client: AsyncOpenAI, tenant: Tenant) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    tenant.upstream.script(
        "scripted-0",
        body(
            compact(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": CREATED,
                    "model": "scripted-0",
                    "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
                    "usage": {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52},
                }
            ).encode(),
            content_type="application/json",
        ),
    )
    answer = await chat(client, "scripted-0", tools=[WEATHER], tool_choice="auto")
    (asked,) = answer.choices[0].message.tool_calls
    assert (asked.function.name, asked.function.arguments) == ("weather", ARGUMENTS)
    assert tenant.calls[0].fields["tools"] == [WEATHER]
    assert figures(await tenant.record()) == ("completed", 200, 40, 12, "upstream")


async def test_s_in_13_a_streamed_tool_call(client: AsyncOpenAI, tenant: Tenant) -> None:
    def delta(**fields: Any) -> bytes:
        function = {"index": 0, "function": {"arguments": fields.pop("arguments")}, **fields}
        return _chunk({"tool_calls": [function]})

    half = len(ARGUMENTS) // 2
    tenant.upstream.script(
        "scripted-1",
        body(
            b"".join(
                [
                    delta(id="call_1", type="function", arguments=ARGUMENTS[:half]),
                    delta(arguments=ARGUMENTS[half:]),
                    _chunk({}, "tool_calls"),
                    b"data: [DONE]\n\n",
                ]
            )
        ),
    )
    async with client.chat.completions.stream(
        model="scripted-1", messages=[{"role": "user", "content": "weather?"}], tools=[WEATHER]
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls
    (asked,) = final.choices[0].message.tool_calls
    assert asked.function.arguments == ARGUMENTS
    assert final.choices[0].finish_reason == "tool_calls"
    record = await tenant.record()
    assert (record["outcome"], record["usage_source"]) == ("completed", "counted")


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return Said(
        {"id": "x", "object": "chat.completion.chunk", "created": CREATED, "model": "m", "choices": choices}
    ).encoded()


async def test_raw_and_streaming_responses(client: AsyncOpenAI, tenant: Tenant) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="ok-3", messages=[{"role": "user", "content": "a"}], extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.request_id == raw.headers["x-request-id"] == "mine-1"
    assert raw.parse().choices[0].message.content == "w0 w1 w2"
    async with client.chat.completions.with_streaming_response.create(
        model="ok-3", messages=[{"role": "user", "content": "a"}], stream=True
    ) as response:
        lines = [line async for line in response.iter_lines() if line]
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert lines[-1] == "data: [DONE]"
    first, second = await tenant.records(2)
    assert first["request_id"] == "mine-1"
    assert first["id"] == raw.headers["x-llmgateway-id"]
    assert second["request_id"] == response.headers["x-request-id"]


# --- other endpoints


async def embed(x: Exchange) -> None:
    """Vectors in base64 where that is asked for, as the SDK does by default."""
    vector = [0.5, -0.25, 1.0]
    packed = base64.b64encode(array.array("f", vector).tobytes()).decode()
    said = packed if x.question.fields.get("encoding_format") == "base64" else vector
    await x.json(
        {
            "object": "list",
            "model": "m",
            "data": [{"object": "embedding", "index": 0, "embedding": said}],
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        }
    )


@pytest.mark.parametrize("form", ["float", "base64", None])
async def test_embeddings(client: AsyncOpenAI, tenant: Tenant, form: Any) -> None:
    tenant.upstream.script("scripted-2", embed)
    wanted = {"encoding_format": form} if form else {}
    answer = await client.embeddings.create(model="scripted-2", input=["a b"], **wanted)
    sent = tenant.calls[0].fields["encoding_format"]
    assert sent == (form or "base64"), "the SDK's own choice goes through"
    vector: Any = answer.data[0].embedding
    if form == "base64":
        vector = array.array("f", base64.b64decode(vector)).tolist()
    assert vector == [0.5, -0.25, 1.0]
    assert figures(await tenant.record()) == ("completed", 200, 7, 0, "upstream")


async def test_completions(client: AsyncOpenAI, tenant: Tenant) -> None:
    whole = await client.completions.create(model="ok-3", prompt="a b")
    assert whole.choices[0].text == "w0 w1 w2"
    stream = await client.completions.create(model="ok-3", prompt="a b", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "w0 w1 w2"
    assert [figures(record) for record in await tenant.records(2)] == [
        ("completed", 200, 2, 3, "upstream")
    ] * 2


async def test_models(client: AsyncOpenAI) -> None:
    listed = {model.id async for model in client.models.list()}
    assert {"ok-5", "org/model-1", "priced"} <= listed
    one = await client.models.retrieve("org/model-1")
    assert (one.id, one.object) == ("org/model-1", "model")
    assert one.created > 0
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("org/nothing")
    assert caught.value.code == "model_not_found"


async def test_sound_and_pictures_pass_through(client: AsyncOpenAI, tenant: Tenant) -> None:
    wave = b"RIFF" + bytes(range(256)) * 8
    heard = await client.audio.transcriptions.create(model="ok-3", file=("talk.wav", wave), language="fi")
    assert heard.text == "w0 w1 w2"
    assert wave in tenant.calls[0].body
    spoken = await client.audio.speech.create(model="ok-1", voice="alloy", input="Terve")
    assert spoken.content == b"ID3" + bytes(256)
    drawn = await client.images.generate(model="ok-1", prompt="a gate")
    assert drawn.data is not None
    assert drawn.data[0].b64_json == "bGFi"
    edited = await client.images.edit(model="ok-1", image=("a.png", b"\x89PNG" + wave), prompt="open it")
    assert edited.data is not None
    flagged = await client.moderations.create(model="ok-1", input="a")
    assert flagged.model == "ok-1"
    paths = ["audio/transcriptions", "audio/speech", "images/generations", "images/edits", "moderations"]
    assert [call.endpoint for call in tenant.calls] == paths
    assert [record["endpoint"] for record in await tenant.records(5)] == [f"/v1/{path}" for path in paths]


async def test_responses(client: AsyncOpenAI, tenant: Tenant) -> None:
    whole = await client.responses.create(model="ok-3", input="a b")
    assert whole.output_text == "w0 w1 w2"
    stream = await client.responses.create(model="ok-3", input="a b", stream=True)
    events = [event.type async for event in stream]
    assert events == ["response.created", *["response.output_text.delta"] * 3, "response.completed"]
    assert [figures(record) for record in await tenant.records(2)] == [
        ("completed", 200, 2, 3, "upstream")
    ] * 2


async def test_vendor_fields_reach_both_ends(client: AsyncOpenAI, tenant: Tenant) -> None:
    async def think(x: Exchange) -> None:
        await x.head(content_type=SSE)
        await x.piece(_chunk({"role": "assistant", "reasoning": "hmm", "content": None}))
        await x.piece(_chunk({"content": "so"}, "stop"))
        await x.done()
        await x.end()

    tenant.upstream.script("scripted-3", think)
    stream = await chat(
        client, "scripted-3", stream=True, extra_body={"top_k": 3, "guided_json": {"a": [1.0, 1e3]}}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.reasoning == "hmm"
    assert tenant.calls[0].fields["guided_json"] == {"a": [1.0, 1e3]}
    assert b"1e3" in tenant.calls[0].body or b"1000.0" in tenant.calls[0].body
