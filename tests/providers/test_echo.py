import base64
import json
import math
import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from llmgateway.domain.ports import UpstreamRequest
from llmgateway.providers.echo import MOST_WORDS, Echo, count, unit_vector
from tests.lab.client import data_of

AT = datetime(2026, 11, 1, tzinfo=UTC)
USER = {"role": "user", "content": "one two three"}


def ask(path: str, asked: Any) -> tuple[int, dict[bytes, bytes], list[bytes]]:
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return asked_of(path, body)[:3]


def asked_of(path: str, body: bytes) -> tuple[int, dict[bytes, bytes], list[bytes], float]:
    return Echo(lambda: AT).answer(UpstreamRequest("POST", path, b"application/json", body, "id-1"))


def answer(path: str, **asked: Any) -> Any:
    status, _, (body,) = ask(path, {"model": "echo", **asked})
    return {"status": status, **json.loads(body)}


def chat_events(**asked: Any) -> list[Any]:
    status, headers, pieces = ask("/chat/completions", {"messages": [USER], "stream": True, **asked})
    assert status == 200
    assert headers[b"content-type"].startswith(b"text/event-stream")
    return data_of(pieces)


def test_chat_says_the_last_user_message() -> None:
    found = answer("/chat/completions", messages=[{"role": "system", "content": "be kind"}, USER])
    assert found["object"] == "chat.completion"
    assert found["created"] == int(AT.timestamp())
    assert found["choices"][0]["message"]["content"] == "one two three"
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def test_parts_of_a_message_are_joined() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "b"},
    ]
    found = answer("/chat/completions", messages=[{"role": "user", "content": parts}])
    assert found["choices"][0]["message"]["content"] == "a\nb"


def test_nobody_said_anything() -> None:
    found = answer("/chat/completions", messages=[{"role": "system", "content": "be kind"}])
    assert found["choices"][0]["message"]["content"]


def test_max_tokens_cuts() -> None:
    found = answer("/chat/completions", messages=[USER], max_tokens=2)
    assert found["choices"][0] | {"message": None} == {
        "index": 0,
        "message": None,
        "logprobs": None,
        "finish_reason": "length",
    }
    assert found["choices"][0]["message"]["content"] == "one two "
    assert found["usage"]["completion_tokens"] == 2


def test_a_long_question_is_not_answered_in_full() -> None:
    found = answer("/chat/completions", messages=[{"role": "user", "content": "x " * (MOST_WORDS + 5)}])
    assert found["usage"]["completion_tokens"] == MOST_WORDS
    assert found["choices"][0]["finish_reason"] == "length"


def test_a_stream_has_a_role_words_an_end_and_done() -> None:
    *chunks, done = chat_events()
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "one "},
        {"content": "two "},
        {"content": "three"},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in chunk for chunk in chunks)


def test_a_stream_tells_its_usage_where_it_was_asked() -> None:
    *chunks, usage, done = chat_events(stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert all(chunk["usage"] is None for chunk in chunks)


def test_every_choice_streams_and_is_paid_for() -> None:
    *chunks, usage, _ = chat_events(n=2, stream_options={"include_usage": True})
    ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert ends == [0, 1]
    assert usage["usage"]["completion_tokens"] == 6


def test_completions_whole_and_streamed() -> None:
    found = answer("/completions", prompt="one two")
    assert found["object"] == "text_completion"
    assert found["choices"][0]["text"] == "one two"
    _, _, pieces = ask("/completions", {"prompt": "one two", "stream": True})
    *chunks, done = data_of(pieces)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "one two"
    assert done == "[DONE]"


def test_embeddings_are_unit_vectors_of_their_text_alone() -> None:
    found = answer("/embeddings", input=["a", "b", "a"], dimensions=8)
    first, second, third = (one["embedding"] for one in found["data"])
    assert first == third != second
    assert math.isclose(sum(x * x for x in first), 1, rel_tol=1e-9)
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    packed = answer("/embeddings", input="a", dimensions=8, encoding_format="base64")["data"][0]["embedding"]
    assert struct.unpack("<8f", base64.b64decode(packed)) == pytest.approx(tuple(unit_vector("a", 8)))


def test_it_counts_its_own_tokens() -> None:
    assert (
        answer("/extras/tokenize/count", input="one  two\nthree ")["count"] == count("one  two\nthree ") == 3
    )


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/chat/completions", b"{", 400),
        ("/chat/completions", b"[]", 400),
        ("/chat/completions", {}, 400),
        ("/chat/completions", {"messages": []}, 400),
        ("/chat/completions", {"messages": [USER], "n": 1000}, 400),
        ("/completions", {"prompt": ["a", "b"]}, 400),
        ("/embeddings", {"input": []}, 400),
        ("/embeddings", {"input": "a", "dimensions": 0}, 400),
        ("/responses", {"input": "a"}, 404),
        ("/tokenize", {"prompt": "a"}, 404),
    ],
)
def test_refusals_have_the_shape_of_errors(path: str, asked: Any, status: int) -> None:
    found, headers, (body,) = ask(path, asked)
    assert found == status
    assert headers[b"content-type"] == b"application/json"
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "message", [None, 1, "x", {"role": "user"}, {"role": "user", "content": [1, {"text": 2}]}]
)
def test_odd_messages_are_no_reason_to_fail(message: Any) -> None:
    assert ask("/chat/completions", {"messages": [message]})[0] == 200


def paced(**asked: Any) -> tuple[list[bytes], float]:
    body = json.dumps({"messages": [USER], "stream": True, **asked}).encode()
    return asked_of("/chat/completions", body)[2:]


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
def test_pauses_stand_before_words(options: dict[str, Any]) -> None:
    at_once, none = paced(**options)
    pieces, pause = paced(pause=0.5, **options)
    assert (none, pause) == (0, 0.5)
    assert b"".join(pieces) == b"".join(at_once)
    assert len(pieces) == 4  # who speaks, and three words
    assert pieces[-1].endswith(b"data: [DONE]\n\n")


def test_all_pauses_together_have_a_bound() -> None:
    assert paced(pause=200)[1] == 75


@pytest.mark.parametrize("pause", [-1, True, "1", 301])
def test_a_pause_is_a_number_of_seconds(pause: Any) -> None:
    body = json.dumps({"messages": [USER], "stream": True, "pause": pause}).encode()
    status, _, (said,), _ = asked_of("/chat/completions", body)
    assert status == 400
    assert json.loads(said)["error"]["param"] == "pause"
