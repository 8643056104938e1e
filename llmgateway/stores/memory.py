"""State of a single process: a bounded cache and listeners; it also notices what another process writes.

Where the command line and the server share a file, `changed_elsewhere` says that the other has written, and
everybody forgets what they know.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change, Clock, Document, SystemClock

POLL = 0.5  # seconds
SIZE = 10_000
HOLD = 10.0  # seconds in which what was read before a change is not cached; as for Redis
BACKLOG = 1000  # changes that a listener may be behind; then it is told to forget everything
EVERYTHING = Change("*")

ChangedElsewhere = Callable[[], Awaitable[bool]]


class MemoryState:
    """Keys are kept encoded, so that nobody can change what another will be given."""

    name = "memory"
    untold = 0

    def __init__(self, changed_elsewhere: ChangedElsewhere | None = None, *, clock: Clock | None = None,
                 size: int = SIZE, hold: float = HOLD) -> None:  # fmt: skip
        self._changed_elsewhere = changed_elsewhere
        self._clock = clock or SystemClock()
        self._size = size
        self._hold = hold
        self._keys: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # b"" where a changed one was
        self._all_held_until = 0.0
        self._next_look = 0.0
        self._listeners: list[_Listener] = []

    def is_healthy(self) -> bool:
        return True

    async def ping(self) -> None:
        return None

    async def cached_key(self, id: str) -> Document | None:
        until, encoded = self._keys.get(id, (0.0, b""))
        if not encoded or self._clock.monotonic() >= until:
            return None
        self._keys.move_to_end(id)
        document: Document = msgspec.msgpack.decode(encoded)
        return document

    async def cache_key(self, document: Document, seconds: float) -> None:
        now = self._clock.monotonic()
        until, encoded = self._keys.get(document["id"], (0.0, b""))
        if now < self._all_held_until or (now < until and not encoded):
            return
        self._put(document["id"], now + seconds, msgspec.msgpack.encode(document))

    async def announce(self, change: Change) -> None:
        now = self._clock.monotonic()
        if change.topic == "keys" and change.id is not None:
            self._put(change.id, now + self._hold, b"")
        elif change.topic in ("keys", "*"):
            self._keys.clear()
            self._all_held_until = now + self._hold
        for listener in self._listeners:
            listener.tell(change)

    async def changes(self) -> AsyncGenerator[Change, None]:
        listener = _Listener()
        self._listeners.append(listener)
        try:
            yield EVERYTHING
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(listener.called.wait(), POLL)
                await self._look_elsewhere()
                for change in listener.take():
                    yield change
        finally:
            self._listeners.remove(listener)

    async def _look_elsewhere(self) -> None:
        """At most every POLL, whoever asks: the store answers yes once, and then all listeners are told."""
        now = self._clock.monotonic()
        if self._changed_elsewhere is None or now < self._next_look:
            return
        self._next_look = now + POLL
        with contextlib.suppress(StoreUnavailable):  # it will remember until it is asked again
            if await self._changed_elsewhere():
                await self.announce(EVERYTHING)

    def _put(self, id: str, until: float, encoded: bytes) -> None:
        self._keys[id] = (until, encoded)
        self._keys.move_to_end(id)
        if len(self._keys) > self._size:
            self._keys.popitem(last=False)


class _Listener:
    """What one consumer has not taken yet."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self._waiting: list[Change] = []

    def tell(self, change: Change) -> None:
        if len(self._waiting) >= BACKLOG:
            self._waiting = [EVERYTHING]
        self._waiting.append(change)
        self.called.set()

    def take(self) -> list[Change]:
        waiting, self._waiting = self._waiting, []
        self.called.clear()
        return waiting
