"""Real model servers behind the gateway: one that says its usage in streams, and one that does not."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import Answer, Connection, chat, data_of, fetch, post, split_events
from tests.lab.gateway import Gateway, IssuedKey, Json, serving
from tests.lab.model_servers import ALIAS, LlamaCppPython, LlamaServer
from tests.lab.prefixes import PrefixProxy
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.service]

MOST_ASKED = 5
FIRST = 5  # events at most until there are words
SHORT = {"max_tokens": 24, "temperature": 0, "seed": 1}
CPP, DIRECT = "tiny-cpp", "org/tiny-direct"


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
    async with (
        PrefixProxy({ALIAS: llama_server.port}) as proxy,
        Gateway.embedded(serving(proxy.url, ALIAS), config=config) as running,
    ):
        yield running


@pytest.fixture(scope="module")
async def counting(llama_cpp_python: LlamaCppPython, anyio_backend: str) -> AsyncIterator[Gateway]:
    async with (
        PrefixProxy({CPP: llama_cpp_python.port}) as proxy,
        Gateway.embedded(serving(proxy.url, CPP)) as running,
    ):
        yield running


async def ask(
    gateway: Gateway, key: IssuedKey, model: str, words: str = "hello world", **more: Any
) -> Answer:
    answer = await gateway.ask(post(CHAT, chat(model, words, **{**SHORT, **more}), key.secret))
    assert answer.status == 200, answer.body
    return answer


def text_of(events: Sequence[bytes]) -> str:
    chunks = [chunk for chunk in data_of(events) if chunk != "[DONE]"]
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
    assert text_of(streamed.events) == text_of(asked.events)
    records = await gateway.ledger(3, user=fresh_name)
    for record, said in zip(records, (whole, usage["usage"], usage["usage"]), strict=True):
        tokens = record["tokens"]
        assert (tokens["prompt"], tokens["completion"]) == (said["prompt_tokens"], said["completion_tokens"])
        assert (record["outcome"], record["usage_source"]) == ("completed", "upstream")


async def start_long(gateway: Gateway, key: IssuedKey, model: str) -> Connection:
    """A connection on which a long answer has begun with its first words."""
    question = chat(model, "hello", max_tokens=480, stream=True, temperature=0)
    connection = await gateway.connect()
    await connection.send(post(CHAT, question, key.secret))
    assert (await connection.head()).status == 200
    while not text_of([event := await connection.event()]):
        assert event
    return connection


async def is_hung_up_amid(gateway: Gateway, key: IssuedKey, server: LlamaServer, proxy: PrefixProxy) -> bool:
    """The server is frozen in the middle of its answer, unless it is through before: false."""
    before = proxy.ended.count(CHAT)
    connection = await start_long(gateway, key, ALIAS)
    with server.program.frozen():
        is_amid = proxy.ended.count(CHAT) == before
        connection.reset()
        await eventually(lambda: proxy.ended.count(CHAT) > before, "the server's connection was closed", 2)
    return is_amid


async def test_a_hang_up_is_passed_on(anyio_backend: str, fresh_name: str) -> None:
    with LlamaServer() as server:
        async with (
            PrefixProxy({ALIAS: server.port}) as proxy,
            Gateway.embedded(serving(proxy.url, ALIAS)) as gateway,
        ):
            key = await gateway.create_key(fresh_name)
            asked = 1
            while asked < MOST_ASKED and not await is_hung_up_amid(gateway, key, server, proxy):
                asked += 1
            record = await last_record(gateway, key, asked)
            assert (record["outcome"], record["usage_source"]) == ("client_gone", "counted")
            assert record["tokens"]["completion"] > 0
            assert (await ask(gateway, key, ALIAS, max_tokens=4)).json["usage"]["completion_tokens"] == 4


async def test_a_server_that_is_killed(anyio_backend: str, fresh_name: str) -> None:
    with LlamaServer() as server:
        async with (
            PrefixProxy({ALIAS: server.port}) as proxy,
            Gateway.embedded(serving(proxy.url, ALIAS)) as gateway,
        ):
            key = await gateway.create_key(fresh_name)
            connection = await start_long(gateway, key, ALIAS)
            server.program.freeze()
            server.program.kill()
            *_, error = data_of(split_events(await connection.body()))
            connection.close()
            assert error["error"]["code"] == "upstream_error"
            record = await last_record(gateway, key)
            assert (record["outcome"], record["usage_source"]) == ("upstream_error", "estimated")
            assert record["tokens"]["completion"] > 0
            server.start()
            assert (await ask(gateway, key, ALIAS, max_tokens=4)).json["usage"]["completion_tokens"] == 4


async def test_what_the_server_does_not_say_is_counted(
    counting: Gateway, llama_cpp_python: LlamaCppPython, fresh_name: str
) -> None:
    key = await counting.create_key(fresh_name)
    answer = await ask(counting, key, CPP, stream=True)
    assert data_of(answer.events)[-1] == "[DONE]"
    text = text_of(answer.events)
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
    counted = await counting.ask(
        post("/extras/tokenize/count", {"model": CPP, "input": "hello world"}, key.secret)
    )
    assert counted.json["source"] == "counted"
    assert counted.json["count"] > 1


async def test_a_stream_that_the_server_breaks_off(anyio_backend: str, fresh_name: str) -> None:
    """By default this server drops what it is doing when the next request comes. It says `[DONE]` to the
    first caller, without a finish_reason, and breaks the connection: no last word makes that whole."""
    with LlamaCppPython(queueing=False) as server:
        async with (
            PrefixProxy({CPP: server.port}) as proxy,
            Gateway.embedded(serving(proxy.url, CPP)) as gateway,
        ):
            key = await gateway.create_key(fresh_name)
            connection = await start_long(gateway, key, CPP)
            other = asyncio.ensure_future(ask(gateway, key, CPP))
            *chunks, end = data_of(split_events(await connection.body()))
            connection.close()
            await other
            records = await gateway.ledger(2, user=fresh_name)
    assert end["error"]["code"] == "upstream_error"
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    (cut,) = [record for record in records if record["stream"]]
    assert (cut["outcome"], cut["usage_source"]) == ("upstream_error", "counted")
    assert 0 < cut["tokens"]["completion"] <= len(chunks) + FIRST
