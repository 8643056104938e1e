"""A TCP proxy that does to a connection what networks do: latency, silence, resets, slices, narrow pipes."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.lab.exchange import reset
from tests.lab.waiting import eventually

READ = 65_536


@dataclass(frozen=True, slots=True)
class Toxics:
    """What happens to bytes, both ways. `latency` is in seconds per piece, `bandwidth` in bytes per second.

    `blackhole` takes everything and passes nothing on; `slice` passes on at most so many bytes at once;
    `reset_after` ends a connection with RST when so many bytes have come from the server.
    """

    latency: float = 0
    blackhole: bool = False
    slice: int | None = None
    bandwidth: int | None = None
    reset_after: int | None = None
    refuse: bool = False


CLEAN = Toxics()


class ChaosProxy:
    """Stands before a server; `toxics` may be changed at any time and hold for open connections too."""

    def __init__(self, target_port: int, toxics: Toxics = CLEAN) -> None:
        self.target_port = target_port
        self.toxics = toxics
        self.port = 0
        self.accepted = 0
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens, on the same port as before if it was stopped."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses connections from now on and resets the open ones."""
        self._server.close()
        tasks = list(self._open)
        self.reset_all()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def reset_all(self) -> None:
        """RST on every open connection, towards both ends."""
        for task, writers in self._open.items():
            for writer in writers:
                reset(writer)
            task.cancel()

    async def connected(self, count: int, seconds: float = 5) -> None:
        await eventually(lambda: self.open_connections >= count, f"{count} connections are open", seconds)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.toxics.refuse:
            reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        writers = self._open[task] = [writer]
        try:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self.target_port)
            writers.append(onward)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, onward, limited=False))
                both.create_task(self._pass(onward_reader, writer, limited=True))
        except (OSError, asyncio.CancelledError, BaseExceptionGroup):
            for each in writers:
                reset(each)
        finally:
            del self._open[task]
            for each in writers:
                each.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, limited: bool
    ) -> None:
        passed = 0
        while data := await reader.read(READ):
            arrived = time.monotonic()
            while self.toxics.blackhole:
                await asyncio.sleep(0.01)
            await asyncio.sleep(max(0, arrived + self.toxics.latency - time.monotonic()))
            passed += len(data)
            most = self.toxics.reset_after
            if limited and most is not None and passed >= most:
                await self._write(writer, data[: len(data) - (passed - most)])
                raise ConnectionResetError("as the toxic says")
            await self._write(writer, data)
        if writer.can_write_eof():
            writer.write_eof()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """In slices and at the speed that hold at that time."""
        while data:
            toxics = self.toxics
            size = min(len(data), toxics.slice or READ, max(1, (toxics.bandwidth or READ * 100) // 100))
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            if toxics.bandwidth:
                await asyncio.sleep(size / toxics.bandwidth)
            elif toxics.slice:
                await asyncio.sleep(0)
