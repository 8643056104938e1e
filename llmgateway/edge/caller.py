"""The program at the other end of an HTTP request: what it asks, and what it is told."""

import re
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import NamedTuple

from llmgateway.domain.call import Ask, ClientInfo
from llmgateway.domain.endpoints import JSON, SSE, Endpoint
from llmgateway.domain.errors import (
    ClientGone,
    GatewayError,
    InvalidRequest,
    OverLimit,
    TooLarge,
    UnsupportedMedia,
)
from llmgateway.domain.limits import Standing
from llmgateway.edge.asgi import Message, Receive, Scope, Send, begin
from llmgateway.edge.errors import body_of, headers_of, status_of
from llmgateway.edge.forms import read_form
from llmgateway.edge.ratelimits import ratelimit_headers
from llmgateway.wire.jsonhead import prompts_in, read_head
from llmgateway.wire.sse import event_of
from llmgateway.wire.trace_context import context_in

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}").fullmatch
_WORD = re.compile(rb"[\x21-\x7e]{1,64}").fullmatch
_NO_INFO = ClientInfo()


class Arrival(NamedTuple):
    """When a request came, and the id that it was given."""

    id: str
    at: datetime
    monotonic: float


class HttpCaller:
    """Implements `domain.ports.Caller` over ASGI."""

    __slots__ = (
        "_endpoint", "_head", "_headers", "_max_body", "_receive", "_send", "_streams", "arrived", "at", "id",
        "info", "request_id", "standings", "started", "token", "trace", "writes",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        endpoint: Endpoint,
        arrival: Arrival,
        *,
        max_body: int,
    ) -> None:
        self._receive = receive
        self._send = send
        self._endpoint = endpoint
        self._max_body = max_body
        self._headers = headers = dict(scope["headers"])
        self._head: Message | None = None
        self.id, self.at, self.arrived = arrival
        self.token = token_of(scope["headers"], headers)
        self.request_id = (request_id_of(headers) if b"x-request-id" in headers else None) or self.id
        self.info = _info_of(headers) if b"x-stainless-lang" in headers else _NO_INFO
        self.started = self._streams = False
        self.standings: Sequence[Standing] = ()
        self.trace = context_in(headers) if b"traceparent" in headers else b""
        self.writes = 0

    # --- what it asks ---

    async def ask(self) -> Ask:
        headers = self._headers
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            raise UnsupportedMedia("Request bodies must not be compressed.")
        if int(headers.get(b"content-length", 0)) > self._max_body:
            raise self._too_large()
        message = await self._receive()
        if message.get("more_body") or message["type"] != "http.request":
            message = await self._rest_of(message)
        content_type = headers.get(b"content-type", JSON)
        if self._endpoint.form == "multipart":
            return self._asked_by_form(message["body"], content_type)
        if content_type != JSON:
            _refuse_other_media(content_type)
        return self._asked_by_json(message["body"])

    def _asked_by_json(self, body: bytes) -> Ask:
        if not body:
            raise InvalidRequest("The request has no body; it must be a JSON object.")
        head = read_head(body)
        options = head.stream_options
        return Ask(
            endpoint=self._endpoint.path,
            model=head.model,
            stream=head.stream is True,
            body=body,
            wants_usage=options is not None and options.include_usage is True,
            wants_continuous_usage=options is not None and options.continuous_usage_stats is True,
            max_output=_greatest(head.max_tokens, head.max_completion_tokens, head.max_output_tokens),
            choices=max(head.n or 1, head.best_of or 1),
            prompts=1 if not head.prompt else prompts_in(head),
        )

    def _asked_by_form(self, body: bytes, content_type: bytes) -> Ask:
        form = read_form(body, content_type)
        return Ask(
            endpoint=self._endpoint.path,
            model=form.model,
            stream=form.stream,
            body=body,
            content_type=content_type,
            model_at=form.model_at,
        )

    async def _rest_of(self, message: Message) -> Message:
        """The whole body where it came in pieces."""
        pieces: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone("The client closed the connection before its request was complete.")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_body:
                raise self._too_large()
            if not message.get("more_body"):
                return {"body": b"".join(pieces)}
            message = await self._receive()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The request body is larger than {self._max_body} bytes.")

    # --- what it is told ---

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.started = True
        whole = [
            *headers,
            (b"x-request-id", self.request_id.encode()),
            (b"x-llmgateway-id", self.id.encode()),
        ]
        if self.standings:
            whole += ratelimit_headers(self.standings)
        self._head = {"type": "http.response.start", "status": status, "headers": whole}

    def write(self, data: bytes) -> Awaitable[None] | None:
        self.writes += 1
        message = {"type": "http.response.body", "body": data, "more_body": True}
        return begin(self._send(message) if self._head is None else self._send_first(message))

    async def finish(self, data: bytes) -> None:
        self.writes += 1
        if self._head is None:
            await self._send({"type": "http.response.body", "body": data})
        else:
            await self._send_first({"type": "http.response.body", "body": data})

    async def _send_first(self, message: Message) -> None:
        head, self._head = self._head, None
        assert head is not None
        self._streams = head["headers"][0][1].startswith(SSE)
        await self._send(head)
        await self._send(message)

    async def tell(self, error: GatewayError) -> None:
        """The error as an answer; in a stream that has begun as its last event; otherwise the answer is
        broken off."""
        if isinstance(error, ClientGone):
            return
        if not self.started:
            if isinstance(error, OverLimit):
                self.standings = error.standings
            body = body_of(error)
            self.start(status_of(error), [*headers_of(error), (b"content-length", b"%d" % len(body))])
            await self.finish(body)
        elif self._streams:
            await self.finish(event_of(body_of(error)))

    async def gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def token_of(pairs: Sequence[tuple[bytes, bytes]], headers: dict[bytes, bytes]) -> bytes:
    """The key in `authorization`, `x-api-key` or `api-key`; b"" where there is none, or more than one
    `authorization`."""
    value = headers.get(b"authorization")
    if value is None:
        return headers.get(b"x-api-key") or headers.get(b"api-key") or b""
    if len(headers) != len(pairs) and sum(name == b"authorization" for name, _ in pairs) > 1:
        return b""
    return value[7:] if value[:7].lower() == b"bearer " else b""


def request_id_of(headers: dict[bytes, bytes]) -> str | None:
    """The caller's `x-request-id` if it may stand in headers and logs: 1 to 128 visible ASCII characters."""
    value = headers.get(b"x-request-id")
    return value.decode("ascii") if value is not None and _REQUEST_ID(value) else None


def _info_of(headers: dict[bytes, bytes]) -> ClientInfo:
    language = headers.get(b"x-stainless-lang")
    if language is None:
        return _NO_INFO
    version, retry = (
        headers.get(b"x-stainless-package-version", b""),
        headers.get(b"x-stainless-retry-count", b"0"),
    )
    return ClientInfo(
        sdk=language.decode("ascii") if _WORD(language) else None,
        version=version.decode("ascii") if _WORD(version) else None,
        retry=int(retry) if retry.isdigit() and len(retry) < 4 else 0,
    )


def _greatest(*given: int | None) -> int | None:
    """The endpoint decides which of its names a server obeys."""
    return max([value for value in given if value], default=None)


def _refuse_other_media(content_type: bytes) -> None:
    """JSON is taken under any name but a form's; clients that forget the header mean JSON."""
    kind, _, parameters = content_type.lower().partition(b";")
    if kind.strip().startswith(b"multipart/"):
        raise UnsupportedMedia("This endpoint takes a JSON body, not a form.")
    charset = parameters.partition(b"charset=")[2].strip(b' "')
    if charset not in (b"", b"utf-8", b"utf8", b"us-ascii"):
        raise UnsupportedMedia("The request body must be UTF-8.")
