"""Around every answer that is not a call's: a request id, safe headers, errors in one shape."""

import logging
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmgateway.domain.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound, shown
from llmgateway.edge.caller import request_id_of
from llmgateway.edge.errors import body_of, headers_of, status_of
from llmgateway.edge.programs import endpoint_at

log = logging.getLogger(__name__)

Handlers = dict[Any, Callable[[Request, Exception], Response]]


class Envelope:
    """Pure ASGI, around a whole application. A trailing slash is taken off; nobody is redirected for it."""

    def __init__(self, app: ASGIApp, new_id: Callable[[], str]) -> None:
        self._app = app
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(dict(scope["headers"])) or self._new_id()
        state = {**scope.get("state", {}), "request_id": request_id}
        path = scope["path"].rstrip("/") or "/"
        began = False

        async def enveloped(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                message = {**message, "headers": safe(message.get("headers", ()), request_id)}
            await send(message)

        try:
            await self._app({**scope, "path": path, "state": state}, receive, enveloped)
        except ClientDisconnect:
            return
        except Exception:
            log.exception(
                "a request failed", extra={"fields": {"request_id": request_id, "path": shown(path)}}
            )
            if not began:
                await _tell(enveloped, FAILED)


FAILED = "The gateway failed; the operators can find this request by its request id."


def safe(headers: Any, request_id: str) -> list[tuple[bytes, bytes]]:
    """What is set already stays; answers about keys, people and models are nobody's to keep."""
    own = [*headers]
    names = {name.lower() for name, _ in own}
    defaults = (
        (b"x-request-id", request_id.encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    )
    return own + [(name, value) for name, value in defaults if name not in names]


async def _tell(send: Send, text: str) -> None:
    error = GatewayError(text)
    body = body_of(error)
    headers = [*headers_of(error), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})


# --- errors as answers ---


def answer_of(error: GatewayError) -> Response:
    response = Response(body_of(error), status_of(error))
    response.raw_headers += [pair for pair in headers_of(error) if pair[0] != b"content-length"]
    return response


def on_gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return answer_of(error)


def on_http_exception(request: Request, error: Exception) -> Response:
    """What the router refuses. A call's address with another method than POST is there, but not like that."""
    assert isinstance(error, HTTPException)
    path, method = request.scope["path"], request.scope["method"]
    if error.status_code == 404 and endpoint_at(path) is not None:
        return _not_allowed(method, path, "POST")
    if error.status_code == 404:
        return answer_of(NotFound(f"There is nothing at {shown(method, 20)} {shown(path)}.{_likely(path)}"))
    if error.status_code == 405:
        return _not_allowed(method, path, (error.headers or {}).get("Allow", ""))
    return (
        answer_of(InvalidRequest(error.detail))
        if error.status_code < 500
        else answer_of(GatewayError(FAILED))
    )


def _likely(path: str) -> str:
    """What most often is wrong: a base URL without its end."""
    is_call = endpoint_at(f"/v1{path}") is not None or f"{path}/".startswith("/models/")
    return f" Did you mean /v1{shown(path)}? Base URLs end in /v1." if is_call else ""


def on_failure(request: Request, error: Exception) -> Response:
    """The framework raises the error again after this; it is logged where it arrives."""
    return answer_of(GatewayError(FAILED))


def _not_allowed(method: str, path: str, allowed: str) -> Response:
    response = answer_of(MethodNotAllowed(f"{shown(path)} takes {allowed}, not {shown(method, 20)}."))
    response.headers["allow"] = allowed
    return response


HANDLERS: Handlers = {GatewayError: on_gateway_error, HTTPException: on_http_exception, Exception: on_failure}
