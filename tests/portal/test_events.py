"""Pieces as server-sent events: each in one, and none twice in a row."""

from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmgateway.portal.events import event_stream


async def pieces() -> AsyncIterator[str]:
    for piece in ("one\ntwo", "one\ntwo", "three", "one\ntwo"):
        yield piece


async def test_what_is_the_same_is_not_sent_again() -> None:
    async def endpoint(request: Request) -> Response:
        return event_stream(pieces(), {"cache-control": "no-store", "x-own": "1"})

    app = Starlette(routes=[Route("/", endpoint)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/")
    assert answer.text == "data: one\ndata: two\n\ndata: three\n\ndata: one\ndata: two\n\n"
    assert (answer.headers["x-own"], answer.headers["cache-control"]) == ("1", "no-store")
    assert answer.headers["content-type"].startswith("text/event-stream")
