"""Real model servers behind the gateway: one that says its usage in streams, and one that does not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import Answer, chat, data_of, fetch, post, split_events
from tests.lab.gateway import Gateway, IssuedKey, Json, serving
from tests.lab.model_servers import ALIAS, LlamaCppPython, LlamaServer
from tests.lab.prefixes import PrefixProxy

pytestmark = [pytest.mark.e2e, pytest.mark.service]

SHORT = {"max_tokens": 24, "temperature": 0, "seed": 1}
CPP, INTERRUPTED, DIRECT = "tiny-cpp", "tiny-interrupted", "org/tiny-direct"


@pytest.fixture(scope="module")
def llama_server() -> Iterator[LlamaServer]:
    with LlamaServer() as server:
        yield server


@pytest.fixture(scope="module")
def llama_cpp_python() -> Iterator[LlamaCppPython]:
    with LlamaCppPython() as server:
        yield server


@pytest.fixture(scope="module")
async def gateway(llama_server: LlamaServer, anyio_backend: str) -> AsyncIterator[Gateway]:
    """llama-server twice: under LLM_DEFAULT_URL, and by its own address in the file."""
    config = f"models:\n  - id: {DIRECT}\n    targets: [{{url: '{llama_server.base_url}', model: {ALIAS}}}]\n"
    async with PrefixProxy({ALIAS: llama_server.port}) as proxy:
        async with Gateway.embedded(serving(proxy.url, ALIAS), config=config) as running:
            yield running


@pytest.fixture(scope="module")
async def counting(llama_cpp_python: LlamaCppPython, anyio_backend: str) -> AsyncIterator[Gateway]:
    async with PrefixProxy({CPP: llama_cpp_python.port}) as proxy:
        async with Gateway.embedded(serving(proxy.url, CPP)) as running:
            yield running


async def ask(gateway: Gateway, key: IssuedKey, model: str, words: str = "hello world", **more: Any) -> Answer:
    answer = await gateway.ask(post(CHAT, chat(model, words, **{**SHORT, **more}), key.secret))
    assert answer.status == 200, answer.body
    return answer


def text_of(answer: Answer) -> str:
    chunks = [chunk for chunk in data_of(answer.events) if chunk != "[DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


async def last_record(gateway: Gateway, key: IssuedKey, count: int = 1) -> Json:
    found = await gateway.ledger(count, user=key.document["user"])
    assert len(found) == count
    return found[-1]


@pytest.mark.parametrize("model", [ALIAS, DIRECT])
async def test_the_ledger_has_the_servers_own_usage(gateway: Gateway, fresh_name: str, model: str) -> None:
    key = await gateway.create_key(fresh_name)
    whole = (await ask(gateway, key, model)).json["usage"]
    streamed = await ask(gateway, key, model, stream=True)
    asked = await ask(gateway, key, model, stream=True, stream_options={"include_usage": True})
    *_, usage, done = data_of(asked.events)
    assert done == data_of(streamed.events)[-1] == "[DONE]"
    assert usage["choices"] == []
    assert not any(chunk.get("usage") for chunk in data_of(streamed.events)[:-1])
    assert text_of(streamed) == text_of(asked)
    records = await gateway.ledger(3, user=fresh_name)
    for record, said in zip(records, (whole, usage["usage"], usage["usage"]), strict=True):
        tokens = record["tokens"]
        assert (tokens["prompt"], tokens["completion"]) == (said["prompt_tokens"], said["completion_tokens"])
        assert (record["outcome"], record["usage_source"]) == ("completed", "upstream")


async def test_a_hang_up_frees_the_server_and_is_counted(
    gateway: Gateway, llama_server: LlamaServer, fresh_name: str
) -> None:
    key = await gateway.create_key(fresh_name)
    question = chat(ALIAS, "hello", max_tokens=400, stream=True, temperature=0)
    async with await gateway.connect() as connection:
        await connection.send(post(CHAT, question, key.secret))
        assert (await connection.head()).status == 200
        seen = await connection.events(10)
    record = await last_record(gateway, key)
    assert (record["outcome"], record["usage_source"]) == ("client_gone", "estimated")
    assert record["tokens"]["completion"] > 0
    assert seen
    again = await ask(gateway, key, ALIAS, max_tokens=4)
    assert again.json["usage"]["completion_tokens"] == 4


async def test_what_the_server_does_not_say_is_counted(
    counting: Gateway, llama_cpp_python: LlamaCppPython, fresh_name: str
) -> None:
    key = await counting.create_key(fresh_name)
    answer = await ask(counting, key, CPP, stream=True)
    assert data_of(answer.events)[-1] == "[DONE]"
    text = text_of(answer)
    assert text
    question = post("/extras/tokenize", {"input": text})
    tokens = (await fetch(llama_cpp_python.url, question)).json["tokens"]
    record = await last_record(counting, key)
    assert (record["outcome"], record["usage_source"]) == ("completed", "counted")
    assert record["tokens"]["completion"] == len(tokens)
    assert record["tokens"]["prompt"] > 0


async def test_its_whole_answers_have_usage(counting: Gateway, fresh_name: str) -> None:
    key = await counting.create_key(fresh_name)
    usage = (await ask(counting, key, CPP)).json["usage"]
    record = await last_record(counting, key)
    assert record["usage_source"] == "upstream"
    assert record["tokens"]["completion"] == usage["completion_tokens"]
    counted = await counting.ask(post("/extras/tokenize/count", {"model": CPP, "input": "hello world"}, key.secret))
    assert counted.json["source"] == "counted"
    assert counted.json["count"] > 1


async def test_a_stream_that_the_server_cuts(anyio_backend: str, fresh_name: str) -> None:
    """By default this server drops what it is doing when the next request comes."""
    with LlamaCppPython(queueing=False) as server:
        async with PrefixProxy({INTERRUPTED: server.port}) as proxy:
            async with Gateway.embedded(serving(proxy.url, INTERRUPTED)) as gateway:
                await cut_by_another(gateway, await gateway.create_key(fresh_name))


async def cut_by_another(gateway: Gateway, key: IssuedKey) -> None:
    question = post(CHAT, chat(INTERRUPTED, "hello", max_tokens=480, temperature=0, stream=True), key.secret)
    async with await gateway.connect() as connection:
        await connection.send(question)
        assert (await connection.head()).status == 200
        first = await connection.events(3)
        other = asyncio.ensure_future(ask(gateway, key, INTERRUPTED))
        rest = await connection.body()
        await other
    *chunks, error = data_of([*first, *split_events(rest)])
    assert error["error"]["code"] == "upstream_error"
    assert chunks
    records = await gateway.ledger(2, user=key.document["user"])
    assert sorted(record["outcome"] for record in records) == ["completed", "upstream_error"]
    (cut,) = [record for record in records if record["outcome"] == "upstream_error"]
    assert cut["usage_source"] in ("counted", "estimated")
    assert cut["tokens"]["completion"] > 0
