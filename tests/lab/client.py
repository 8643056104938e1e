"""A client of few words: raw HTTP/1.1 on one socket, so that tests can read slowly, stop, or hang up."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.lab.exchange import reset

LARGEST_LINE = 1 << 20
EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@dataclass(frozen=True, slots=True)
class Head:
    """The status line and the fields of an answer; names are lower case and may repeat."""

    version: str
    status: int
    fields: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key == name), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status

    def header(self, name: str) -> str | None:
        return self.head.header(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[bytes]:
        """The events of a streamed body, each with its blank line."""
        return split_events(self.body)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: `json` or `body`, with the key as the bearer credential."""

    method: str
    path: str
    key: str | None = None
    json: Any = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self, host: str) -> bytes:
        body = self.body if self.json is None else json.dumps(self.json).encode()
        fields = {"host": host}
        if self.key is not None:
            fields["authorization"] = f"Bearer {self.key}"
        if body is not None:
            fields |= {"content-type": "application/json", "content-length": str(len(body))}
        fields |= {name.lower(): value for name, value in self.headers.items()}
        lines = [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join([f"{self.method} {self.path} HTTP/1.1", *lines, "", ""])
        return head.encode("latin-1") + (body or b"")


def chat(model: str, words: str = "one two three", **more: Any) -> dict[str, Any]:
    """The body of a chat request; the scripted upstream counts a token for each word."""
    return {"model": model, "messages": [{"role": "user", "content": words}], **more}


def post(path: str, body: Any, key: str | None = None, **headers: str) -> Request:
    """A POST of JSON; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", path, key, body, headers=named)


class Connection:
    """One socket to a server. Leaving the block closes it, in whatever state it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self.writer = writer
        self.host = host
        self._framing = "none"
        self._left = 0
        self._pending = b""

    @classmethod
    async def open(cls, url: str, receive_buffer: int | None = None) -> Self:
        """`receive_buffer` is in bytes: a small one makes a slow reader felt at once."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        plug = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        plug.setblocking(False)
        if receive_buffer is not None:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(plug, (parts.hostname, parts.port))
            limit = LARGEST_LINE if receive_buffer is None else receive_buffer
            reader, writer = await asyncio.open_connection(sock=plug, limit=limit)
        except BaseException:
            plug.close()
            raise
        return cls(reader, writer, parts.netloc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def send(self, request: Request | bytes) -> None:
        """A request, or bytes as they are."""
        self._pending = b""
        self.writer.write(request.encoded(self.host) if isinstance(request, Request) else request)
        await self.writer.drain()

    async def head(self, seconds: float = 10) -> Head:
        """The head of the final answer; interim answers are skipped. IncompleteReadError when none comes."""
        async with asyncio.timeout(seconds):
            while True:
                lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                version, status, *_ = lines[0].split(" ", 2)
                pairs = (line.partition(":") for line in lines[1:] if line)
                found = Head(version, int(status), tuple((n.strip().lower(), v.strip()) for n, _, v in pairs))
                if found.status >= 200:
                    self._frame(found)
                    return found

    def _frame(self, head: Head) -> None:
        length = head.header("content-length")
        self._framing = (
            "chunked"
            if "chunked" in (head.header("transfer-encoding") or "")
            else "close"
            if length is None
            else "length"
        )
        self._left = int(length or 0)

    async def piece(self) -> bytes:
        """The next bytes of the body as they come, without the framing; b"" at its regular end.

        Raises IncompleteReadError when the body was cut, ConnectionResetError on RST.
        """
        if self._framing == "chunked":
            return await self._chunk()
        most = 65_536 if self._framing == "close" else min(self._left, 65_536)
        data = await self.reader.read(most) if most else b""
        if not data and self._left:
            raise asyncio.IncompleteReadError(data, self._left)
        self._left -= len(data) if self._framing == "length" else 0
        return data

    async def _chunk(self) -> bytes:
        line = await self.reader.readuntil(b"\r\n")
        if size := int(line.partition(b";")[0], 16):
            return (await self.reader.readexactly(size + 2))[:-2]
        while (await self.reader.readuntil(b"\r\n")) != b"\r\n":
            pass  # trailers
        return b""

    async def body(self, seconds: float = 30) -> bytes:
        """All the rest of the body."""
        pieces = [self._pending]
        async with asyncio.timeout(seconds):
            while data := await self.piece():
                pieces.append(data)
        self._pending = b""
        return b"".join(pieces)

    async def event(self, seconds: float = 10) -> bytes:
        """The next event with its blank line, or what is left at the end; b"" behind that."""
        async with asyncio.timeout(seconds):
            while not (end := EVENT_END.search(self._pending)):
                if not (data := await self.piece()):
                    rest, self._pending = self._pending, b""
                    return rest
                self._pending += data
        event, self._pending = self._pending[: end.end()], self._pending[end.end() :]
        return event

    async def events(self, count: int, seconds: float = 10) -> list[bytes]:
        return [await self.event(seconds) for _ in range(count)]

    async def ask(self, request: Request) -> Answer:
        """Sends and reads the whole answer; the connection can be used again."""
        await self.send(request)
        return Answer(await self.head(), await self.body())

    async def is_closed_by_server(self, seconds: float = 10) -> bool:
        """Whether nothing but the end comes within that time; RST is an end too."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def stop_reading(self) -> None:
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def go_on_reading(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Hangs up in order."""
        self.writer.close()

    def reset(self) -> None:
        """Hangs up with RST."""
        reset(self.writer)


def split_events(stream: bytes) -> list[bytes]:
    ends = [0, *(found.end() for found in EVENT_END.finditer(stream)), len(stream)]
    return [stream[a:b] for a, b in pairwise(ends) if a < b]


def data_of(events: Sequence[bytes]) -> list[Any]:
    """The JSON of each event's `data:`; `[DONE]` stays text, comments are left out."""
    found = []
    for event in events:
        lines = [line for line in event.splitlines() if line.startswith(b"data:")]
        if lines:
            text = b"\n".join(line.removeprefix(b"data:").strip() for line in lines)
            found.append("[DONE]" if text == b"[DONE]" else json.loads(text))
    return found


async def fetch(url: str, request: Request) -> Answer:
    """One request on a connection of its own."""
    async with await Connection.open(url) as connection:
        return await connection.ask(request)


@asynccontextmanager
async def streaming(
    url: str, request: Request, receive_buffer: int | None = None
) -> AsyncIterator[Connection]:
    """A connection on which a request was sent and whose answer's head is next."""
    async with await Connection.open(url, receive_buffer) as connection:
        await connection.send(request)
        yield connection
