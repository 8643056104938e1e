"""What a well-behaved model server says: OpenAI-shaped bodies in which one word is one token."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

CREATED = 1_767_225_600
STREAMING = frozenset({"chat/completions", "completions", "responses"})
WORD = re.compile(r"\S+")
FORM_STREAM = re.compile(rb'name="stream"\r\n\r\ntrue')


@dataclass(frozen=True, slots=True)
class Question:
    """The part of a request that the answer depends on."""

    number: int
    model: str
    endpoint: str
    fields: Json
    form: bytes = b""

    @property
    def stream(self) -> bool:
        return self.fields.get("stream") is True or FORM_STREAM.search(self.form) is not None

    @property
    def wants_usage(self) -> bool:
        options = self.fields.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @property
    def wants_continuous_usage(self) -> bool:
        options = self.fields.get("stream_options")
        return isinstance(options, dict) and options.get("continuous_usage_stats") is True

    @property
    def choices(self) -> int:
        n = self.fields.get("n")
        return n if isinstance(n, int) and n > 0 else 1

    def capped(self, words: int) -> tuple[int, str]:
        """How many words are said and why no more are: the caller's maximum holds."""
        for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
            most = self.fields.get(name)
            if isinstance(most, int) and 0 <= most < words:
                return most, "length"
        return words, "stop"

    @property
    def prompt_tokens(self) -> int:
        said = (self.fields.get(name) for name in ("messages", "prompt", "input"))
        return max(1, sum(map(tokens_in, said)))


def tokens_in(content: object) -> int:
    """Words of the text in a prompt, an input, a message, or a list of any of them; a number is a token."""
    match content:
        case str():
            return len(WORD.findall(content))
        case bool() | None:
            return 0
        case int():
            return 1
        case list():
            return sum(map(tokens_in, content))
        case dict():
            return tokens_in(content.get("content")) + tokens_in(content.get("text"))
        case _:
            return 0


def words(count: int, first: int = 0) -> str:
    return " ".join(f"w{i}" for i in range(first, first + count))


def usage(question: Question, completion: int) -> Json:
    prompt = question.prompt_tokens
    if question.endpoint == "responses":
        return {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def error(message: str, code: str | None = None, kind: str = "server_error") -> Json:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def answer(question: Question, count: int) -> tuple[Json, int]:
    """A whole answer of `count` words for each choice, and the completion tokens in it."""
    count, reason = question.capped(count)
    text, completion = words(count), count * question.choices
    match question.endpoint:
        case "chat/completions":
            message = {"role": "assistant", "content": text}
            body = _choices(question, "chat.completion", {"message": message}, reason)
        case "completions":
            body = _choices(question, "text_completion", {"text": text}, reason)
        case "responses":
            body = _response(question, text, "completed")
        case _:
            body, completion = _other(question, text), 0
    return {**body, "usage": usage(question, completion)}, completion


def _other(question: Question, text: str) -> Json:
    match question.endpoint:
        case "embeddings":
            given = question.fields.get("input")
            several = isinstance(given, list) and not all(isinstance(item, int) for item in given)
            count = len(given) if isinstance(given, list) and several else 1
            data = [{"object": "embedding", "index": i, "embedding": [0.5, -0.25, i]} for i in range(count)]
            return {"object": "list", "model": question.model, "data": data}
        case "audio/transcriptions" | "audio/translations":
            return {"text": text}
        case "images/generations" | "images/edits" | "images/variations":
            return {"created": CREATED, "data": [{"b64_json": "bGFi"}]}
        case "moderations":
            return {"id": f"modr-{question.number}", "model": question.model, "results": [{"flagged": False}]}
        case _:
            results = [{"index": 0, "relevance_score": 0.5, "score": 0.5}]
            return {"id": f"lab-{question.number}", "results": results, "data": results}


def _choices(question: Question, kind: str, said: Json, reason: str | None, index: int | None = None) -> Json:
    indexes = range(question.choices) if index is None else [index]
    prefix = "chatcmpl" if question.endpoint == "chat/completions" else "cmpl"
    choices = [{"index": i, **said, "logprobs": None, "finish_reason": reason} for i in indexes]
    return {
        "id": f"{prefix}-{question.number}",
        "object": kind,
        "created": CREATED,
        "model": question.model,
        "choices": choices,
    }


def _response(question: Question, text: str, status: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    output = [{"type": "message", "id": "msg-1", "role": "assistant", "status": status, "content": content}]
    return {
        "id": f"resp-{question.number}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": question.model,
        "output": output,
    }


@dataclass(frozen=True, slots=True)
class Said:
    """One event of a stream and the completion tokens that it brings; `name` is its `event:` field."""

    data: Json
    tokens: int = 0
    name: str | None = None

    def encoded(self) -> bytes:
        head = f"event: {self.name}\n" if self.name else ""
        return f"{head}data: {compact(self.data)}\n\n".encode()


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def chunks(question: Question, count: int) -> Iterator[Said]:
    """The events of a streamed answer, the last says why it ended; no usage, no `[DONE]`."""
    count, reason = question.capped(count)
    match question.endpoint:
        case "responses":
            yield from _response_events(question, count)
        case "completions":
            for step, index in _steps(question, count):
                yield Said(_choices(question, "text_completion", {"text": _nth(step)}, None, index), 1)
            for index in range(question.choices):
                yield Said(_choices(question, "text_completion", {"text": ""}, reason, index))
        case _:
            yield from _chat_events(question, count, reason)


def _chat_events(question: Question, count: int, reason: str) -> Iterator[Said]:
    kind = "chat.completion.chunk"
    for step, index in _steps(question, count):
        delta = {"role": "assistant", "content": _nth(step)} if step == 0 else {"content": _nth(step)}
        yield Said(_choices(question, kind, {"delta": delta}, None, index), 1)
    for index in range(question.choices):
        yield Said(_choices(question, kind, {"delta": {}}, reason, index))


def _response_events(question: Question, count: int) -> Iterator[Said]:
    name = "response.created"
    yield Said({"type": name, "response": _response(question, "", "in_progress")}, 0, name)
    name = "response.output_text.delta"
    for step in range(count):
        yield Said({"type": name, "item_id": "msg-1", "output_index": 0, "delta": _nth(step)}, 1, name)
    done = {**_response(question, words(count), "completed"), "usage": usage(question, count)}
    yield Said({"type": "response.completed", "response": done}, 0, "response.completed")


def _steps(question: Question, count: int) -> Iterator[tuple[int, int]]:
    return ((step, index) for step in range(count) for index in range(question.choices))


def _nth(step: int) -> str:
    return f" w{step}" if step else "w0"


def usage_chunk(question: Question, reported: object) -> Said:
    kind = "chat.completion.chunk" if question.endpoint == "chat/completions" else "text_completion"
    return Said({**_choices(question, kind, {}, None, 0), "choices": [], "usage": reported})
