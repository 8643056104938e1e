"""The built-in model: it says what it was told, so that a gateway without any model server answers too.

Its token is a word. It counts them itself, in answers and under `/extras/tokenize/count`: its usage is exact.
"""

import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from llmgateway.domain.endpoints import JSON, SSE
from llmgateway.domain.ports import UpstreamRequest
from llmgateway.wire.sse import DONE, event_of

NOTHING_SAID = "You said nothing."
DIMENSIONS, MOST_DIMENSIONS = 256, 4096
MOST_CHOICES = 128
MOST_WORDS = 4096  # of one choice: a long question must not become a hundred times its size of events
MOST_SECONDS = 300.0  # that a stream rests, all its pauses together

Answer = tuple[int, dict[bytes, bytes], list[bytes], float]
Json = dict[str, Any]

_words = re.compile(r"\S+\s*|\s+").findall
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Refusal(Exception):
    """What echo cannot do; it becomes an error answer."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str = "invalid_value"
    ) -> None:
        super().__init__(message)
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        self.answer: Answer = (status, {b"content-type": JSON}, [_encode({"error": error})], 0.0)


class Echo:
    """`answer` gives status, headers, body in the pieces in which it is sent, and the seconds between two of
    them. `now` dates the answers."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._answers: dict[str, Callable[[Json, Stamp], Answer]] = {
            "/chat/completions": _chat,
            "/completions": _completions,
            "/embeddings": _embeddings,
            "/extras/tokenize/count": _count,
        }

    def answer(self, request: UpstreamRequest) -> Answer:
        answer = self._answers.get(request.path)
        if answer is None:
            message = "This model does not serve this endpoint."
            return Refusal(message, status=404, code="unsupported_endpoint").answer
        try:
            asked = _object(request.body)
            stamp = Stamp(request.request_id, int(self._now().timestamp()), str(asked.get("model", "echo")))
            return answer(asked, stamp)
        except Refusal as refusal:
            return refusal.answer


class Stamp(Struct, frozen=True):
    """What every object of an answer carries."""

    id: str
    created: int
    model: str

    def on(self, kind: str, prefix: str) -> Json:
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}


class Speech(Struct, frozen=True):
    """What is said in every choice: its words, why it ends, and what it costs."""

    words: list[str]
    finish: str
    prompt: int
    choices: int

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def usage(self) -> Json:
        completion = len(self.words) * self.choices
        total = self.prompt + completion
        return {"prompt_tokens": self.prompt, "completion_tokens": completion, "total_tokens": total}


# --- endpoints ---


def _chat(asked: Json, stamp: Stamp) -> Answer:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal("'messages' must be a list of at least one message.", param="messages")
    texts = [(_role(message), _text_of(message)) for message in messages]
    said = next((text for role, text in reversed(texts) if role == "user"), "")
    speech = _speech(asked, said or NOTHING_SAID, sum(count(text) for _, text in texts))
    if asked.get("stream") is True:
        return _stream(_chat_chunks(speech, stamp), asked)
    message = {"role": "assistant", "content": speech.text, "refusal": None}
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": speech.finish}
        for index in range(speech.choices)
    ]
    return _whole(stamp.on("chat.completion", "chatcmpl") | {"choices": choices, "usage": speech.usage})


def _chat_chunks(speech: Speech, stamp: Stamp) -> Iterator[Json]:
    def chunk(index: int, delta: Json, finish: str | None = None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return stamp.on("chat.completion.chunk", "chatcmpl") | {"choices": [choice]}

    for index in range(speech.choices):
        yield chunk(index, {"role": "assistant", "content": ""})
        yield from (chunk(index, {"content": word}) for word in speech.words)
        yield chunk(index, {}, speech.finish)
    yield stamp.on("chat.completion.chunk", "chatcmpl") | {"choices": [], "usage": speech.usage}


def _completions(asked: Json, stamp: Stamp) -> Answer:
    prompts = _strings(asked, "prompt")
    if len(prompts) != 1:
        raise Refusal("The model 'echo' takes one prompt at a time.", param="prompt")
    speech = _speech(asked, prompts[0] or NOTHING_SAID, count(prompts[0]))
    if asked.get("stream") is True:
        return _stream(_completion_chunks(speech, stamp), asked)
    choices = [_text_choice(index, speech.text, speech.finish) for index in range(speech.choices)]
    return _whole(stamp.on("text_completion", "cmpl") | {"choices": choices, "usage": speech.usage})


def _completion_chunks(speech: Speech, stamp: Stamp) -> Iterator[Json]:
    head = stamp.on("text_completion", "cmpl")
    for index in range(speech.choices):
        yield from (head | {"choices": [_text_choice(index, word, None)]} for word in speech.words)
        yield head | {"choices": [_text_choice(index, "", speech.finish)]}
    yield head | {"choices": [], "usage": speech.usage}


def _text_choice(index: int, text: str, finish: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _embeddings(asked: Json, stamp: Stamp) -> Answer:
    size = asked.get("dimensions", DIMENSIONS)
    if type(size) is not int or not 1 <= size <= MOST_DIMENSIONS:
        raise Refusal(f"'dimensions' must be a whole number from 1 to {MOST_DIMENSIONS}.", param="dimensions")
    texts = _strings(asked, "input")
    as_base64 = asked.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _embedding(text, size, as_base64=as_base64)}
        for index, text in enumerate(texts)
    ]
    total = sum(map(count, texts))
    usage = {"prompt_tokens": total, "total_tokens": total}
    return _whole({"object": "list", "data": data, "model": stamp.model, "usage": usage})


def _embedding(text: str, size: int, *, as_base64: bool) -> list[float] | bytes:
    vector = unit_vector(text, size)
    return struct.pack(f"<{size}f", *vector) if as_base64 else vector


def _count(asked: Json, stamp: Stamp) -> Answer:
    return _whole({"count": sum(map(count, _strings(asked, "input")))})


# --- inside ---


def _object(body: bytes) -> Json:
    try:
        asked = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("The request body is not valid JSON.", code="invalid_json") from None
    if not isinstance(asked, dict):
        raise Refusal("The request body must be a JSON object.", code="invalid_json")
    return asked


def count(text: str) -> int:
    """Words; the space behind one belongs to it."""
    return len(_words(text))


def unit_vector(text: str, size: int) -> list[float]:
    """The same for the same text, and for no other: a hash stretched to length, normed to 1."""
    digest = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(4 * size)
    raw = [number / 2**31 for number in struct.unpack(f"<{size}i", digest)]
    norm = math.sqrt(sum(number * number for number in raw)) or 1.0
    return [number / norm for number in raw]


def _speech(asked: Json, said: str, prompt: int) -> Speech:
    words = _words(said)
    asked_for = asked.get("max_completion_tokens") or asked.get("max_tokens")
    most = min(asked_for, MOST_WORDS) if type(asked_for) is int else MOST_WORDS
    is_cut = most < len(words)
    choices = asked.get("n") or 1
    if type(choices) is not int or not 1 <= choices <= MOST_CHOICES:
        raise Refusal(f"'n' must be a whole number from 1 to {MOST_CHOICES}.", param="n")
    return Speech(words[:most] if is_cut else words, "length" if is_cut else "stop", prompt, choices)


def _whole(answer: Json) -> Answer:
    body = _encode(answer)
    return 200, {b"content-type": JSON, b"content-length": b"%d" % len(body)}, [body], 0.0


def _stream(chunks: Iterator[Json], asked: Json) -> Answer:
    """The last chunk is the usage: it is sent where it was asked for; then the others say `usage: null`."""
    options = asked.get("stream_options")
    *spoken, usage = chunks
    if isinstance(options, dict) and options.get("include_usage") is True:
        events = [_encode(chunk | {"usage": None}) for chunk in spoken] + [_encode(usage)]
    else:
        events = [_encode(chunk) for chunk in spoken]
    pieces = [*map(event_of, events), DONE]
    pause = _pause(asked)
    if pause:  # before every word: what follows the last one comes with it
        last = len(spoken) - 2
        pieces = [*pieces[:last], b"".join(pieces[last:])]
        pause = min(pause, MOST_SECONDS / len(pieces))
    return 200, {b"content-type": SSE + b"; charset=utf-8"}, pieces, pause


def _pause(asked: Json) -> float:
    """A field of our own: this model can be as slow as others, so that one sees what is made of a stream."""
    pause = asked.get("pause", 0)
    if isinstance(pause, bool) or not isinstance(pause, int | float) or not 0 <= pause <= MOST_SECONDS:
        message = f"'pause' must be a number of seconds from 0 to {MOST_SECONDS:g}."
        raise Refusal(message, param="pause")
    return float(pause)


def _role(message: object) -> str:
    return str(message.get("role")) if isinstance(message, dict) else ""


def _text_of(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _strings(asked: Json, name: str) -> list[str]:
    """A string or a list of them; lists of token numbers are taken as their decimal words."""
    value = asked.get(name)
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return list(value)
    if isinstance(value, list) and value and all(type(one) is int for one in value):
        return [" ".join(map(str, value))]
    if isinstance(value, list) and value and all(isinstance(one, list) for one in value):
        return [" ".join(map(str, one)) for one in value]
    raise Refusal(f"'{name}' must be a string or a list of strings.", param=name)
