"""The program at the other end: what is read of it, and what it is told."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.domain.errors import (
    ClientGone,
    GatewayError,
    InvalidRequest,
    TooLarge,
    UnsupportedMedia,
    UpstreamFailed,
)
from llmgateway.edge.asgi import Message
from llmgateway.edge.caller import Arrival, HttpCaller

Headers = Sequence[tuple[bytes, bytes]]
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
JSON_BODY = b'{"model":"m"}'
OWN_ID = "01a1fb00-0000-7000-8000-000000000000"


class Line:
    """An HTTP connection in ASGI's words: gives pieces of a body, then the hang-up; keeps what was sent."""

    def __init__(
        self, headers: Headers = (), pieces: Sequence[bytes] = (JSON_BODY,), *, hangs_up: bool = False
    ) -> None:
        self.headers = list(headers)
        more = [True] * (len(pieces) - 1) + [hangs_up]
        self._messages: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": follows}
            for piece, follows in zip(pieces, more, strict=True)
        ]
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        return self._messages.pop(0) if self._messages else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def caller(self, path: str = "/v1/chat/completions", max_body: int = 1000) -> HttpCaller:
        arrival = Arrival(OWN_ID, NOON, 1.0)
        scope = {"headers": self.headers}
        return HttpCaller(scope, self.receive, self.send, ENDPOINTS[path], arrival, max_body=max_body)

    @property
    def head(self) -> Message:
        return self.sent[0]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], b""),
        ([(b"authorization", b"Bearer k")], b"k"),
        ([(b"authorization", b"bearer k")], b"k"),
        ([(b"authorization", b"Basic k")], b""),
        ([(b"authorization", b"Bearer")], b""),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], b""),
        ([(b"x-api-key", b"k")], b"k"),
        ([(b"api-key", b"k")], b"k"),
        ([(b"x-api-key", b"other"), (b"authorization", b"Bearer k")], b"k"),
        ([(b"authorization", b"Basic x"), (b"x-api-key", b"k")], b""),
    ],
)
def test_where_a_key_is_looked_for(headers: Headers, token: bytes) -> None:
    assert Line(headers).caller().token == token


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"req-1", "req-1"),
        (b"x" * 128, "x" * 128),
        (b"x" * 129, OWN_ID),
        (b"", OWN_ID),
        (b"a b", OWN_ID),
        (b"\xe9", OWN_ID),
    ],
)
def test_a_request_id_is_kept_if_it_may_stand_anywhere(sent: bytes, kept: str) -> None:
    assert Line([(b"x-request-id", sent)]).caller().request_id == kept


def test_what_an_sdk_says_of_itself() -> None:
    stainless = [
        (b"x-stainless-lang", b"python"),
        (b"x-stainless-package-version", b"3.52.0"),
        (b"x-stainless-retry-count", b"2"),
    ]
    info = Line(stainless).caller().info
    assert (info.sdk, info.version, info.retry) == ("python", "3.52.0", 2)
    odd = Line([(b"x-stainless-lang", b"\x7f" * 70), (b"x-stainless-retry-count", b"many")]).caller().info
    assert (odd.sdk, odd.version, odd.retry) == (None, None, 0)


@pytest.mark.parametrize(
    ("prompt", "count"),
    [('"a"', 1), ('["a"]', 1), ('["a", "b", "c"]', 3), ("[1, 2, 3]", 1), ("[[1, 2], [3]]", 2), ("[]", 1)],
)
async def test_each_of_several_prompts_is_answered(prompt: str, count: int) -> None:
    line = Line(pieces=(b'{"model":"m","prompt":%b}' % prompt.encode(),))
    assert (await line.caller("/v1/completions").ask()).prompts == count
    assert (await Line().caller().ask()).prompts == 1


async def test_a_body_in_pieces() -> None:
    ask = await Line(pieces=[b'{"mod', b'el":"m","n":2,"max_tokens":9,', b'"stream":true}']).caller().ask()
    assert (ask.model, ask.choices, ask.max_output, ask.stream, ask.wants_usage) == ("m", 2, 9, True, False)


async def test_of_several_maxima_the_greatest_counts() -> None:
    """The server obeys the one that its endpoint has, whichever that is."""
    body = b'{"model":"m","max_completion_tokens":1,"max_tokens":4000,"max_output_tokens":null}'
    assert (await Line(pieces=[body]).caller().ask()).max_output == 4000
    assert (await Line(pieces=[b'{"model":"m","max_tokens":0}']).caller().ask()).max_output is None


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (Line([(b"content-length", b"1001")]), TooLarge),
        (Line(pieces=[b"x" * 600, b"x" * 600]), TooLarge),
        (Line(pieces=[b"{"], hangs_up=True), ClientGone),
        (Line(pieces=[b""]), InvalidRequest),
        (Line([(b"content-encoding", b"gzip")]), UnsupportedMedia),
        (Line([(b"content-type", b"multipart/form-data; boundary=x")]), UnsupportedMedia),
        (Line([(b"content-type", b"application/json; charset=utf-16")]), UnsupportedMedia),
    ],
    ids=["announced", "grown", "hung up", "empty", "compressed", "a form", "charset"],
)
async def test_bodies_that_are_not_taken(line: Line, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        await line.caller().ask()


@pytest.mark.parametrize(
    "kind", [b"application/json; charset=utf-8", b"text/plain", b"application/x-www-form-urlencoded"]
)
async def test_json_under_other_names(kind: bytes) -> None:
    assert (
        await Line([(b"content-type", kind), (b"content-encoding", b"identity")]).caller().ask()
    ).model == "m"


async def test_a_form_is_read_for_its_model() -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nw\r\n--b--\r\n'
    line = Line([(b"content-type", b"multipart/form-data; boundary=b")], [body])
    ask = await line.caller("/v1/audio/transcriptions").ask()
    assert (ask.model, ask.body, ask.content_type) == ("w", body, b"multipart/form-data; boundary=b")


async def test_the_head_goes_out_with_the_first_piece() -> None:
    line = Line([(b"x-request-id", b"mine")])
    caller = line.caller()
    caller.start(200, [(b"content-type", b"text/event-stream")])
    assert (line.sent, caller.started) == ([], True)
    assert caller.write(b"data: 1\n\n") is None
    assert caller.write(b"data: 2\n\n") is None
    await caller.finish(b"data: [DONE]\n\n")
    assert (b"x-request-id", b"mine") in line.head["headers"]
    assert (b"x-llmgateway-id", OWN_ID.encode()) in line.head["headers"]
    assert line.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert [message.get("more_body", False) for message in line.sent] == [False, True, True, False]
    assert caller.writes == 3


async def told(line: Line, error: GatewayError, *, begun: bytes | None) -> dict[str, Any] | None:
    caller = line.caller()
    if begun is not None:
        caller.start(200, [(b"content-type", begun)])
        caller.write(b"begun ")
    await caller.tell(error)
    text = line.body.removeprefix(b"begun ").removeprefix(b"data: ")
    return None if not text else dict(json.loads(text)["error"])


async def test_an_error_before_the_answer_is_an_answer() -> None:
    line = Line()
    error = await told(line, TooLarge("big"), begun=None)
    assert error is not None
    assert (line.head["status"], error["code"]) == (413, "request_too_large")
    assert (b"content-length", str(len(line.body)).encode()) in line.head["headers"]


async def test_an_error_in_a_stream_is_its_last_event() -> None:
    line = Line()
    error = await told(line, UpstreamFailed("cut", reason="reset"), begun=b"text/event-stream; charset=utf-8")
    assert error is not None
    assert error["code"] == "upstream_error"
    assert line.body.endswith(b"}\n\n")
    assert not line.sent[-1].get("more_body", False)


async def test_an_error_in_another_body_breaks_it_off() -> None:
    line = Line()
    assert await told(line, UpstreamFailed("cut", reason="reset"), begun=b"audio/wav") is None
    assert line.sent[-1]["more_body"]


async def test_nobody_is_told_that_nobody_is_there() -> None:
    line = Line()
    assert await told(line, ClientGone("gone"), begun=None) is None
    assert line.sent == []
