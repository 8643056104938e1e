import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from llmgateway.domain.errors import NotAllowed
from llmgateway.edge.middleware import HANDLERS, Envelope


async def hello(request: Request) -> Response:
    return PlainTextResponse(request.state.request_id, headers={"cache-control": "max-age=5"})


async def forbidden(request: Request) -> Response:
    raise NotAllowed("Not you.")


async def broken(request: Request) -> Response:
    raise RuntimeError("lgw_secret in the message")


class Late:
    """Fails in the middle of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("broken")


ROUTES = [
    Route("/hello", hello),
    Route("/forbidden", forbidden),
    Route("/broken", broken),
]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=ROUTES, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    transport = httpx.ASGITransport(Envelope(app, lambda: "ours"))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as opened:
        yield opened


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (None, "ours"),
        ("mine-1", "mine-1"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "ours"),
        ("a b", "ours"),
        ("", "ours"),
    ],
)
async def test_a_request_id_is_taken_or_made(
    client: httpx.AsyncClient, sent: str | None, answered: str
) -> None:
    headers = {} if sent is None else {"x-request-id": sent}
    answer = await client.get("/hello", headers=headers)
    assert answer.text == answer.headers["x-request-id"] == answered


async def test_headers_are_safe_and_set_ones_stay(client: httpx.AsyncClient) -> None:
    answer = await client.get("/hello")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "max-age=5"
    assert (await client.get("/nowhere")).headers["cache-control"] == "no-store"


async def test_a_trailing_slash_is_forgiven(client: httpx.AsyncClient) -> None:
    assert (await client.get("/hello/")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("POST", "/hello", 405, "method_not_allowed"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/embeddings/", 405, "method_not_allowed"),
        ("GET", "/forbidden", 403, "permission_denied"),
        ("GET", "/broken", 500, "internal_error"),
    ],
)
async def test_every_error_has_one_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "ours"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert ("allow" in answer.headers) is (status == 405)


async def test_a_failure_is_logged_and_not_shown(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "llmgateway.edge.middleware")
    answer = await client.get("/broken")
    assert "lgw_secret" not in answer.text
    (line,) = caplog.records
    assert line.__dict__["fields"] == {"request_id": "ours", "path": "/broken"}


async def test_a_failure_in_the_middle_sends_no_second_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The server breaks off what is not complete."""
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    scope = {"type": "http", "path": "/late", "method": "GET", "headers": []}
    await Envelope(Late(), lambda: "ours")(scope, send, send)  # type: ignore[arg-type]
    assert sent == ["http.response.start", "http.response.body"]
    assert "a request failed" in caplog.text


async def test_who_hangs_up_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[object] = []

    async def send(message: object) -> None:
        sent.append(message)

    async def leave(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    scope = {"type": "http", "path": "/gone", "method": "GET", "headers": []}
    await Envelope(leave, lambda: "ours")(scope, send, send)  # type: ignore[arg-type]
    assert sent == []
    assert caplog.records == []


async def test_a_base_url_without_its_end_is_spoken_of(client: httpx.AsyncClient) -> None:
    for method, path in (("POST", "/chat/completions"), ("GET", "/models"), ("GET", "/models/org/a")):
        told = (await client.request(method, path)).json()["error"]["message"]
        assert told.endswith(f"Did you mean /v1{path}? Base URLs end in /v1.")
    assert "Did you mean" not in (await client.get("/modelsx")).text
