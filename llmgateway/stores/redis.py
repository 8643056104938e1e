"""State on Redis: cached key documents and the word of changes, shared by all workers and replicas.

The only module that knows the Redis driver. What callers ask is gathered into batches (`gather.py`), so a
cancelled caller never touches a connection. Every name begins with one hash tag, so a script may use several
keys of a Redis Cluster.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from importlib import resources
from typing import Any, NamedTuple

import msgspec
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change, Document
from llmgateway.stores.alongside import alongside
from llmgateway.stores.breaker import Breaker, reason_of
from llmgateway.stores.gather import Gatherer
from llmgateway.stores.patience import Patience
from llmgateway.stores.untold import EVERYTHING, Untold

log = logging.getLogger(__name__)

LANES = 4  # batches under way at once, each on a connection of its own
HOLD = 10.0  # seconds; see `_CACHE`. Longer than a document takes from the database to the cache
SCAN_COUNT = 1000
FEED_PAUSE = 0.05  # seconds; keeps a server that hangs up at once from being dialled in a tight loop
KEYS, HELD, CHANGES = "{lgw}:key:", "{lgw}:keys-held", "{lgw}:changes"

# A reader may have taken a key from the database before it was revoked and bring it here after that. So a
# change leaves an empty value behind for a while (HELD: for all keys), over which nothing is cached.
_CACHE = """
if redis.call('GET', KEYS[1]) == '' or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

Command = tuple[str | bytes | int, ...]


class Foreign(StoreUnavailable):
    """A reply that belongs to another question."""

    def __init__(self) -> None:
        super().__init__("Redis gave the answer to another question.", retry_after=1)


class _NoScript(StoreUnavailable):
    """The server has forgotten its scripts."""

    def __init__(self) -> None:
        super().__init__("Redis does not know the script.", retry_after=1)


class Script(NamedTuple):
    """Lua, and the name that the server gives to it."""

    source: str
    sha: str

    @classmethod
    def named(cls, name: str) -> "Script":
        """One of `lua/`."""
        source = resources.files("llmgateway.stores").joinpath("lua", f"{name}.lua").read_text()
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class _Call(NamedTuple):
    """Commands, sent in this order. `read` takes the last reply, raises `Foreign` if it is not theirs."""

    commands: tuple[Command, ...]
    read: Callable[[Any], Any]


class RedisState:
    """`open_redis` makes it and keeps its lanes running. `strangers`: how often a reply was another's."""

    name = "redis"

    def __init__(self, pool: ConnectionPool, timeout: float, hold: float) -> None:
        self._pool = pool  # makes connections from the URL; which of them are in use is known here
        self._timeout = timeout
        self._hold_ms = int(hold * 1000)
        self._unused: list[Connection] = []
        self._breaker = Breaker("Redis", log)
        self.strangers = 0
        self._calls: Gatherer[_Call, Any] = Gatherer(self._carry)
        self._untold = Untold(self._tell)

    def is_healthy(self) -> bool:
        return self._breaker.is_closed

    @property
    def timeout(self) -> float:
        """Of a call, in seconds."""
        return self._timeout

    async def ping(self) -> None:
        await self.ask(("PING",), read=_pong)

    async def cached_key(self, id: str) -> Document | None:
        def own(reply: bytes | None) -> Document | None:
            return _document(reply, id) if reply else None

        try:
            found: Document | None = await self.ask(("GET", KEYS + id), read=own)
        except Foreign:
            await self.ask(("UNLINK", KEYS + id))  # if it is what is stored there, it must not stay
            raise
        return found

    async def cache_key(self, document: Document, seconds: float) -> None:
        key, life_ms = KEYS + document["id"], max(1, int(seconds * 1000))
        await self.ask(("EVAL", _CACHE, 2, key, HELD, msgspec.msgpack.encode(document), life_ms))

    @property
    def untold(self) -> int:
        return len(self._untold)

    async def announce(self, change: Change) -> None:
        try:
            await self._tell(change)
        except StoreUnavailable:
            self._untold.keep(change)
            raise

    async def retell(self) -> None:
        await self._untold.run(self.available)

    async def _tell(self, change: Change) -> None:
        tell: Command = ("PUBLISH", CHANGES, msgspec.json.encode(change))
        if change.topic == "keys" and change.id is not None:
            await self.ask(("SET", KEYS + change.id, b"", "PX", self._hold_ms), tell)
            return
        if change.topic in ("keys", "*"):
            await self._forget_all_keys()
        await self.ask(tell)

    async def changes(self) -> AsyncGenerator[Change, None]:
        async with aclosing(self.messages(CHANGES)) as messages:
            async for message in messages:
                yield EVERYTHING if message is None else _change(message)

    async def messages(self, channel: str) -> AsyncGenerator[bytes | None, None]:
        """What is published there from now on, for ever; None at the beginning and after a gap."""
        while True:
            await self._breaker.closed()
            feed = _Feed(_new_connection(self._pool), self._timeout, channel)
            try:
                if await self._is_open(feed):
                    yield None
                    while (message := await feed.next()) is not None:
                        yield message
            finally:
                await feed.close()
            await asyncio.sleep(FEED_PAUSE)

    async def available(self) -> None:
        """Returns when the server answers, as far as is known."""
        await self._breaker.closed()

    async def watch(self) -> None:
        await self._breaker.watch(self._probe)

    async def lane(self) -> None:
        await self._calls.lane()

    async def close(self) -> None:
        self._calls.close()
        for connection in self._unused:
            await connection.disconnect(nowait=True)

    async def ask(self, *commands: Command, read: Callable[[Any], Any] = lambda reply: reply) -> Any:
        """Sends the commands in this order; gives what `read` makes of the last one's reply."""
        self._breaker.check()
        return await self._calls.ask(_Call(commands, read))

    async def run(self, script: Script, keys: Sequence[str], arg: bytes, read: Callable[[Any], Any]) -> Any:
        """As `ask`, for a script."""
        call: Command = ("EVALSHA", script.sha, len(keys), *keys, arg)
        try:
            return await self.ask(call, read=read)
        except _NoScript:
            return await self.ask(("SCRIPT", "LOAD", script.source), call, read=read)

    async def _forget_all_keys(self) -> None:
        await self.ask(("SET", HELD, b"", "PX", self._hold_ms))
        cursor: str | bytes = "0"
        while True:
            cursor, names = await self.ask(("SCAN", cursor, "MATCH", KEYS + "*", "COUNT", SCAN_COUNT))
            if names:
                await self.ask(("UNLINK", *names))
            if cursor == b"0":
                return

    async def _is_open(self, feed: "_Feed") -> bool:
        try:
            began = self._breaker.check()
        except StoreUnavailable:
            return False
        try:
            await feed.open()
        except (RedisError, OSError) as error:
            self._breaker.failed(error, began)
            return False
        return True

    async def _probe(self) -> None:
        """Asks on a new connection, past the breaker."""
        connection = _new_connection(self._pool)
        try:
            async with Patience(self._timeout):
                await _ready(connection)
                _pong((await _exchange(connection, [("PING",)]))[0])
        except (RedisError, OSError) as error:
            raise StoreUnavailable("Redis does not answer.") from error
        finally:
            await connection.disconnect(nowait=True)

    async def _carry(self, calls: Sequence[_Call]) -> Sequence[Any]:
        began = self._breaker.check()
        connection = self._unused.pop() if self._unused else _new_connection(self._pool)
        try:
            async with Patience(self._timeout):
                await _ready(connection)
                commands = [command for call in calls for command in call.commands]
                replies = iter(await _exchange(connection, commands))
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, RedisError | OSError):
                raise self._breaker.failed(error, began) from error
            raise
        answers = [_answer(call, replies) for call in calls]
        self.strangers += any(isinstance(answer, Foreign) for answer in answers)
        if any(isinstance(answer, Foreign | ReadOnlyError) for answer in answers):
            await connection.disconnect(nowait=True)
        else:
            self._unused.append(connection)
        return _without_strangers(answers)


class _Feed:
    """The subscription, on a connection of its own."""

    def __init__(self, connection: Connection, timeout: float, channel: str) -> None:
        self._connection = connection
        self._timeout = timeout
        self._channel = channel

    async def open(self) -> None:
        async with Patience(self._timeout):
            await _ready(self._connection)
            await self._connection.send_command("SUBSCRIBE", self._channel)
            await self._connection.read_response()

    async def next(self) -> bytes | None:
        """The next message; None when the connection broke, or stayed silent though the server was asked."""
        was_asked = False
        try:
            while True:
                reply = await self._connection.read_response(timeout=self._timeout)
                if reply is None and was_asked:
                    return None
                if reply is None:
                    await self._connection.send_command("PING", check_health=False)
                elif reply[0] == b"message":
                    message: bytes = reply[2]
                    return message
                was_asked = reply is None
        except (RedisError, OSError):
            return None

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)


@asynccontextmanager
async def open_redis(url: str, timeout: float, *,  # noqa: ASYNC109 - not of this call, of those to come
                     hold: float = HOLD) -> AsyncIterator[RedisState]:  # fmt: skip
    """`timeout` bounds every call, in seconds. Redis may be absent, now and later. Raises ValueError for a
    URL that is not Redis's."""
    # No timeout of the driver's for each read: a batch has one as a whole, which costs a third less. RESP 2:
    # what a subscriber gets are plain replies, and nothing is negotiated on connecting.
    ours = {
        "socket_timeout": None, "socket_connect_timeout": timeout, "retry": Retry(NoBackoff(), 0),
        "protocol": 2, "client_name": "llmgateway", "decode_responses": False,
    }  # fmt: skip
    pool = ConnectionPool.from_url(url, **ours)
    pool.connection_kwargs.update(ours)  # over what the URL's query may say
    state = RedisState(pool, timeout, hold)
    try:
        async with alongside(state.watch, state.retell, *[state.lane] * LANES):
            yield state
    finally:
        await state.close()


def _new_connection(pool: ConnectionPool) -> Connection:
    connection: Connection = pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


async def _ready(connection: Connection) -> None:
    """Connects, anew when the server has hung up meanwhile or something unasked lies in the buffer."""
    if connection.is_connected and await connection.can_read():
        await connection.disconnect(nowait=True)
    if not connection.is_connected:
        await connection.connect()  # type: ignore[no-untyped-call]


async def _exchange(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    """One reply for each command, in order; a refusal takes the place of its reply."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as refusal:
            replies.append(refusal)
    return replies


def _answer(call: _Call, replies: "Iterable[Any]") -> Any:
    """What a call's replies say, or the exception that they amount to."""
    own = [reply for _, reply in zip(call.commands, replies, strict=False)]
    for reply in own:
        if isinstance(reply, ResponseError):
            return reply
    try:
        return call.read(own[-1])
    except Foreign as foreign:
        return foreign


def _without_strangers(answers: list[Any]) -> list[Any]:
    """Refusals as our own errors; and where one reply was foreign, none of the others is to be trusted."""
    if any(isinstance(answer, Foreign) for answer in answers):
        log.error("Redis gave a reply that belongs to another question; the connection was dropped")
        return [one if isinstance(one, Foreign) else _refused("mixed-up replies") for one in answers]
    return [_refusal(one) if isinstance(one, ResponseError) else one for one in answers]


def _refusal(error: ResponseError) -> StoreUnavailable:
    return _NoScript() if isinstance(error, NoScriptError) else _refused(reason_of(error))


def _refused(reason: str) -> StoreUnavailable:
    error = StoreUnavailable("Redis did not do what it was asked.", retry_after=1)
    error.add_note(reason)
    return error


def _document(reply: bytes, id: str) -> Document:
    try:
        document = msgspec.msgpack.decode(reply, type=dict[str, Any])
    except msgspec.DecodeError:
        raise Foreign from None
    if document.get("id") != id:
        raise Foreign
    return document


def _pong(reply: Any) -> None:
    if reply != b"PONG":
        raise Foreign


def _change(message: bytes) -> Change:
    """A message that cannot be read may be from a newer version, about anything."""
    try:
        return msgspec.json.decode(message, type=Change)
    except msgspec.DecodeError:
        return EVERYTHING
