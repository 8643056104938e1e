"""What answers say of usage and errors: believed only where it can be true."""

import json
from typing import Any

import pytest

from llmgateway.domain.call import Tokens
from llmgateway.providers.openai_usage import OpenAIAnswer, error_of, tokens_of


def answer(usage: object, **more: Any) -> OpenAIAnswer:
    return OpenAIAnswer(json.dumps({"choices": [], "usage": usage, **more}).encode())


def test_r_acc_14_chat_s_names_and_those_of_the_responses_api() -> None:
    chat = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert answer(chat).tokens == tokens_of(chat) == Tokens(9, 4, 8, 3)
    other = {
        "input_tokens": 9,
        "output_tokens": 4,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    assert answer(other).tokens == Tokens(9, 4, 1, 2)
    assert answer({"prompt_tokens": 5, "total_tokens": 5}).tokens == Tokens(5)  # embeddings


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "x",
        {},
        {"prompt_tokens": -1},
        {"prompt_tokens": 0},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"input_tokens": 0, "output_tokens": 0},
        {"prompt_tokens": 10**18},
        {"prompt_tokens": "5"},
        {"prompt_tokens": True},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": 1, "completion_tokens": None},
        {"completion_tokens": 3},
    ],
)
def test_r_fault_15_figures_that_cannot_be_true(usage: object) -> None:
    assert answer(usage).tokens is None


def test_details_are_parts_of_the_whole() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 50},
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    assert answer(usage).tokens == Tokens(5, 2, 5, 2)
    assert answer({**usage, "prompt_tokens_details": {"cached_tokens": -1}}).tokens == Tokens(5, 2, 0, 2)


@pytest.mark.parametrize("body", [b"", b"[1]", b"not json", b'{"usage":', b"\xff", b"[" * 100_000])
def test_bodies_that_are_no_objects(body: bytes) -> None:
    assert (OpenAIAnswer(body).tokens, OpenAIAnswer(body).text()) == (None, "")


def test_the_words_of_an_answer() -> None:
    message = {
        "role": "assistant",
        "content": "Hi",
        "reasoning": "hm ",
        "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}],
    }
    said = OpenAIAnswer(json.dumps({"choices": [{"message": message}, {"text": " more"}]}).encode())
    assert said.text() == 'hm Hif{"a":1} more'
    assert said.said == len(said.text())
    output = {"output": [{"content": [{"type": "output_text", "text": "Hi"}]}]}
    assert OpenAIAnswer(json.dumps(output).encode()).text() == "Hi"


def test_the_beginning_of_an_answer_has_words() -> None:
    whole = json.dumps({"choices": [
        {"message": {"role": "assistant", "reasoning": "Hm. ", "content": 'He said "hi" \\ \u6f22'},
         "logprobs": {"content": [{"token": "He", "logprob": -0.1, "bytes": [72]}]}},
        {"message": {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}},
    ]}).encode()  # fmt: skip
    told = 'Hm. He said "hi" \\ \u6f22{"a":1}'
    found = [OpenAIAnswer(whole[:end]).text() for end in range(len(whole))]
    assert found[-1] == told
    assert all(told.startswith(text) for text in found)
    assert [len(text) for text in found] == sorted(len(text) for text in found)


@pytest.mark.parametrize(
    "odd", [{"choices": 5}, {"choices": [5, {"message": {"tool_calls": 5}}]}, {"output": [{"content": 5}]}]
)
def test_answers_of_an_odd_shape_have_no_words(odd: object) -> None:
    assert OpenAIAnswer(json.dumps(odd).encode()).text() == ""


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"message": "a", "code": 400}}, "a", "400"),
        ({"object": "error", "message": "b", "code": 40001}, "b", "40001"),
        ({"detail": "c"}, "c", None),
        ({"error": "d"}, "d", None),
        ({"error": {"code": True}}, None, None),
        ([], None, None),
    ],
)
def test_the_shapes_of_errors(body: object, message: str | None, code: str | None) -> None:
    error = error_of(json.dumps(body).encode())
    assert (error.message, error.code) == (message, code)
