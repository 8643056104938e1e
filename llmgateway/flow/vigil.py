"""What is looked after while a call waits: has the caller hung up, has it been silent too long, how far has
it come.

A call that is over within a tenth of a second is never looked at, and costs nothing here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol, Self

from llmgateway.domain.call import Record
from llmgateway.domain.catalog import Model
from llmgateway.domain.endpoints import SSE
from llmgateway.domain.errors import ClientGone, GatewayError
from llmgateway.domain.live import OpenCall
from llmgateway.domain.ports import Caller
from llmgateway.domain.sweep import PERIOD, Sweep
from llmgateway.wire.sse import KEEPALIVE

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
STREAM_HEADERS = (
    (b"content-type", SSE + b"; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Advancing(Protocol):
    """Told now and then that the call has come further: its open line in the ledger, its place."""

    def advance(self) -> None: ...


class Speaking(Protocol):
    """Knows what may be said while the upstream is silent."""

    @property
    def pulse(self) -> bytes: ...


class Tasks(Protocol):
    """A task group that outlives the call."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...


class Vigil:
    """One call's watch. `interruption` is why the call was ended from outside, None while it was not;
    `record` is its line of the ledger, None while it waits to be let in. `waited` is in seconds: how long it
    stood in its model's queue."""

    __slots__ = (
        "_caller", "_drains", "_silent_since", "_streams", "_task", "_watch", "_watchers", "_writes",
        "caller_left", "due", "followers", "interruption", "line", "model", "record", "waited",
    )  # fmt: skip

    def __init__(self, watch: "Watch", caller: Caller, model: Model, *, streams: bool) -> None:
        self._watch = watch
        self._caller = caller
        self._drains = model.on_hangup == "drain"
        self._streams = streams
        self._task: asyncio.Task[Any] | None = None
        self._writes = 0
        self._silent_since = caller.arrived
        self._watchers: tuple[asyncio.Task[None], ...] = ()
        self.due = caller.arrived + PERIOD
        self.interruption: GatewayError | None = None
        self.caller_left = False
        self.followers: list[Advancing] = []
        self.line: Speaking | None = None
        self.model = model.id
        self.record: Record | None = None
        self.waited = 0.0

    def __enter__(self) -> Self:
        self._task = asyncio.current_task(self._watch.loop)
        self._watch.calls.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._watch.calls.discard(self)
        self.followers.clear()  # no cycle: what a call leaves behind is freed at once, not by the collector
        self.line = None
        for watcher in self._watchers:
            watcher.cancel()
        task, self._task = self._task, None
        if task is not None and self.interruption is not None and isinstance(error, asyncio.CancelledError):
            task.uncancel()
            raise self.interruption from None

    def told(self) -> OpenCall:
        """How it is now, for operators to see."""
        caller, record = self._caller, self.record
        if record is None:
            return OpenCall(
                id=caller.id, at=caller.at, model=self.model, stream=self._streams, state="waiting"
            )
        return OpenCall(
            id=caller.id, at=caller.at, model=record.model, stream=self._streams, state="open",
            user=record.user, key=record.key_id, project=record.project, endpoint=record.endpoint,
            replica=record.target.replica if record.target else None, tokens=record.tokens.completion,
        )  # fmt: skip

    def now(self) -> float:
        return self._watch.loop.time()

    def interrupt(self, reason: GatewayError) -> None:
        """Ends the call where it waits; its blocks are left, and the caller of the gateway gets `reason`."""
        if self.interruption is None and self._task is not None:
            self.interruption = reason
            self._task.cancel()

    def expire(self, now: float) -> None:
        if not self._watchers:
            self._look_after(self._notice_hang_up())
        if self._caller.writes != self._writes:
            self._writes = self._caller.writes
            self._silent_since = now
            for follower in self.followers:
                follower.advance()
        elif self._streams and now - self._silent_since >= self._watch.keepalive:
            self._silent_since = now
            self._say_something()
        self.due = now + min(LOOK_SECONDS, max(PERIOD, self._silent_since + self._watch.keepalive - now))

    def _say_something(self) -> None:
        pulse = KEEPALIVE if self.line is None else self.line.pulse
        if not pulse:
            return
        if not self._caller.started:
            self._caller.start(200, STREAM_HEADERS)
        rest = self._caller.write(pulse)
        self._writes = self._caller.writes
        if rest is not None:
            self._look_after(_finish(rest))

    async def _notice_hang_up(self) -> None:
        await self._caller.gone()
        self.caller_left = True
        if not self._drains or self.record is None:  # in the queue of a model nothing is billed yet
            self.interrupt(ClientGone("The client closed the connection."))

    def _look_after(self, work: Coroutine[Any, Any, None]) -> None:
        self._watchers += (self._watch.tasks.create_task(_logged(work)),)


class Watch:
    """All calls that are in flight, and what they are watched with. `keepalive` is in seconds."""

    def __init__(self, tasks: Tasks, *, keepalive: float) -> None:
        self.tasks = tasks
        self.keepalive = keepalive
        self.loop = asyncio.get_running_loop()
        self.calls = Sweep[Vigil]()

    def __call__(self, caller: Caller, model: Model, *, streams: bool) -> Vigil:
        return Vigil(self, caller, model, streams=streams)

    def interrupt_all(self, reason: GatewayError) -> None:
        for vigil in list(self.calls):
            vigil.interrupt(reason)


async def _finish(rest: Awaitable[None]) -> None:
    await rest


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    """A watcher's own failure must not end the group that it lives in."""
    try:
        await work
    except Exception:
        log.exception("a watcher failed")
