"""A stage for the five steps: everything around them is a double that keeps what it was told."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
from typing_extensions import override

from llmgateway.domain import keys
from llmgateway.domain.admission import Used
from llmgateway.domain.book import LimitBook
from llmgateway.domain.call import Ask, ClientInfo, Record
from llmgateway.domain.catalog import Catalog, Deadlines, Model, Target
from llmgateway.domain.errors import GatewayError, LedgerUnavailable, StoreUnavailable, UpstreamFailed
from llmgateway.domain.keys import Principal
from llmgateway.domain.limits import Scope, Standing
from llmgateway.domain.periods import Calendar, Period
from llmgateway.domain.ports import Document, Documents, Reply, UpstreamRequest
from llmgateway.edge.errors import status_of
from llmgateway.flow.account import Account
from llmgateway.flow.admit import Admit
from llmgateway.flow.authenticate import Authenticate
from llmgateway.flow.count import Count
from llmgateway.flow.gateway import Gateway
from llmgateway.flow.prompts import Prompts
from llmgateway.flow.relay import Relay
from llmgateway.flow.route import Route
from llmgateway.flow.vigil import Watch
from llmgateway.jobs.background import Background
from llmgateway.providers.openai import OpenAI
from llmgateway.stores.limits.memory_limiter import MemoryLimiter
from llmgateway.stores.limits.memory_places import MemoryPlaces
from llmgateway.stores.memory import MemoryState
from llmgateway.upstream.local import LocalReply
from tests.doubles import SetClock

CHAT = "/v1/chat/completions"
PEPPER = b"p" * 32
KEY_ID, TOKEN = keys.mint()
SSE_TYPE = {b"content-type": b"text/event-stream"}
JSON_TYPE = {b"content-type": b"application/json"}
WHOLE = b'{"choices":[{"message":{"content":"Hi you"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
UNCOUNTED = b'{"choices":[{"message":{"content":"Hi you"}}]}'
FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
ALICE: Document = {"id": "alice", "state": "active"}
PRINCIPAL = Principal(KEY_ID, "alice", "thesis", None)


def key_document(**changes: Any) -> Document:
    digest = keys.digest_of(TOKEN.encode(), PEPPER).hex()
    created = SetClock().now()
    document = {
        "id": KEY_ID,
        "digest": digest,
        "hint": "xxxx",
        "user": "alice",
        "name": "n",
        "created_at": created,
    }
    return {**document, **changes}


class Shelf:
    """A store of documents that can be away; counts how often it is asked."""

    def __init__(self, **documents: Document) -> None:
        self.documents = documents
        self.more: dict[str, Document] = {}  # by id
        self.is_away = False
        self.asked = 0
        self.before_answer: Callable[[], None] = lambda: None

    async def get(self, kind: str, id: str) -> Document | None:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("The store is away.")
        found = self.more.get(id, self.documents.get(kind))
        await asyncio.sleep(0)
        self.before_answer()
        return found if found is not None and found["id"] == id else None


class KeptJournal:
    """Keeps copies of what was written, in order."""

    def __init__(self, log: list[str]) -> None:
        self._log = log
        self.is_full = False
        self.settled: list[Record] = []
        self.progressed: list[Record] = []

    def reserve(self, record: Record) -> None:
        if self.is_full:
            raise LedgerUnavailable("full")
        self._log.append("reserve")

    def progress(self, records: Iterable[Record]) -> None:
        self.progressed += [msgspec.structs.replace(record) for record in records]

    def settle(self, record: Record) -> None:
        self._log.append("settle")
        self.settled.append(msgspec.structs.replace(record))


class LoggedReply(LocalReply):
    """Says when it was closed; `stays_silent` never gives another piece."""

    def __init__(
        self,
        log: list[str],
        status: int,
        headers: Mapping[bytes, bytes],
        pieces: Sequence[bytes],
        *,
        stays_silent: bool,
    ) -> None:
        super().__init__(status, headers, pieces)
        self._log = log
        self._stays_silent = stays_silent

    @override
    async def piece(self) -> bytes:
        found = await super().piece()
        if not found and self._stays_silent:
            await asyncio.get_running_loop().create_future()
        return found

    @override
    def close(self) -> None:
        self._log.append("close")
        super().close()


Scripted = (
    GatewayError | Callable[[UpstreamRequest], Reply] | tuple[int, Mapping[bytes, bytes], Sequence[bytes]]
)


class ScriptedUpstream:
    """Answers each request with the next of its script; tokeniser calls come from a script of their own."""

    def __init__(self, log: list[str], *script: Scripted, silent: bool = False) -> None:
        self._log = log
        self.script = list(script)
        self.counts: list[Scripted] = []
        self.requests: list[tuple[Target, UpstreamRequest]] = []
        self.ordered = 0
        self._silent = silent

    def order(self, targets: Sequence[Target]) -> Sequence[Target]:
        self.ordered += 1
        return tuple(reversed(targets))

    async def send(self, target: Target, request: UpstreamRequest, deadlines: Deadlines) -> Reply:
        await asyncio.sleep(0)
        counts = is_count(request)
        script = self.counts if counts else self.script
        self.requests.append((target, request))
        answer = script.pop(0) if script else UpstreamFailed("Nobody is there.", reason="connect")
        if isinstance(answer, GatewayError):
            raise answer
        if callable(answer):
            return answer(request)
        log: list[str] = [] if counts else self._log
        return LoggedReply(log, *answer, stays_silent=self._silent and not counts)


def is_count(request: UpstreamRequest) -> bool:
    return "tokenize" in request.path or "template" in request.path


class ScriptedCaller:
    """A program that asks one thing and keeps what it is told; it hangs up when `leave` is set."""

    def __init__(self, clock: SetClock, log: list[str], ask: Ask, token: str = TOKEN) -> None:
        self._log = log
        self._ask = ask
        self.id = "01a1fb00-0000-7000-8000-000000000000"
        self.request_id = "request"
        self.token = token.encode()
        self.info = ClientInfo("python", "3.52.0", 0)
        self.at = clock.now()
        self.arrived = clock.monotonic()
        self.started = False
        self.standings: Sequence[Standing] = ()
        self.trace = b""
        self.writes = 0
        self.status = 0
        self.told = b""
        self.is_finished = False
        self.leave = asyncio.Event()
        self.is_slow: Awaitable[None] | None = None
        self.on_write: Callable[[], None] = lambda: None

    async def ask(self) -> Ask:
        return self._ask

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.started, self.status = True, status

    def write(self, data: bytes) -> Awaitable[None] | None:
        self.writes += 1
        self.told += data
        self.on_write()
        slow, self.is_slow = self.is_slow, None
        return slow

    async def finish(self, data: bytes) -> None:
        self._log.append("finish")
        self.told += data
        self.is_finished = True

    async def gone(self) -> None:
        await self.leave.wait()


def chat(*, stream: bool = False, **more: Any) -> Ask:
    body = msgspec.json.encode(
        {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    )
    return Ask(**{"endpoint": CHAT, "model": "m", "stream": stream, "body": body, **more})


def model(*urls: str, **more: Any) -> Model:
    targets = tuple(Target(url=url, model="m") for url in urls or ("http://a:1/v1",))
    return Model(**{"id": "m", "targets": targets, **more})


class Stage:
    """The steps as the application puts them together, over doubles. `log` is the order of what happened."""

    def __init__(
        self, background: Background, *script: Scripted, served: Model | None = None, silent: bool = False
    ) -> None:
        self.log: list[str] = []
        self.clock = SetClock()
        self.journal = KeptJournal(self.log)
        self.upstream = ScriptedUpstream(self.log, *script, silent=silent)
        self.shelf = Shelf(keys=key_document(), users=ALICE)
        self.sunk: list[Record] = []
        self.watch = Watch(background, keepalive=5.0)
        self.used = Used()
        self.limiter = MemoryLimiter(self.load_used, clock=self.clock)
        self.places = MemoryPlaces(clock=self.clock)
        count = Count(self.upstream, self.clock.monotonic)
        self.admit = Admit(
            100, self.limiter, self.places, Prompts(count, self.clock.monotonic),
            book=LimitBook(), calendar=Calendar("UTC"),
        )  # fmt: skip
        self.authenticate = Authenticate(
            cast(Documents, self.shelf), MemoryState(clock=self.clock), pepper=PEPPER, clock=self.clock
        )
        self.route = Route(Catalog([served or model()]), self.upstream.order)
        self.account = Account(
            self.journal, count, self.clock, status_of=status_of, sinks=(self.sunk.append,)
        )
        self.gateway = Gateway(
            self.authenticate,
            self.route,
            self.admit,
            self.account,
            Relay(self.upstream, {"openai": OpenAI()}, self.clock),
            self.watch,
        )

    async def load_used(self, scope: Scope, period: Period) -> Used:
        return self.used

    def caller(self, ask: Ask | None = None, token: str = TOKEN) -> ScriptedCaller:
        return ScriptedCaller(self.clock, self.log, ask or chat(), token)

    @property
    def chats(self) -> list[tuple[Target, UpstreamRequest]]:
        """What models were asked, tokenisers left out."""
        return [asked for asked in self.upstream.requests if not is_count(asked[1])]

    @property
    def record(self) -> Record:
        """The one record that there is."""
        (record,) = self.journal.settled
        return record

    def look(self, seconds: float) -> None:
        """Time passes, and the watch looks at its calls."""
        self.clock.pass_seconds(seconds)
        self.watch.calls.turn(self.clock.monotonic())


async def turns(count: int = 20) -> None:
    """Lets everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)
