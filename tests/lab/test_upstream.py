"""The scripted upstream answers as its table says, and its own ledger tells what happened."""

import asyncio
import hashlib
from typing import Any

import pytest

from tests.lab.behaviours import TABLE, behaviour_of, no_such_model
from tests.lab.client import Connection, Request, chat, data_of, fetch, post, streaming
from tests.lab.exchange import Exchange
from tests.lab.questions import USAGE, ask, asking, stream_of, texts
from tests.lab.threads import in_thread
from tests.lab.upstream import ScriptedUpstream

# --- answers


async def test_a_stream_has_the_chunks_that_its_name_says(upstream: ScriptedUpstream) -> None:
    events = await stream_of(upstream, "ok-5")
    assert texts(events) == ["w0", " w1", " w2", " w3", " w4"]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1] == "[DONE]"
    assert all("usage" not in event for event in events[:-1])
    call = upstream.calls[0]
    assert (call.model, call.endpoint, call.request_id) == ("ok-5", "chat/completions", "lab-1")
    assert (call.prompt_tokens, call.completion_tokens, call.chunks, call.ending) == (3, 5, 6, "finished")


async def test_usage_comes_when_it_is_asked_for(upstream: ScriptedUpstream) -> None:
    *chunks, usage, done = await stream_of(upstream, "ok-5", **USAGE)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_a_whole_answer_counts_alike(upstream: ScriptedUpstream) -> None:
    answer = await ask(upstream, "ok-5", n=2)
    assert [choice["message"]["content"] for choice in answer.json["choices"]] == ["w0 w1 w2 w3 w4"] * 2
    assert answer.json["usage"]["completion_tokens"] == 10 == upstream.calls[0].completion_tokens


async def test_max_tokens_holds(upstream: ScriptedUpstream) -> None:
    events = await stream_of(upstream, "ok-100", max_tokens=2)
    assert texts(events) == ["w0", " w1"]
    assert events[-2]["choices"][0]["finish_reason"] == "length"


async def test_the_ledger_has_the_very_bytes(upstream: ScriptedUpstream) -> None:
    answer = await ask(upstream, "ok-100x1ms", stream=True)
    call = upstream.calls[0]
    assert bytes(call.sent) == answer.body
    assert call.digest.digest() == hashlib.sha256(answer.body).digest()
    assert call.size == len(answer.body)


@pytest.mark.parametrize(
    ("endpoint", "body", "member"),
    [
        ("completions", {"prompt": "a b"}, "choices"),
        ("embeddings", {"input": ["a b", "c"]}, "data"),
        ("responses", {"input": "a b c"}, "output"),
        ("moderations", {"input": "a"}, "results"),
        ("rerank", {"query": "a", "documents": ["b"]}, "results"),
        ("images/generations", {"prompt": "a"}, "data"),
    ],
)
async def test_other_endpoints(upstream: ScriptedUpstream, endpoint: str, body: Any, member: str) -> None:
    answer = await fetch(upstream.url, post(f"/ok-5/v1/{endpoint}", {"model": "ok-5", **body}))
    assert answer.status == 200
    assert answer.json[member]
    assert upstream.calls[0].endpoint == endpoint
    assert answer.json["usage"]["total_tokens"] >= 1


@pytest.mark.parametrize("endpoint", ["completions", "responses"])
async def test_other_endpoints_stream(upstream: ScriptedUpstream, endpoint: str) -> None:
    asked = {"model": "ok-3", "prompt": "a", "input": "a", "stream": True}
    answer = await fetch(upstream.url, post(f"/ok-3/v1/{endpoint}", asked))
    assert upstream.calls[0].completion_tokens == 3
    assert (data_of(answer.events)[-1] == "[DONE]") == (endpoint == "completions")


async def test_a_form_is_kept_as_it_came(upstream: ScriptedUpstream) -> None:
    form = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nok-2\r\n--x--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    request = Request("POST", "/ok-2/v1/audio/transcriptions", body=form, headers=headers)
    assert (await fetch(upstream.url, request)).json["text"] == "w0 w1"
    assert upstream.calls[0].body == form


async def test_the_model_in_the_path_is_decoded(upstream: ScriptedUpstream) -> None:
    upstream.script("org/ok", behaviour_of("ok-1"))
    answer = await fetch(upstream.url, post("/org%2Fok/v1/chat/completions", chat("x")))
    assert answer.status == 200
    assert (upstream.calls[0].model, upstream.calls[0].target) == ("org/ok", "/org%2Fok/v1/chat/completions")


async def test_models_are_listed_and_unknown_ones_are_404(upstream: ScriptedUpstream) -> None:
    listed = await fetch(upstream.url, Request("GET", "/ok-5/v1/models"))
    assert listed.json["data"][0]["id"] == "ok-5"
    assert (await ask(upstream, "nobody")).status == 404


async def test_a_connection_is_used_again(upstream: ScriptedUpstream) -> None:
    async with await Connection.open(upstream.url) as connection:
        for _ in range(3):
            assert (await connection.ask(asking("ok-2", stream=True))).status == 200
        assert (upstream.accepted_connections, upstream.open_connections) == (1, 1)
    await upstream.closed(1)


async def test_a_chunked_request_is_read(upstream: ScriptedUpstream) -> None:
    raw = (
        b"POST /ok-1/v1/completions HTTP/1.1\r\nhost: lab\r\ntransfer-encoding: chunked\r\n\r\n"
        b'9\r\n{"prompt"\r\n7\r\n:"a b"}\r\n0\r\n\r\n'
    )
    async with await Connection.open(upstream.url) as connection:
        await connection.send(raw)
        assert (await connection.head()).status == 200
    assert upstream.calls[0].prompt_tokens == 2


# --- tokenisers


async def test_tokenizers_count_words(upstream: ScriptedUpstream) -> None:
    counted = await fetch(upstream.url, post("/ok-5/extras/tokenize/count", {"input": "a b c"}))
    assert counted.json == {"count": 3}
    refused = await fetch(upstream.url, post("/ok-5/extras/tokenize/count", {"messages": []}))
    assert refused.status == 500
    vllm = await fetch(upstream.url, post("/ok-5/tokenize", chat("ok-5", "a b")))
    assert vllm.json["count"] == 2
    assert (len(upstream.calls), len(upstream.counts)) == (0, 3)


async def test_a_tokenizer_can_be_absent_or_wrong(upstream: ScriptedUpstream) -> None:
    request = post("/ok-5/extras/tokenize/count", {"input": "a"})
    for name, status in (("absent", 404), ("vllm", 404), ("broken", 500), ("wrong-type", 200), ("html", 200)):
        upstream.tokenizer("ok-5", name)
        assert (await fetch(upstream.url, request)).status == status


# --- ends and usage


async def test_no_done_and_no_usage(upstream: ScriptedUpstream) -> None:
    assert (await stream_of(upstream, "no-done"))[-1] != "[DONE]"
    assert not any("usage" in chunk for chunk in (await stream_of(upstream, "no-usage", **USAGE))[:-1])
    assert "usage" not in (await ask(upstream, "no-usage")).json


async def test_where_usage_rides(upstream: ScriptedUpstream) -> None:
    assert all(chunk["usage"] is None for chunk in (await stream_of(upstream, "usage-null-chunks"))[:-1])
    continuous = (await stream_of(upstream, "continuous-usage"))[:-1]
    assert [chunk["usage"]["completion_tokens"] for chunk in continuous] == [1, 2, 3, 4, 5, 5]
    *_, last, _ = await stream_of(upstream, "usage-with-choices", **USAGE)
    assert last["choices"]
    assert last["usage"]["completion_tokens"] == 5


BAD = [("negative", -5), ("huge", 10**18), ("string", "5"), ("null", None)]


@pytest.mark.parametrize(("kind", "value"), BAD)
async def test_bad_usage(upstream: ScriptedUpstream, kind: str, value: object) -> None:
    *_, chunk, _ = await stream_of(upstream, f"usage-bad-{kind}", **USAGE)
    assert chunk["usage"]["completion_tokens"] == value
    assert upstream.calls[0].completion_tokens == 5, "the truth is not what was reported"


async def test_nan_is_written_as_python_would(upstream: ScriptedUpstream) -> None:
    assert b'"completion_tokens":NaN' in (await ask(upstream, "usage-bad-nan", stream=True, **USAGE)).body


async def test_a_model_can_be_scripted(upstream: ScriptedUpstream) -> None:
    async def teapot(x: Exchange) -> None:
        await x.json({"model": x.call.model}, 418)

    upstream.script("teapot", teapot)
    assert (await ask(upstream, "teapot")).status == 418


# --- the lab itself


def test_every_name_of_the_table_is_its_own() -> None:
    examples = {
        r"(\d+)": "3",
        r"(\d{3})": "503",
        r"([^~]+)": "soon",
        r"(B|KiB|MiB|GiB)": "KiB",
        r"(negative|nan|infinite|huge|string|fraction|zero|null|bool|double|list)": "nan",
    }
    for pattern in TABLE:
        name = pattern
        for part, example in examples.items():
            name = name.replace(part, example)
        assert behaviour_of(f"{name}~mark") is not no_such_model, name


def test_it_serves_from_a_thread() -> None:
    with in_thread(ScriptedUpstream()) as upstream:

        async def talk() -> None:
            async with streaming(upstream.url, asking("hold-after-1", stream=True)) as connection:
                await upstream.held(1)
                upstream.release("hold-after-1")
                assert (await connection.head()).status == 200
                assert (await connection.body()).endswith(b"data: [DONE]\n\n")
            await upstream.ended(1)

        asyncio.run(talk())
        assert upstream.calls[0].ending == "finished"
