"""The shapes that SDKs read answers into, and the reading of an answer as one of them."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from llmgateway.cli.conform.asking import JSON, Answer
from llmgateway.cli.conform.endings import Differs, Failed
from llmgateway.wire.sse import data_of, events

EVENT_STREAM = "text/event-stream"
DONE = b"[DONE]"

Reason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class Card(Struct, frozen=True):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Cards(Struct, frozen=True):
    object: Literal["list"]
    data: list[Card]


class Usage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class Message(Struct, frozen=True):
    role: Literal["assistant"]
    content: str | None


class Choice(Struct, frozen=True):
    index: int
    message: Message
    finish_reason: Reason


class Chat(Struct, frozen=True):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class ChunkChoice(Struct, frozen=True):
    index: int
    delta: dict[str, Any]
    finish_reason: Reason | None = None


class Chunk(Struct, frozen=True):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Embedding(Struct, frozen=True):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(Struct, frozen=True):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Complaint(Struct, frozen=True):
    """All four are required."""

    message: str
    type: str
    param: str | None
    code: str | int | None


class Error(Struct, frozen=True):
    error: Complaint


T = TypeVar("T")


def told(answer: Answer) -> str:
    """What came; it is made short where it is shown, after the key was taken out."""
    said = answer.body.decode("utf-8", "replace")
    return f"{answer.status} {answer.media_type or 'without a type'} {said}".strip()


def read(answer: Answer, kind: type[T]) -> T:
    """A whole answer with status 200."""
    if answer.status != 200:
        raise Failed("200", told(answer))
    return _as_json(answer, kind)


def refused(answer: Answer, *statuses: int) -> Complaint:
    """An error of one of these statuses in OpenAI's shape, not a page of whatever stands in between."""
    if answer.status not in statuses:
        raise Failed(" or ".join(map(str, statuses)), told(answer))
    return _as_json(answer, Error).error


def coded(complaint: Complaint, code: str) -> None:
    if complaint.code != code:
        raise Differs(f"the code {code}", complaint.code)


def _as_json(answer: Answer, kind: type[T]) -> T:
    if answer.media_type != JSON:
        raise Failed("application/json", told(answer))
    if answer.is_cut:
        raise Failed("a whole answer", f"{len(answer.body)} bytes of it")
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failed("OpenAI's shape", f"{error}: {told(answer)}") from None


# --- streams ---


def data_in(answer: Answer) -> list[bytes]:
    """What the events carry; comments carry nothing."""
    return [data for event in events(answer.body) if (data := data_of(event))]


def chunks_in(answer: Answer) -> Sequence[Chunk]:
    """All before the end."""
    try:
        return [msgspec.json.decode(data, type=Chunk) for data in data_in(answer) if data != DONE]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failed("chunks of a chat", f"{error}: {told(answer)}") from None


def event_times(answer: Answer) -> Iterator[float]:
    """When the last byte of each event with data was there, in seconds since the request."""
    ends = list(accumulate(len(piece) for _, piece in answer.pieces))
    at = piece = 0
    for event in events(answer.body):
        at += len(event)
        while ends[piece] < at:
            piece += 1
        if data_of(event):
            yield answer.pieces[piece][0]
