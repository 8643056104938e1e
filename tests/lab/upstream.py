"""The scripted upstream: a model server on raw sockets whose behaviour is chosen by the model's name.

It serves `/<model>/v1/...`, `/<model>/extras/tokenize/count` and `/<model>/tokenize`, and keeps a ledger.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from typing_extensions import override

from tests.lab.behaviours import TOKENIZERS, behaviour_of, count_words, list_models
from tests.lab.exchange import Call, Exchange, read_call, reset
from tests.lab.telling import Behaviour
from tests.lab.waiting import eventually

LARGEST_HEAD = 1 << 20


class _Watched(asyncio.StreamReaderProtocol):
    """A stream that tells at once when the peer has closed, also while nobody reads."""

    def __init__(
        self,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        on_gone: Callable[[asyncio.BaseTransport], None],
    ) -> None:
        super().__init__(asyncio.StreamReader(limit=LARGEST_HEAD), serve)
        self._on_gone = on_gone

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = transport
        super().connection_made(transport)

    @override
    def eof_received(self) -> bool | None:
        self._on_gone(self._connection)
        return super().eof_received()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._on_gone(self._connection)
        super().connection_lost(exc)


class ScriptedUpstream:
    """`calls` are the requests to models, `counts` those to tokenisers, `probes` those that only look what is
    there, each in the order of arrival."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.host = host
        self.calls: list[Call] = []
        self.counts: list[Call] = []
        self.probes: list[Call] = []
        self.accepted_connections = 0
        self.closed_connections = 0
        self.port = port
        self._scripts: dict[str, Behaviour] = {}
        self._tokenizers: dict[str, Behaviour] = {}
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._open: dict[asyncio.BaseTransport, tuple[asyncio.Task[None], asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(self._connection, self.host, self.port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        left = list(self._open.values())
        for task, writer in left:
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*(task for task, _ in left), return_exceptions=True)
        await self._server.wait_closed()

    # --- what a test says to it

    @property
    def url(self) -> str:
        """What `LLM_DEFAULT_URL` is set to."""
        return f"http://{self.host}:{self.port}"

    def base_url(self, model: str) -> str:
        return f"{self.url}/{model}/v1"

    def script(self, model: str, behaviour: Behaviour) -> None:
        """Makes a model behave as a function says; `breaking.raw` and `breaking.body` make some."""
        self._scripts[model] = behaviour

    def tokenizer(self, model: str, behaviour: str | Behaviour) -> None:
        """Makes a model's tokeniser behave as a function, or a name of `TOKENIZERS`, says."""
        self._tokenizers[model] = TOKENIZERS[behaviour] if isinstance(behaviour, str) else behaviour

    def release(self, model: str) -> None:
        """Lets a held model go on, now and from now on; may be called from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._gates[model].set())

    # --- what a test asks it

    @property
    def open_connections(self) -> int:
        return self.accepted_connections - self.closed_connections

    def call_with(self, request_id: str) -> Call:
        return next(call for call in self.calls if call.request_id == request_id)

    async def seen(self, count: int, seconds: float = 5) -> list[Call]:
        """Waits until so many requests to models have arrived."""
        await eventually(lambda: len(self.calls) >= count, f"{count} requests arrived", seconds)
        return self.calls

    async def held(self, count: int, seconds: float = 5) -> None:
        """Waits until so many requests are held."""
        await eventually(lambda: sum(call.held for call in self.calls) >= count, f"{count} held", seconds)

    async def ended(self, count: int, seconds: float = 5) -> list[Call]:
        """Waits until so many requests to models have ended, in any way."""
        ended = await eventually(lambda: _at_least(count, self.calls), f"{count} requests ended", seconds)
        return ended or []

    async def closed(self, count: int, seconds: float = 5) -> None:
        """Waits until so many connections were closed."""
        await eventually(lambda: self.closed_connections >= count, f"{count} connections closed", seconds)

    # --- serving

    def _connection(self) -> _Watched:
        return _Watched(self._serve, self._gone)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[writer.transport] = task, writer
        self.accepted_connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass  # the peer has gone, or the test is over
        except Exception:
            reset(writer)
            raise
        finally:
            del self._open[writer.transport]
            self.closed_connections += 1
            writer.close()

    def _gone(self, connection: asyncio.BaseTransport) -> None:
        if found := self._open.get(connection):
            found[0].cancel()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Reads and answers one request; whether the connection can be used again."""
        call = await read_call(reader, len(self.calls) + len(self.counts) + len(self.probes) + 1)
        self._ledger_of(call).append(call)
        exchange = Exchange(call, writer, self._gates[call.model])
        try:
            await self._behaviour(call)(exchange)
        except (asyncio.CancelledError, ConnectionError):
            if call.ending == "open":
                call.ending = "peer_gone"
            raise
        finally:
            call.held = False
            if call.ending == "open":
                call.ending = "broken"
        return exchange.reusable

    def _ledger_of(self, call: Call) -> list[Call]:
        if call.is_counting:
            return self.counts
        return self.probes if call.method == "GET" else self.calls

    def _behaviour(self, call: Call) -> Behaviour:
        if call.is_counting:
            return self._tokenizers.get(call.model, count_words)
        if call.method == "GET":
            return list_models
        if call.model not in self._scripts:
            self._scripts[call.model] = behaviour_of(call.model)
        return self._scripts[call.model]


def _at_least(count: int, calls: list[Call]) -> list[Call] | None:
    ended = [call for call in calls if call.ending != "open"]
    return ended if len(ended) >= count else None
