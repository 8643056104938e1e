"""Step 4: a call's line in the ledger: opened before the first byte goes upstream, closed exactly once,
however it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, Self

import msgspec

from llmgateway.domain.call import NO_TOKENS, Ask, Attempt, Outcome, Record, TargetRef, Tokens, UsageSource
from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.domain.errors import (
    ClientGone,
    GatewayError,
    LedgerUnavailable,
    ShuttingDown,
    UpstreamError,
    UpstreamTimeout,
)
from llmgateway.domain.estimate import tokens_in
from llmgateway.domain.keys import Principal
from llmgateway.domain.ports import Caller, Clock, Evidence, Journal
from llmgateway.domain.pricing import FREE, cost_of
from llmgateway.flow.count import Count
from llmgateway.flow.vigil import Vigil
from llmgateway.wire.sse import KEEPALIVE

StatusOf = Callable[[GatewayError], int]
Sink = Callable[[Record], None]

COUNT_SECONDS = 5.0  # for asking a tokeniser at the end of a call that reported no usage
CLIENT_CLOSED = 499  # in records only
MOST_NAMES = 4096


class Charged(Protocol):
    """Whoever holds what the call reserved: it is charged with what the record says in the end."""

    record: Record | None


class Line:
    """The open line. `evidence` is what the answer says; None until a target has answered with success."""

    __slots__ = (
        "_account", "_ask", "_caller", "_model", "_record", "_sent_at", "_target", "_vigil", "answered_at",
        "ended_at", "evidence",
    )  # fmt: skip

    def __init__(
        self, account: "Account", caller: Caller, ask: Ask, model: Model, record: Record, vigil: Vigil
    ) -> None:
        self._account = account
        self._caller = caller
        self._ask = ask
        self._model = model
        self._record = record
        self._vigil = vigil
        self._target: Target | None = None
        self._sent_at = 0.0
        self.answered_at = 0.0
        self.ended_at = 0.0
        self.evidence: Evidence | None = None

    async def __aenter__(self) -> Self:
        self._price(Tokens(tokens_in(len(self._ask.body))), "estimated")  # what it costs if the process dies
        try:
            self._account.journal.reserve(self._record)
        except LedgerUnavailable:
            self._price(NO_TOKENS, "none")  # limits are charged with what the record says
            raise
        self._vigil.followers.append(self)
        self._vigil.line = self
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if self._record.outcome is None:
            cause = self._vigil.interruption or error
            await self._close(
                _outcome_of(cause),
                self._status_of(cause),
                asks=not isinstance(cause, ShuttingDown | asyncio.CancelledError),
            )

    # --- what the relay notes down ---

    def goes_to(self, target: Target, at: float) -> None:
        """A try at a target begins; what an earlier one said does not count."""
        self._target = target
        self.evidence = None
        self._record.target = self._account.name_of(target)
        if not self._sent_at:
            self._sent_at = at

    def tried(self, target: Target, status: int, reason: str, seconds: float) -> None:
        self._record.attempts.append(Attempt(target.replica, status, reason, round(seconds * 1000)))

    def advance(self) -> None:
        """A long stream's progress: what it would be closed with if the process died now."""
        evidence = self.evidence
        if evidence is not None and self._record.outcome is None:
            so_far = Tokens(tokens_in(len(self._ask.body)), tokens_in(evidence.said))
            self._price(evidence.tokens or so_far, "estimated")
            self._account.journal.progress([self._record])

    @property
    def pulse(self) -> bytes:
        return KEEPALIVE if self.evidence is None else self.evidence.pulse

    # --- closing ---

    def settle(self) -> Awaitable[None]:
        """The call is complete: nothing but its last bytes is left to send."""
        return self._close("client_gone" if self._vigil.caller_left else "completed", 200, asks=True)

    async def _close(self, outcome: Outcome, status: int, *, asks: bool) -> None:
        evidence = self.evidence
        try:
            if evidence is None:
                self._price(NO_TOKENS, "none")
            elif (tokens := evidence.tokens) is not None:
                self._price(tokens, "upstream")
            else:
                await self._count(evidence, asks=asks)
        finally:
            self._write_down(outcome, status)

    async def _count(self, evidence: Evidence, *, asks: bool) -> None:
        """What the upstream did not say: a tokeniser's count if one can be asked, else an estimate."""
        if not ENDPOINTS[self._ask.endpoint].has_tokens:
            self._price(NO_TOKENS, "none")
            self._record.cost = cost_of(NO_TOKENS, self._model.price)  # an answer has its price, too
            return
        text = evidence.text()
        self._price(Tokens(tokens_in(len(self._ask.body)), tokens_in(len(text.encode()))), "estimated")
        if not asks or self._target is None:
            return
        try:
            await self._ask_tokeniser(self._target, text)
        except asyncio.CancelledError:
            if isinstance(self._vigil.interruption, ClientGone):  # nobody waits any more, but the bill is due
                await self._ask_tokeniser(self._target, text)
            raise

    async def _ask_tokeniser(self, target: Target, text: str) -> None:
        count = self._account.count
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                prompt = await count.chat(target, msgspec.json.decode(self._ask.body))
                completion = await count.text(target, text) if text else 0
        except (UpstreamError, TimeoutError, msgspec.DecodeError):
            return
        self._price(Tokens(prompt, completion), "counted")

    def _price(self, tokens: Tokens, source: UsageSource) -> None:
        record, price = self._record, self._model.price
        record.tokens = tokens
        record.usage_source = source
        record.cost = 0 if price is FREE or source == "none" else cost_of(tokens, price)

    def _write_down(self, outcome: Outcome, status: int) -> None:
        record, arrived, clock = self._record, self._caller.arrived, self._account.clock
        now = clock.monotonic()
        record.outcome = outcome
        record.status = status
        record.ended_at = clock.now()
        record.duration_ms = int((now - arrived) * 1000)
        if record.stream and self.answered_at:
            record.ttft_ms = int((self.answered_at - arrived) * 1000)
        spent = (self._sent_at or now) - arrived + now - (self.ended_at or now)
        record.overhead_us = max(0, int((spent - self._vigil.waited) * 1_000_000))  # a queue is the model's
        self._account.journal.settle(record)
        for sink in self._account.sinks:
            sink(record)

    def _status_of(self, error: BaseException | None) -> int:
        if self._caller.started:
            return 200
        if isinstance(error, ClientGone | asyncio.CancelledError):
            return CLIENT_CLOSED
        return self._account.status_of(error) if isinstance(error, GatewayError) else 500


class Account:
    """Opens lines. `sinks` get every closed record, at once and in order; they must not wait."""

    def __init__(
        self,
        journal: Journal,
        count: Count,
        clock: Clock,
        *,
        status_of: StatusOf,
        sinks: tuple[Sink, ...] = (),
    ) -> None:
        self.journal = journal
        self.count = count
        self.clock = clock
        self.status_of = status_of
        self.sinks = sinks
        self._names: dict[str, TargetRef] = {}

    def __call__(
        self, caller: Caller, ask: Ask, principal: Principal, model: Model, vigil: Vigil, permit: Charged
    ) -> Line:
        permit.record = vigil.record = record = Record(
            id=caller.id,
            request_id=caller.request_id,
            at=caller.at,
            key_id=principal.key_id,
            user=principal.user,
            project=principal.project,
            endpoint=ask.endpoint,
            stream=ask.stream,
            client=caller.info,
            model=ask.model,
            price_id=model.price.id,
        )
        return Line(self, caller, ask, model, record, vigil)

    def name_of(self, target: Target) -> TargetRef:
        """The catalogue holds each target once, so its name in records is made once, too."""
        name = self._names.get(target.url)
        if name is None or name.model != target.model:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            name = self._names[target.url] = TargetRef(target.provider, target.model, target.replica)
        return name


def _outcome_of(error: BaseException | None) -> Outcome:
    if isinstance(error, ClientGone):
        return "client_gone"
    if isinstance(error, UpstreamTimeout):
        return "timeout"
    if isinstance(error, ShuttingDown | asyncio.CancelledError):
        return "shutdown"
    return "upstream_error"
