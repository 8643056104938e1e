"""One request at the scripted upstream and the means to answer it: well, badly, or not at all."""

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import responses
from typing import Any, Literal
from urllib.parse import unquote

from tests.lab.payloads import Question, Said, compact

Ending = Literal["open", "finished", "broken", "peer_gone"]
Framing = Literal["chunked", "length", "close"]
Headers = Sequence[tuple[str, str]]

KEPT = 4 << 20  # bytes of an answer that are kept; of a longer one only the digest is whole
ROOTS = ("v1", "extras", "tokenize", "health")


@dataclass
class Call:
    """The upstream's own ledger line of one request: the truth that other ledgers are compared with.

    `ending` is `finished` when the answer was said to its end, `broken` when the script broke it off,
    `peer_gone` when the other side closed first.
    """

    number: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    model: str = ""
    endpoint: str = ""
    completion_tokens: int = 0
    chunks: int = 0
    status: int = 0
    reported_usage: Any = None
    ending: Ending = "open"
    held: bool = False
    sent: bytearray = field(default_factory=bytearray, repr=False)
    size: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256, repr=False)

    def __post_init__(self) -> None:
        root, _, self.endpoint = _located(self.target)
        self.model = root or str(self.fields.get("model", ""))

    @property
    def request_id(self) -> str | None:
        return self.header("x-request-id")

    @property
    def fields(self) -> dict[str, Any]:
        """The body as a JSON object; empty when it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def question(self) -> Question:
        form = self.body if "multipart/" in (self.header("content-type") or "") else b""
        return Question(self.number, self.model, self.endpoint, self.fields, form)

    @property
    def prompt_tokens(self) -> int:
        return self.question.prompt_tokens

    @property
    def is_counting(self) -> bool:
        return self.endpoint in ("extras/tokenize/count", "tokenize")

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


def _located(target: str) -> tuple[str, str, str]:
    """(model, root, endpoint) of a request target; the model's segments are decoded one by one."""
    segments = target.partition("?")[0].strip("/").split("/")
    for i, segment in enumerate(segments):
        if segment in ROOTS:
            rest = segments[i + 1 :] if segment == "v1" else segments[i:]
            return "/".join(map(unquote, segments[:i])), segment, "/".join(rest)
    return "", "", "/".join(segments)


async def read_call(reader: asyncio.StreamReader, number: int) -> Call:
    """The next request of a connection, whole; raises IncompleteReadError when there is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    fields = (line.partition(":") for line in lines)
    headers = tuple((name.lower(), value.strip()) for name, _, value in fields)
    found = dict(headers)
    if "chunked" in found.get("transfer-encoding", ""):
        body = await _chunked_body(reader)
    else:
        body = await reader.readexactly(int(found.get("content-length", "0")))
    return Call(number, method, target, headers, body)


async def _chunked_body(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while (await reader.readline()).strip():
        pass  # trailers
    return body


class Exchange:
    """A request and the open connection to answer it on."""

    def __init__(self, call: Call, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        self.call = call
        self.question = call.question
        self.reusable = call.header("connection") != "close"
        self._writer = writer
        self._gate = gate
        self._framing: Framing = "chunked"

    async def send(self, raw: bytes) -> None:
        """Bytes as they are, outside any framing."""
        self._writer.write(raw)
        await self._writer.drain()

    async def head(
        self,
        status: int = 200,
        content_type: str = "application/json",
        *,
        framing: Framing = "chunked",
        headers: Headers = (),
        version: str = "1.1",
    ) -> None:
        self._framing = framing
        self.call.status = status
        reason = responses.get(status, "Lab")
        lines = [f"HTTP/{version} {status} {reason}", f"content-type: {content_type}"]
        if framing == "chunked":
            lines.append("transfer-encoding: chunked")
        elif framing == "close":
            self.reusable = False
            lines.append("connection: close")
        lines += [f"{name}: {value}" for name, value in headers]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def piece(self, data: bytes) -> None:
        """Bytes of the body, in the framing that the head announced."""
        call = self.call
        call.size += len(data)
        call.digest.update(data)
        call.sent += data[: max(0, KEPT - len(call.sent))]
        await self.send(b"%x\r\n%b\r\n" % (len(data), data) if self._framing == "chunked" else data)

    async def say(self, said: Said) -> None:
        """One event of a stream."""
        self.call.chunks += 1
        self.call.completion_tokens += said.tokens
        if (usage := said.data.get("usage") or said.data.get("response", {}).get("usage")) is not None:
            self.call.reported_usage = usage
        await self.piece(said.encoded())

    async def done(self) -> None:
        """`[DONE]`: all was said, so whoever closes from now on has not cut anything."""
        self.call.ending = "finished"
        await self.piece(b"data: [DONE]\n\n")

    async def end(self, trailers: Headers = ()) -> None:
        """The regular end of the body."""
        self.call.ending = "finished"
        if self._framing == "chunked":
            lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
            await self.send(f"0\r\n{lines}\r\n".encode())

    async def whole(
        self, body: bytes, status: int = 200, content_type: str = "application/json", headers: Headers = ()
    ) -> None:
        """A complete answer with its length."""
        length = ("content-length", str(len(body)))
        await self.head(status, content_type, framing="length", headers=[length, *headers])
        await self.piece(body)
        await self.end()

    async def json(self, value: object, status: int = 200, headers: Headers = ()) -> None:
        await self.whole(compact(value).encode(), status, headers=headers)

    def die(self) -> None:
        """Ends the connection in order (FIN), whatever was promised."""
        self._broken()
        self._writer.close()

    def reset(self) -> None:
        """Ends the connection with RST."""
        self._broken()
        reset(self._writer)

    def _broken(self) -> None:
        self.reusable = False
        if self.call.ending == "open":
            self.call.ending = "broken"

    async def hold(self) -> None:
        """Waits until the test releases this model."""
        self.call.held = True
        await self._gate.wait()
        self.call.held = False

    async def hang(self) -> None:
        """Says nothing more; ends when the other side closes."""
        await asyncio.get_running_loop().create_future()


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection so that the peer gets RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
