"""The official Python SDK, unmodified: all that it can ask of the gateway, and every error as its own class."""

import array
import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionToolParam

from tests.e2e.deployment import Tenant, figures
from tests.lab.breaking import body
from tests.lab.exchange import Exchange
from tests.lab.payloads import CREATED, Said, compact
from tests.lab.telling import SSE

pytestmark = pytest.mark.e2e

QUESTION = [{"role": "user", "content": "one two three"}]
WEATHER: ChatCompletionToolParam = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}
ARGUMENTS = '{"city":"Jyväskylä"}'


@pytest.fixture
async def client(tenant: Tenant) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=tenant.gateway.base_url, api_key=tenant.key.secret, max_retries=0) as made:
        yield made


def chat(client: AsyncOpenAI, model: str, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=QUESTION, **more)  # type: ignore[call-overload]


# --- answers


async def test_chat(client: AsyncOpenAI, tenant: Tenant) -> None:
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
    said = {index: "" for index in (0, 1)}
    for chunk in chunks[:-1]:
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert said == {0: "w0 w1 w2", 1: "w0 w1 w2"}
    assert figures(await tenant.record()) == ("completed", 200, 3, 6, "upstream")


async def test_the_blocking_client(tenant: Tenant) -> None:
    def use() -> tuple[str | None, str]:
        with OpenAI(base_url=tenant.gateway.base_url, api_key=tenant.key.secret, max_retries=0) as client:
            whole = client.chat.completions.create(
                model="ok-3", messages=[{"role": "user", "content": "a"}])
            pieces = client.chat.completions.create(
                model="ok-3", messages=[{"role": "user", "content": "a"}], stream=True)
            return whole.choices[0].message.content, "".join(
                piece.choices[0].delta.content or "" for piece in pieces)

    assert await asyncio.to_thread(use) == ("w0 w1 w2", "w0 w1 w2")
    assert [record["outcome"] for record in await tenant.records(2)] == ["completed"] * 2


async def test_a_tool_call(client: AsyncOpenAI, tenant: Tenant) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    tenant.upstream.script("scripted-0", body(compact({
        "id": "x", "object": "chat.completion", "created": CREATED, "model": "scripted-0",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52},
    }).encode(), content_type="application/json"))
    answer = await chat(client, "scripted-0", tools=[WEATHER], tool_choice="auto")
    (asked,) = answer.choices[0].message.tool_calls
    assert (asked.function.name, asked.function.arguments) == ("weather", ARGUMENTS)
    assert tenant.calls[0].fields["tools"] == [WEATHER]
    assert figures(await tenant.record()) == ("completed", 200, 40, 12, "upstream")


async def test_a_streamed_tool_call(client: AsyncOpenAI, tenant: Tenant) -> None:
    def delta(**fields: Any) -> bytes:
        function = {"index": 0, "function": {"arguments": fields.pop("arguments")}, **fields}
        return _chunk({"tool_calls": [function]})

    half = len(ARGUMENTS) // 2
    tenant.upstream.script("scripted-1", body(b"".join([
        delta(id="call_1", type="function", arguments=ARGUMENTS[:half]), delta(arguments=ARGUMENTS[half:]),
        _chunk({}, "tool_calls"), b"data: [DONE]\n\n",
    ])))
    async with client.chat.completions.stream(
        model="scripted-1", messages=[{"role": "user", "content": "weather?"}], tools=[WEATHER]
    ) as stream:
        final = await stream.get_final_completion()
    (asked,) = final.choices[0].message.tool_calls or ()
    assert asked.function.arguments == ARGUMENTS
    assert final.choices[0].finish_reason == "tool_calls"
    record = await tenant.record()
    assert (record["outcome"], record["usage_source"]) == ("completed", "counted")


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return Said({"id": "x", "object": "chat.completion.chunk", "created": CREATED, "model": "m",
                 "choices": choices}).encoded()


async def test_raw_and_streaming_responses(client: AsyncOpenAI, tenant: Tenant) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="ok-3", messages=[{"role": "user", "content": "a"}], extra_headers={"x-request-id": "mine-1"})
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
    await x.json({"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": said}],
                  "usage": {"prompt_tokens": 7, "total_tokens": 7}})


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
    assert [figures(record) for record in await tenant.records(2)] == [("completed", 200, 2, 3, "upstream")] * 2


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
    assert [figures(record) for record in await tenant.records(2)] == [("completed", 200, 2, 3, "upstream")] * 2


# --- errors


@pytest.mark.parametrize(("model", "kind", "status", "code"), [
    ("status-400", openai.BadRequestError, 400, "lab_400"),
    ("status-401", openai.InternalServerError, 502, "upstream_auth"),
    ("status-403", openai.InternalServerError, 502, "upstream_auth"),
    ("status-404", openai.NotFoundError, 404, "lab_404"),
    ("status-409", openai.ConflictError, 409, "lab_409"),
    ("status-413", openai.APIStatusError, 413, "lab_413"),
    ("status-422", openai.UnprocessableEntityError, 422, "lab_422"),
    ("status-429", openai.RateLimitError, 429, "lab_429"),
    ("status-500", openai.InternalServerError, 502, "upstream_error"),
    ("status-503", openai.InternalServerError, 503, "overloaded"),
    ("status-504", openai.InternalServerError, 504, "upstream_timeout"),
    ("status-529", openai.InternalServerError, 503, "overloaded"),
    ("rst-before-headers", openai.InternalServerError, 502, "upstream_error"),
    ("unreachable", openai.InternalServerError, 502, "upstream_error"),
    ("html-200", openai.InternalServerError, 502, "upstream_error"),
    ("nobody", openai.NotFoundError, 404, "model_not_found"),
])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_errors_have_their_class(client: AsyncOpenAI, tenant: Tenant, model: str, *,
                                       kind: type[openai.APIStatusError], status: int, code: str,
                                       stream: bool) -> None:
    with pytest.raises(kind) as caught:
        await chat(client, model, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id
    assert set(json.loads(caught.value.response.text)["error"]) == {"message", "type", "param", "code"}


async def test_a_silent_model_is_a_timeout(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await chat(client, "silent")
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


async def test_a_wrong_key_is_an_authentication_error(tenant: Tenant) -> None:
    wrong = tenant.key.secret[:-1] + ("0" if tenant.key.secret[-1] != "0" else "1")
    async with AsyncOpenAI(base_url=tenant.gateway.base_url, api_key=wrong, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await chat(client, "ok-1")
    assert caught.value.code == "invalid_api_key"
    assert wrong not in caught.value.message


async def test_a_model_that_is_not_allowed(tenant: Tenant) -> None:
    narrow = await tenant.gateway.create_key(tenant.user, models=["ok-1"])
    async with AsyncOpenAI(base_url=tenant.gateway.base_url, api_key=narrow.secret, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await chat(client, "ok-5")
        assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")
        assert [model.id async for model in client.models.list()] == ["ok-1"]


async def test_a_wrong_field_is_named(client: AsyncOpenAI, tenant: Tenant) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await chat(client, "ok-1", n="three")
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "invalid_value", "n", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="64"):
        await chat(client, "bounded", max_tokens=65)
    with pytest.raises(openai.BadRequestError, match="choices"):
        await chat(client, "bounded", n=5)
    assert tenant.calls == []


async def test_an_error_in_the_middle_of_a_stream(client: AsyncOpenAI, tenant: Tenant) -> None:
    for model, message in (("error-event-after-3", "The lab's engine died."), ("die-after-7", "closed")):
        said = []
        with pytest.raises(openai.APIError, match=message):
            async for chunk in await chat(client, model, stream=True):
                said.append(chunk.choices[0].delta.content)
        assert said == [f" w{i}" if i else "w0" for i in range(3 if model.startswith("error") else 7)]
    first, second = await tenant.records(2)
    assert (first["outcome"], second["outcome"]) == ("upstream_error", "upstream_error")


# --- retries and deadlines


def with_retries(tenant: Tenant, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=tenant.gateway.base_url, api_key=tenant.key.secret, **options)


async def test_a_retry_after_is_obeyed(tenant: Tenant) -> None:
    async with with_retries(tenant, max_retries=1) as client:
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError) as caught:
            await chat(client, "status-429-retry-after-1")
        assert 1 <= time.monotonic() - began < 5
    assert caught.value.response.headers["retry-after"] == "1"
    assert len(tenant.calls) == 2
    assert [record["client"]["retry"] for record in await tenant.records(2)] == [0, 1]


async def test_an_endless_retry_after_is_clamped(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await chat(client, "status-429-retry-after-1000000000")
    assert caught.value.response.headers["retry-after"] == "60"


async def test_the_sdk_tries_again_until_it_works(tenant: Tenant) -> None:
    async with with_retries(tenant, max_retries=2) as client:
        answer = await chat(client, "flaky-2x503~python")
    assert answer.choices[0].message.content
    assert len(tenant.calls) == 3
    assert [record["status"] for record in await tenant.records(3)] == [503, 503, 200]


async def test_a_refusal_is_not_tried_again(tenant: Tenant) -> None:
    async with with_retries(tenant, max_retries=2) as client:
        with pytest.raises(openai.BadRequestError):
            await chat(client, "status-400")
    assert len(tenant.calls) == 1


async def test_the_callers_own_deadline(tenant: Tenant) -> None:
    async with with_retries(tenant, max_retries=0, timeout=0.4) as client:
        with pytest.raises(openai.APITimeoutError):
            await chat(client, "hold-before-headers~plain")
    assert (await tenant.record())["outcome"] == "client_gone"


async def test_vendor_fields_reach_both_ends(client: AsyncOpenAI, tenant: Tenant) -> None:
    async def think(x: Exchange) -> None:
        await x.head(content_type=SSE)
        await x.piece(_chunk({"role": "assistant", "reasoning": "hmm", "content": None}))
        await x.piece(_chunk({"content": "so"}, "stop"))
        await x.done()
        await x.end()

    tenant.upstream.script("scripted-3", think)
    stream = await chat(client, "scripted-3", stream=True, extra_body={"top_k": 3, "guided_json": {"a": [1.0, 1e3]}})
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.reasoning == "hmm"
    assert tenant.calls[0].fields["guided_json"] == {"a": [1.0, 1e3]}
    assert b"1e3" in tenant.calls[0].body or b"1000.0" in tenant.calls[0].body
