"""Requests as a browser's, without a browser: for what needs no application around it."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from llmgateway.domain.secret import Secret

KEYS = (Secret("first-signing-key-0123456789-0123456789"), Secret("older-signing-key-0123456789-0123456789"))


def request_of(
    *headers: tuple[str, str],
    method: str = "GET",
    host: str = "127.0.0.1:8080",
    address: str = "10.0.0.1",
    cookie: str | None = None,
) -> Request:
    pairs = [("host", host), *headers, *([("cookie", cookie)] if cookie else [])]
    raw: Sequence[tuple[bytes, bytes]] = [(name.encode(), value.encode()) for name, value in pairs]
    scope = {"type": "http", "method": method, "path": "/portal", "headers": raw, "query_string": b"",
             "client": (address, 50000)}  # fmt: skip
    return Request(scope)


def cookie_of(response: Response) -> str:
    """What the browser sends from now on."""
    return response.headers["set-cookie"].partition(";")[0]
