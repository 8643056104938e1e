"""`GET /admin/stream`: what happens now as server-sent events, for as long as somebody reads them."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, get_args

import msgspec
from msgspec import Struct, structs
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from llmgateway.admin.operations import Call, Desk, line_view
from llmgateway.control.moments import now_of, written
from llmgateway.control.plain import plain
from llmgateway.control.reports import record_view
from llmgateway.domain.errors import GatewayError, InvalidRequest, NotAuthenticated, shown
from llmgateway.domain.live import OpenCall
from llmgateway.domain.ports import Clock
from llmgateway.jobs.happenings import (
    Follower,
    Happening,
    Happenings,
    Kind,
    Mark,
    milliseconds_of,
    place_of,
)
from llmgateway.wire.sse import KEEPALIVE

KINDS: Sequence[Kind] = get_args(Kind)
LOOK = 1.0  # seconds between two looks at the time, where nothing happens
SILENCE = 15.0  # seconds, then a comment says that it goes on
ASK_AGAIN = 5.0  # seconds between two looks whether who follows still may
SEND_SECONDS = 30.0  # for a reader who does not read; then the connection is cut
MOST_SHOWN = 500  # open calls of one event, the oldest first
MARK = re.compile(r"(?P<ended>[0-9]{1,15})\.(?P<call>[0-9a-f-]{0,36})\.(?P<line>[0-9]{0,20})")
LAST_SECONDS = 0.5  # for the last words when the gateway ends
HEADERS: Mapping[str, str] = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}


class StreamAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`events` lists kinds with commas between them, all by default. `after` is the `id` of the last event
    that was read, as is the header `Last-Event-ID`, which goes before it."""

    events: str = ""
    after: str | None = None


class StreamEvent(Struct, frozen=True, kw_only=True):
    """An event, by its fields. `open` holds all open calls, as `{calls, total}`, whenever they have changed,
    at most once a second; `call` a record that was added to the ledger, as in `/admin/requests`; `audit` a
    line as in `/admin/audit`; `skipped` how many of these two were left out, null where that is not known.
    `call` and `audit` have an `id` to go on after."""

    event: Kind
    id: str | None
    data: dict[str, Any]


class Over(Exception):
    """Whoever followed is gone, or everything was said."""


class EventStream(Response):
    """`still` raises `NotAuthenticated` when who follows may do so no more. Not sse-starlette's: that ends at
    the signal to stop, and this one shows the drain and ends after it, however slowly it is read."""

    def __init__(
        self, happenings: Happenings, clock: Clock, still: Callable[[], Awaitable[object]],
        kinds: frozenset[str], after: Mark | None,
    ) -> None:  # fmt: skip
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._happenings = happenings
        self._clock = clock
        self._still = still
        self._kinds = kinds
        self._after = after

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(begin)
            await send({"type": "http.response.body", "body": b""})
            return
        with self._happenings.follow() as follower:
            await send(begin)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_until_gone(receive))
                    tasks.create_task(_until_over(follower))
                    await self._tell(follower, send)
            except* Over:
                pass

    async def _tell(self, follower: Follower, send: Send) -> NoReturn:
        told = Told(self._after or Mark(milliseconds_of(now_of(self._clock))), self._kinds)
        await _send(send, KEEPALIVE)  # what is in between passes the head on with it
        said_at = asked_at = self._clock.monotonic()
        while not follower.is_over:
            written_out = told.events(await self._found(follower), follower.line)
            now = self._clock.monotonic()
            if now - asked_at >= ASK_AGAIN:
                if not await self._may_go_on():
                    break
                asked_at = now
            if not written_out and now - said_at >= SILENCE:
                written_out = KEEPALIVE
            if written_out:
                await _send(send, written_out)
                said_at = now
        await send({"type": "http.response.body", "body": b""})
        raise Over

    async def _found(self, follower: Follower) -> list[Happening]:
        """First what was missed, once there was a look: what that has not told is in the store by then."""
        if self._after is None:
            return await follower.next(LOOK)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await follower.has_looked.wait()
        if not follower.has_looked.is_set():
            return []
        after, self._after = self._after, None
        try:
            return await self._happenings.since(after)
        except GatewayError:
            return [Happening("skipped", None)]

    async def _may_go_on(self) -> bool:
        """Where nobody can tell, as before."""
        try:
            await self._still()
        except NotAuthenticated:
            return False
        except GatewayError:
            pass
        return True


class Told:
    """What one reader was told, and as what."""

    def __init__(self, mark: Mark, kinds: frozenset[str]) -> None:
        self.mark = mark
        self._kinds = kinds
        self._calls: dict[str, None] = {}

    def events(self, happenings: Sequence[Happening], line: str) -> bytes:
        if not self.mark.line:
            self.mark = structs.replace(self.mark, line=line)
        return b"".join(self._event(one) for one in happenings)

    def _event(self, happening: Happening) -> bytes:
        """Nothing where it was told before, or is not asked for."""
        kind, value = happening.kind, happening.value
        if kind == "call":
            if value["id"] in self._calls:
                return b""
            self._calls[value["id"]] = None
            if len(self._calls) > 2 * MOST_SHOWN:
                del self._calls[next(iter(self._calls))]
            self._reach(call=place_of(value))
        elif kind == "audit":
            if value["id"] <= self.mark.line:
                return b""
            self._reach(line=value["id"])
        if kind not in self._kinds:
            return b""
        id = b"id: %s\n" % mark_text(self.mark).encode() if kind in ("call", "audit") else b""
        data = msgspec.json.encode(VIEWS[kind](value), enc_hook=plain)
        return b"event: %s\n%sdata: %s\n\n" % (kind.encode(), id, data)

    def _reach(self, *, call: tuple[int, str] | None = None, line: str = "") -> None:
        """A call that is told late does not lead back."""
        ended, last = max((self.mark.ended, self.mark.call), call or (0, ""))
        self.mark = Mark(ended, last, line or self.mark.line)


async def stream(desk: Desk, call: Call, asked: StreamAsk) -> Response:
    kinds = frozenset(name.strip() for name in asked.events.split(",") if name.strip())
    for name in sorted(kinds - {*KINDS}):
        message = f"There are no events '{shown(name)}', only {', '.join(KINDS)}."
        raise InvalidRequest(message, param="events")
    after = call.last_event_id or asked.after
    return EventStream(
        desk.happenings, desk.clock, call.still, kinds or frozenset(KINDS),
        None if after is None else mark_of(after),
    )  # fmt: skip


def mark_text(mark: Mark) -> str:
    return f"{mark.ended}.{mark.call}.{mark.line}"


def mark_of(text: str) -> Mark:
    found = MARK.fullmatch(text)
    if found is None:
        raise InvalidRequest("after is not the id of an event of this stream.", param="after")
    return Mark(int(found["ended"]), found["call"], found["line"])


def _open_view(calls: Sequence[OpenCall]) -> dict[str, Any]:
    shown_calls = [structs.asdict(call) | {"at": written(call.at)} for call in calls[:MOST_SHOWN]]
    return {"calls": shown_calls, "total": len(calls)}


VIEWS: Mapping[Kind, Callable[[Any], dict[str, Any]]] = {
    "open": _open_view,
    "call": record_view,
    "audit": line_view,
    "skipped": lambda number: {"events": number},
}


async def _send(send: Send, data: bytes) -> None:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": data, "more_body": True})
    except TimeoutError:
        raise Over from None


async def _until_gone(receive: Receive) -> NoReturn:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise Over


async def _until_over(follower: Follower) -> NoReturn:
    """A reader who does not read holds up nobody's end."""
    await follower.over.wait()
    await asyncio.sleep(LAST_SECONDS)
    raise Over
