"""What operators put in front of a gateway, with one thing about it wrong: it does to whole answers what the
fault says; without a fault it passes every piece on as it comes."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.client import responses
from types import TracebackType
from typing import Self

from tests.lab.client import Answer, Connection, Head, Request
from tests.lab.exchange import Call

Fault = Callable[[Call, Answer], Answer | None]
NO_MORE = ("connection", "close")
NEVER_SENT = 1 << 30  # bytes that are only announced
HOP_BY_HOP = ("transfer-encoding", "content-length", "connection")


class Ingress:
    """A fault that gives nothing cuts the connection in the middle of the answer. `most` is in bytes: of a
    request that announces more not even the body is read."""

    def __init__(
        self, target: str, fault: Fault | None = None, *,
        most: int | None = None, tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._target = target
        self._fault = fault
        self._most = most
        self._tls = tls

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def base_url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        call = await self._call(reader)
        if call is None:
            _write(writer, page(413, "Request Entity Too Large"))
            return False
        asked = Request(call.method, call.target, body=call.body, headers=dict(call.headers))
        async with await Connection.open(self._target) as onward:
            await onward.send(asked)
            head = await onward.head()
            if self._fault is None:
                await self._pass_on(onward, head, writer)
                return False
            answer = Answer(head, b"" if call.method == "HEAD" else await onward.body())
        changed = self._fault(call, answer)
        if changed is None:
            _write(writer, answer, answer.body[: len(answer.body) // 2])
            return False
        _write(writer, changed)
        await writer.drain()
        return NO_MORE not in changed.head.fields

    async def _call(self, reader: asyncio.StreamReader) -> Call | None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        pairs = (line.partition(":") for line in lines[1:] if line)
        headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
        length = int(dict(headers).get("content-length", "0"))
        if self._most is not None and length > self._most:
            return None
        body = b"" if length > NEVER_SENT else await reader.readexactly(length)
        return Call(0, method, target, headers, body)

    async def _pass_on(self, onward: Connection, head: Head, writer: asyncio.StreamWriter) -> None:
        """The body ends with the connection."""
        writer.write(_head(replace(head, fields=(*_kept(head), NO_MORE))))
        while piece := await onward.piece():
            writer.write(piece)
            await writer.drain()


@dataclass(frozen=True, slots=True)
class Changed:
    """An answer's new parts; a header of None is taken out."""

    answer: Answer

    def __call__(
        self, *, status: int | None = None, body: bytes | None = None, **headers: str | None
    ) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        changed = replace(self._named(named), status=status or self.answer.head.status)
        return Answer(changed, self.answer.body if body is None else body)

    def header(self, name: str, value: str | None) -> Answer:
        return Answer(self._named({name: value}), self.answer.body)

    def _named(self, headers: Mapping[str, str | None]) -> Head:
        head = self.answer.head
        fields = [pair for pair in head.fields if pair[0] not in headers]
        fields += [(name, value) for name, value in headers.items() if value is not None]
        return replace(head, fields=tuple(fields))


def page(status: int, words: str) -> Answer:
    """As nginx says it."""
    body = f"<html><head><title>{status} {words}</title></head></html>".encode()
    return Answer(Head("HTTP/1.1", status, (("content-type", "text/html"), NO_MORE)), body)


def _kept(head: Head) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in head.fields if pair[0] not in HOP_BY_HOP or pair == NO_MORE)


def _head(head: Head) -> bytes:
    first = f"HTTP/1.1 {head.status} {responses.get(head.status, 'Lab')}"
    lines = [first, *(f"{name}: {value}" for name, value in head.fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _write(writer: asyncio.StreamWriter, answer: Answer, part: bytes | None = None) -> None:
    """All of it or a part, with the length of the whole."""
    fields = (*_kept(answer.head), ("content-length", str(len(answer.body))))
    writer.write(_head(replace(answer.head, fields=fields)) + (answer.body if part is None else part))
