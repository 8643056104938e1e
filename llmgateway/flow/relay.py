"""Step 5: bytes up, bytes down. The next target is tried only while nothing has been sent to the caller."""

import asyncio
import json
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol, Self

import msgspec
from msgspec.structs import replace

from llmgateway.domain.call import Ask
from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.endpoints import ENDPOINTS, SSE
from llmgateway.domain.errors import (
    ClientGone,
    GatewayError,
    UpstreamError,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from llmgateway.domain.ports import Caller, Clock, Dialect, Evidence, Reply, Sink, Translation, Upstream
from llmgateway.flow.vigil import STREAM_HEADERS

ATTEMPTS = 3
MAX_REFUSAL = 64 * 1024  # bytes of an error's body that are read
MAX_WHOLE = 1024 * 1024  # bytes of an answer that are read before the first of them is passed on
UNCOUNTED_SECONDS = 600.0  # another server may take over an address
CALLER_SECONDS = 60.0  # how long a caller may take to read what is waiting for it
EDGE = 64  # bytes of a piece in which the beginning of a usage may hide
_KEPT_HEADERS = (b"content-type", b"content-disposition", b"openai-processing-ms", b"openai-version")


_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_first_value = json.JSONDecoder().raw_decode


class Notes(Protocol):
    """The ledger's open line, as far as the relay writes in it. Times are of the monotonic clock."""

    answered_at: float
    ended_at: float
    evidence: Evidence | None

    def goes_to(self, target: Target, at: float) -> None: ...

    def tried(self, target: Target, status: int, reason: str, seconds: float) -> None: ...


class Passage:
    """One call's way to a target and back. Entering it finds the target that answers; leaving it closes the
    connection."""

    __slots__ = (
        "_ask", "_began", "_body", "_caller", "_first", "_line", "_model", "_relay", "_reply", "_target",
        "_targets", "_translation", "last",
    )  # fmt: skip

    def __init__(
        self, relay: "Relay", caller: Caller, ask: Ask, model: Model, targets: Sequence[Target], line: Notes
    ) -> None:
        self._relay = relay
        self._caller = caller
        self._ask = ask
        self._model = model
        self._targets = targets
        self._target = targets[0]
        self._began = 0.0
        self._line = line
        self._reply: Reply | None = None
        self._translation: Translation | None = None
        self._first = self._body = b""
        self.last = b""

    async def __aenter__(self) -> Self:
        now, targets = self._relay.clock.monotonic, self._targets
        for number, target in enumerate(targets, 1):
            self._target, self._began = target, now()
            self._line.goes_to(target, self._began)
            try:
                await self._open(target)
            except UpstreamError as error:
                self._break_off(error)
                if (
                    number == len(targets)
                    or number == ATTEMPTS
                    or self._caller.started
                    or not _may_go_elsewhere(error)
                ):
                    raise
            except BaseException as error:
                self._break_off(error)
                raise
            else:
                self._line.answered_at = now()
                return self
        raise AssertionError("a model has at least one target")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if error is None or self._line.ended_at:  # what happens after the answer's end is not this try's
            self._close()
        else:
            self._break_off(error)

    def _break_off(self, error: BaseException) -> None:
        status, seconds = (
            self._reply.status if self._reply else 0,
            self._relay.clock.monotonic() - self._began,
        )
        self._line.tried(self._target, status, _reason(error), seconds)
        self._close()

    def _close(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.close()

    # --- up ---

    async def _open(self, target: Target) -> None:
        self._translation, self._first, self._body = None, b"", b""  # what another target said is forgotten
        dialect = self._relay.dialects[target.provider]
        asks_usage = not self._relay.uncounted or not self._relay.is_uncounted(target)
        self._reply = reply = await self._sent_up(dialect, target, asks_usage=asks_usage)
        if reply.status != 200:
            refusal = await reply.read(MAX_REFUSAL)
            if not asks_usage or not dialect.refuses_usage(reply.status, refusal):
                raise dialect.refusal(reply.status, reply.headers, refusal)
            self._close()
            self._reply = reply = await self._sent_up(dialect, target, asks_usage=False)
            if reply.status != 200:
                raise dialect.refusal(reply.status, reply.headers, await reply.read(MAX_REFUSAL))
            self._relay.note_uncounted(target)
        content_type = reply.headers.get(b"content-type", b"")
        if not ENDPOINTS[self._ask.endpoint].takes(content_type):
            raise UpstreamFailed(
                "The model server answered with something that is no answer to this call.", reason="type"
            )
        if b"content-encoding" in reply.headers and reply.headers[b"content-encoding"] != b"identity":
            raise UpstreamFailed(
                "The model server compressed its answer, which was not asked for.", reason="encoding"
            )
        if self._caller.started and not content_type.startswith(SSE):
            raise UpstreamFailed("The model server did not answer with a stream.", reason="type")
        if content_type.startswith(SSE):
            self._translation = self._line.evidence = dialect.stream(self._ask, target)
            await self._await_first_event(reply, self._translation)
        else:
            self._body = await reply.read(MAX_WHOLE)
            self._line.evidence = dialect.answer(self._body)

    def _sent_up(self, dialect: Dialect, target: Target, *, asks_usage: bool) -> Awaitable[Reply]:
        request = dialect.request(self._ask, target, self._caller.request_id, asks_usage=asks_usage)
        if self._caller.trace:
            request = replace(request, trace=self._caller.trace)
        return self._relay.upstream.send(target, request, self._model.deadlines)

    async def _await_first_event(self, reply: Reply, translation: Translation) -> None:
        """Until there is an event with data, nothing is sent: a server that says 200 and then an error has
        not said 200."""
        while b"data:" not in self._first and not translation.is_done:
            piece = await reply.piece()
            self._first += translation.feed(piece) if piece else translation.end()
            if translation.error is not None and b"data:" not in self._first:
                raise translation.error
            if not piece:
                return

    # --- down ---

    async def deliver(self) -> None:
        """Sends all but the last piece, which is left in `last` for after the ledger's line is closed."""
        reply = self._reply
        assert reply is not None
        if self._translation is not None:
            await self._deliver_stream(reply, self._translation)
        elif len(self._body) > MAX_WHOLE:
            await self._deliver_long(reply)
        else:
            length = (b"content-length", b"%d" % len(self._body))
            self._caller.start(200, [*_kept(reply.headers), length])
            self.last = self._body
        self._line.ended_at = ended_at = self._relay.clock.monotonic()
        self._line.tried(self._target, 200, "ok", ended_at - self._began)

    async def _deliver_long(self, reply: Reply) -> None:
        self._caller.start(200, _kept(reply.headers))
        await self._send(self._body)
        usage = UsageSeeker(self._body)

        def pass_on(data: bytes) -> Awaitable[None] | None:
            usage.feed(data)
            return self._write(data)

        try:
            await reply.pour(pass_on)
        finally:
            said = self._relay.dialects[self._target.provider].answer(usage.object)
            if said.tokens is not None:  # else the words of the beginning are all that is known
                self._line.evidence = said

    async def _deliver_stream(self, reply: Reply, translation: Translation) -> None:
        if not self._caller.started:
            self._caller.start(200, STREAM_HEADERS)
        if self._first:
            await self._send(self._first)
        if translation.error is not None:
            raise translation.error
        if not translation.is_done:
            await reply.pour(self._through(reply, translation))
            rest = translation.end()
            if rest:
                await self._send(rest)
        self.last = translation.last

    def _through(self, reply: Reply, translation: Translation) -> Sink:
        """What runs for every piece, inside the upstream's callback."""

        def pass_on(data: bytes) -> Awaitable[None] | None:
            out = translation.feed(data)
            if translation.is_done:
                reply.enough()
            elif translation.error is not None:
                reply.fail(translation.error)
            return self._write(out) if out else None

        return pass_on

    def _write(self, data: bytes) -> Awaitable[None] | None:
        rest = self._caller.write(data)
        return None if rest is None else _patiently(rest)

    async def _send(self, data: bytes) -> None:
        rest = self._write(data)
        if rest is not None:
            await rest


class Relay:
    """Knows the sockets and the dialects. `uncounted` are the addresses of servers that refuse a stream when
    they are asked for its usage, and until when that is believed: there it is counted afterwards."""

    def __init__(self, upstream: Upstream, dialects: Mapping[str, Dialect], clock: Clock) -> None:
        self.upstream = upstream
        self.dialects = dialects
        self.clock = clock
        self.uncounted: dict[str, float] = {}

    def __call__(
        self, caller: Caller, ask: Ask, model: Model, targets: Sequence[Target], line: Notes
    ) -> Passage:
        return Passage(self, caller, ask, model, targets, line)

    def is_uncounted(self, target: Target) -> bool:
        return self.uncounted.get(target.url, 0.0) > self.clock.monotonic()

    def note_uncounted(self, target: Target) -> None:
        self.uncounted[target.url] = self.clock.monotonic() + UNCOUNTED_SECONDS


class UsageSeeker:
    """Finds the usage of an answer that is too long to be read whole. It need not stand at the end: vLLM puts
    the probabilities of the prompt behind it."""

    SIZE = 16 * 1024

    def __init__(self, data: bytes) -> None:
        self._edge = self._found = b""
        self.feed(data)

    def feed(self, data: bytes) -> None:
        if self._found and len(self._found) < self.SIZE:
            self._found += data[: self.SIZE]
        held = self._edge + data
        for usage in _USAGE.finditer(held):  # the last one counts
            self._found = held[usage.end() - 1 :][: self.SIZE]
        self._edge = held[-EDGE:]

    @property
    def object(self) -> bytes:
        """The `usage` member as an object of its own, to be read like a whole answer."""
        try:
            usage, _ = _first_value(self._found.decode("utf-8", "replace"))
        except ValueError:
            return b"{}"
        return msgspec.json.encode({"usage": usage})


def _kept(headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(name, headers[name]) for name in _KEPT_HEADERS if name in headers]


async def _patiently(rest: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(CALLER_SECONDS):
            await rest
    except TimeoutError:
        raise ClientGone(f"The client took no bytes for {CALLER_SECONDS:g} s.") from None


def _may_go_elsewhere(error: UpstreamError) -> bool:
    if isinstance(error, UpstreamRefused):
        return error.status in (429, 502, 503, 504)
    if isinstance(error, UpstreamTimeout):
        return error.phase in ("pool", "connect")
    return True


def _reason(error: BaseException) -> str:
    if isinstance(error, UpstreamTimeout):
        return f"timeout_{error.phase}"
    if isinstance(error, UpstreamRefused):
        return f"status_{error.status}"
    if isinstance(error, UpstreamFailed):
        return error.reason
    return error.code if isinstance(error, GatewayError) else "interrupted"
