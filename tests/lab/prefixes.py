"""A reverse proxy that serves model servers under `/<model>/`, as LLM_DEFAULT_URL expects them: it takes the
first segment off the path, and passes every byte behind the head as it comes."""

import asyncio
import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

READ = 65_536
GONE = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class PrefixProxy:
    """`ports` are the servers by model. A connection carries one request, so a hang-up is passed on, too;
    `ended` are the paths of those that are over."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self.ports = ports
        self.port = 0
        self.ended: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """What `LLM_DEFAULT_URL` is set to."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.closing(writer), contextlib.suppress(*GONE):
            await self._forward(reader, writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, fields = head.split(b"\r\n", 1)
        method, target, version = line.split(b" ")
        _, model, path = target.split(b"/", 2)
        port = self.ports.get(model.decode())
        if port is None:
            writer.write(NOT_FOUND)
            return
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(onward):
            onward.write(b"%b /%b %b\r\nconnection: close\r\n%b" % (method, path, version, fields))
            both = ((reader, onward), (onward_reader, writer))
            ways = [asyncio.ensure_future(_pass(*way)) for way in both]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.ended.append(f"/{path.decode()}")
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side is at its end; then both are closed, by whoever waits for this."""
    while data := await reader.read(READ):
        writer.write(data)
        await writer.drain()
