"""Both real model servers load the tiny model and answer, each in its own way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.client import Request, chat, data_of, fetch, post
from tests.lab.model_servers import ALIAS, LlamaCppPython, LlamaServer, ModelServer
from tests.lab.tiny_model import write_tiny_model

pytestmark = pytest.mark.service

SHORT = {"max_tokens": 8, "temperature": 0, "seed": 1}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def llama_server() -> Iterator[LlamaServer]:
    with LlamaServer() as server:
        yield server


@pytest.fixture(scope="module")
def llama_cpp_python() -> Iterator[LlamaCppPython]:
    with LlamaCppPython() as server:
        yield server


@pytest.fixture(params=["llama_server", "llama_cpp_python"])
def server(request: pytest.FixtureRequest) -> ModelServer:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, ModelServer)
    return found


def test_the_model_is_always_the_same(tmp_path: Path) -> None:
    first, second = (write_tiny_model(tmp_path / name).read_bytes() for name in ("a.gguf", "b.gguf"))
    assert first == second
    assert len(first) < 1_000_000


async def test_it_chats(server: ModelServer) -> None:
    answer = await fetch(server.url, post("/v1/chat/completions", chat(ALIAS, "hello world", **SHORT)))
    assert answer.status == 200, answer.body
    assert answer.json["choices"][0]["message"]["role"] == "assistant"
    assert answer.json["usage"]["completion_tokens"] > 0


async def test_it_streams(server: ModelServer) -> None:
    asked = chat(ALIAS, "hello world", **SHORT, **WITH_USAGE)
    answer = await fetch(server.url, post("/v1/chat/completions", asked))
    assert answer.status == 200, answer.body
    *chunks, last = data_of(answer.events)
    assert last == "[DONE]"
    assert any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])


async def test_llama_server_reports_usage_and_counts_with_tokenize(llama_server: LlamaServer) -> None:
    asked = chat(ALIAS, "hello world", **SHORT, **WITH_USAGE)
    answer = await fetch(llama_server.url, post("/v1/chat/completions", asked))
    *_, usage_chunk, _ = data_of(answer.events)
    assert usage_chunk["choices"] == []
    assert usage_chunk["usage"]["prompt_tokens"] > 0
    counted = await fetch(llama_server.url, post("/tokenize", {"content": "hello world"}))
    assert len(counted.json["tokens"]) > 0
    assert (await fetch(llama_server.url, post("/extras/tokenize/count", {"input": "x"}))).status == 404


async def test_llama_cpp_python_counts_with_extras(llama_cpp_python: LlamaCppPython) -> None:
    counted = await fetch(llama_cpp_python.url, post("/extras/tokenize/count", {"input": "hello world"}))
    assert counted.json["count"] > 1
    asked = chat(ALIAS, "hello world", **SHORT, **WITH_USAGE)
    answer = await fetch(llama_cpp_python.url, post("/v1/chat/completions", asked))
    assert all("usage" not in chunk for chunk in data_of(answer.events)[:-1])


async def test_it_can_be_killed_and_started_again() -> None:
    with LlamaServer() as server:
        server.program.kill()
        with pytest.raises(OSError, match="Connect"):
            await fetch(server.url, Request("GET", "/v1/models"))
        server.start()
        assert (await fetch(server.url, Request("GET", "/v1/models"))).status == 200
