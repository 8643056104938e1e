"""Behaviours of a model server that speaks HTTP correctly: streams in every pace, errors, and usage."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from tests.lab.exchange import Exchange, Headers
from tests.lab.payloads import STREAMING, Said, answer, chunks, error, usage, usage_chunk

Behaviour = Callable[[Exchange], Awaitable[None]]
UsageStyle = Literal["asked", "never", "null", "continuous", "with_choices"]

SSE = "text/event-stream; charset=utf-8"
AFTERWARDS = 2  # chunks that a behaviour which stops in the middle would still have had


@dataclass(frozen=True, slots=True)
class Plan:
    """How an answer is told. `reported` makes a usage value out of the true one; `pause` is in seconds."""

    chunks: int = 5
    pause: float = 0
    usage: UsageStyle = "asked"
    done: bool = True
    reported: Callable[[dict[str, Any]], object] = dict


def streams(x: Exchange) -> bool:
    return x.question.stream and x.question.endpoint in STREAMING


def told(plan: Plan) -> Behaviour:
    """The whole answer, as a stream or in one piece, as the request wants it."""

    async def behave(x: Exchange) -> None:
        if not streams(x):
            return await whole(x, plan)
        await x.head(content_type=SSE)
        await tell(x, events(x, plan), plan.pause)
        await finish(x, plan)
        return None

    return behave


def ok(count: str = "5", milliseconds: str = "0") -> Behaviour:
    return told(Plan(chunks=int(count), pause=int(milliseconds) / 1000))


async def whole(x: Exchange, plan: Plan) -> None:
    if x.question.endpoint == "audio/speech":
        return await x.whole(b"ID3" + bytes(256), content_type="audio/mpeg")
    if plan.pause:
        await asyncio.sleep(plan.pause * plan.chunks)
    body, tokens = answer(x.question, plan.chunks)
    x.call.completion_tokens += tokens
    if plan.usage == "never":
        del body["usage"]
    else:
        body["usage"] = x.call.reported_usage = plan.reported(body["usage"])
    await x.json(body)
    return None


def events(x: Exchange, plan: Plan) -> Iterator[Said]:
    """The events of the answer, with usage told in the plan's style but without the usage-only chunk."""
    style, completion = plan.usage, 0
    if style == "asked" and x.question.wants_usage:
        style = "null"
    for said in chunks(x.question, plan.chunks):
        completion += said.tokens
        if x.question.endpoint == "responses" or style in ("asked", "never"):
            yield said
        elif style == "null":
            yield replace(said, data={**said.data, "usage": None})
        elif style == "continuous" or said.data["choices"][0]["finish_reason"]:
            yield replace(said, data={**said.data, "usage": plan.reported(usage(x.question, completion))})
        else:
            yield said


async def tell(x: Exchange, story: Iterable[Said], pause: float = 0) -> None:
    for said in story:
        await x.say(said)
        if pause:
            await asyncio.sleep(pause)


async def finish(x: Exchange, plan: Plan) -> None:
    """The usage chunk where one was asked for, `[DONE]`, and the end of the body."""
    if x.question.endpoint != "responses":
        if plan.usage in ("asked", "null", "continuous") and x.question.wants_usage:
            await x.say(usage_chunk(x.question, plan.reported(usage(x.question, x.call.completion_tokens))))
        if plan.done:
            await x.done()
    await x.end()


def interrupted(count: int, then: Behaviour) -> Behaviour:
    """`count` events, and then something else; an answer in one piece breaks in its middle."""

    async def behave(x: Exchange) -> None:
        if streams(x):
            await x.head(content_type=SSE)
            await tell(x, islice(events(x, Plan(count + AFTERWARDS)), count))
        else:
            body = json.dumps(answer(x.question, count + AFTERWARDS)[0]).encode()
            await x.head(framing="length", headers=[("content-length", str(len(body)))])
            await x.piece(body[: len(body) // 2])
        await then(x)

    return behave


async def die(x: Exchange) -> None:
    x.die()


async def reset(x: Exchange) -> None:
    x.reset()


async def hang(x: Exchange) -> None:
    await x.hang()


def die_after(count: str) -> Behaviour:
    return interrupted(int(count), die)


def reset_after(count: str) -> Behaviour:
    return interrupted(int(count), reset)


def stall_after(count: str) -> Behaviour:
    return interrupted(int(count), hang)


def hold_after(count: str) -> Behaviour:
    """`count` events, then the rest when the test releases it; an answer in one piece waits as a whole."""
    first, plan = int(count), Plan(int(count) + AFTERWARDS)

    async def behave(x: Exchange) -> None:
        if not streams(x):
            await x.hold()
            return await whole(x, plan)
        story = events(x, plan)
        await x.head(content_type=SSE)
        await tell(x, islice(story, first))
        await x.hold()
        await tell(x, story)
        await finish(x, plan)
        return None

    return behave


def held_head() -> Behaviour:
    """Says nothing until the test releases it, then answers."""

    async def behave(x: Exchange) -> None:
        await x.hold()
        await ok()(x)

    return behave


def status(code: str, retry_after: str | None = None) -> Behaviour:
    headers: Headers = [("retry-after", retry_after)] if retry_after is not None else []

    async def behave(x: Exchange) -> None:
        await x.json(error(f"The lab answers {code}.", f"lab_{code}"), int(code), headers)

    return behave


def html_status(code: str) -> Behaviour:
    async def behave(x: Exchange) -> None:
        page = f"<html><body><h1>{code} from the lab</h1></body></html>".encode()
        await x.whole(page, int(code), "text/html")

    return behave


def failing_first(times: str, code: str | None = None) -> Behaviour:
    """The first requests fail, by RST or with a status; those after them are answered."""
    left = int(times)

    async def behave(x: Exchange) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            await ok()(x)
        elif code is None:
            x.reset()
        else:
            await status(code)(x)

    return behave


def error_event(after: str = "0") -> Behaviour:
    """A stream that ends with an error event; an answer in one piece is a 200 with an error in it."""

    async def behave(x: Exchange) -> None:
        said = error("The lab's engine died.", "engine_error")
        if not streams(x):
            return await x.json(said)
        await x.head(content_type=SSE)
        await tell(x, islice(events(x, Plan(int(after) + AFTERWARDS)), int(after)))
        await x.say(Said(said))
        await x.end()
        return None

    return behave


def rejecting(field: str) -> Behaviour:
    """400 when the request has a field, anywhere in its options."""

    async def behave(x: Exchange) -> None:
        fields = x.question.fields
        options = fields.get("stream_options")
        if field in fields or (isinstance(options, dict) and field in options):
            refusal = error(f"Unknown parameter: '{field}'.", "unknown_parameter", "invalid_request_error")
            return await x.json(refusal, 400)
        await ok()(x)
        return None

    return behave


async def echo(x: Exchange) -> None:
    """The request as it arrived, as the text of a regular answer's `echo` member."""
    call = x.call
    body = call.body.decode("latin-1")
    seen = {"method": call.method, "target": call.target, "headers": call.headers, "body": body}
    await x.json({**answer(x.question, 1)[0], "echo": seen})


BAD_NUMBERS: dict[str, Callable[[int], object]] = {
    "negative": lambda n: -n,
    "nan": lambda n: float("nan"),
    "infinite": lambda n: float("inf"),
    "huge": lambda n: 10**18,
    "string": str,
    "fraction": lambda n: n + 0.5,
    "zero": lambda n: 0,
    "null": lambda n: None,
    "bool": lambda n: True,
    "double": lambda n: 2 * n,
    "list": lambda n: [n],
}


def bad_usage(kind: str) -> Behaviour:
    wrong = BAD_NUMBERS[kind]
    return told(Plan(reported=lambda true: {name: wrong(number) for name, number in true.items()}))


def usage_of(value: object) -> Behaviour:
    """An answer whose usage is not even an object."""
    return told(Plan(reported=lambda true: value))
