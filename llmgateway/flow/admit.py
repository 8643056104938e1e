"""Step 3: a call is let in when it asks for no more than its model gives, when its limits allow it, and when
there is room; where the model is full it waits for its turn."""

import asyncio
from typing import Self

from llmgateway.domain.admission import Limiter, Places, Turn
from llmgateway.domain.book import LimitBook
from llmgateway.domain.call import NO_TOKENS, Ask, Record, Tokens
from llmgateway.domain.catalog import Model
from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.domain.entries import MOST_COUNTED
from llmgateway.domain.errors import InvalidRequest, OverLimit, Overloaded, ShuttingDown
from llmgateway.domain.keys import Principal
from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.domain.periods import Calendar
from llmgateway.domain.ports import Caller
from llmgateway.domain.pricing import FREE, cost_of
from llmgateway.flow.prompts import Prompts
from llmgateway.flow.vigil import Vigil
from llmgateway.wire.jsonhead import output_field

CAPACITY, MEMORY = "capacity", "memory"  # of this process
MAX_WAITING, MAX_WAIT = "max_waiting", "max_wait"  # of a model
REFUSING = (*Limits.__struct_fields__, CAPACITY, MEMORY, MAX_WAITING, MAX_WAIT)
UNSAID_OUTPUT = 4096  # tokens of an answer for which neither the request nor the model names a maximum


class Permit:
    """A place among the calls in flight, what the call may use at most, and its place at the model; leaving
    the block gives all of it back, and what was used stays used. `record` is the ledger's line of the call,
    None while there is none."""

    __slots__ = ("_admit", "_ask", "_caller", "_has_place", "_is_limited", "_model", "_principal", "_scopes",
                 "_target", "_vigil", "record")  # fmt: skip

    def __init__(
        self, admit: "Admit", caller: Caller, ask: Ask, principal: Principal, model: Model, vigil: Vigil
    ) -> None:
        self._admit = admit
        self._caller = caller
        self._ask = ask
        self._principal = principal
        self._model = model
        self._vigil = vigil
        self._target = model.targets[0]
        self._scopes = admit.book.scopes_for(principal, model)
        self._is_limited = self._has_place = False
        self.record: Record | None = None

    async def __aenter__(self) -> Self:
        self._admit.enter()
        if self._scopes or self._model.max_in_flight is not None:
            try:
                await self._reserve()
            except BaseException:
                self._leave()
                raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._leave()

    def advance(self) -> None:
        """A long stream goes on: its user's turn is the later, the more it has had."""
        if self._has_place and self.record is not None:
            self._admit.places.served(self._caller.id, self.record.tokens.completion)

    async def _reserve(self) -> None:
        admit, caller = self._admit, self._caller
        prompt = await self._prompt()
        if self._scopes:
            most = Tokens(prompt, self._longest_answer())
            cost = 0 if self._model.price is FREE else cost_of(most, self._model.price)
            period = admit.calendar.period_of(caller.at)
            tokens = min(most.prompt + most.completion, MOST_COUNTED)
            claim = Claim(caller.id, self._scopes, tokens, min(cost, MOST_COUNTED), period)
            try:
                caller.standings = await admit.limiter.reserve(claim)
            except OverLimit as refusal:
                admit.count_refusal(*(standing.name for standing in refusal.standings[:1]))
                raise
            self._is_limited = True
        if self._model.max_in_flight is not None:
            await self._wait_for_place(self._model.max_in_flight, prompt)
            self._has_place = True
            self._vigil.followers.append(self)

    async def _prompt(self) -> int:
        is_asked = self._model.max_in_flight is not None or any(map(_counts_tokens, self._scopes))
        return await self._admit.prompts(self._ask, self._target) if is_asked else 0

    def _longest_answer(self) -> int:
        ask, model = self._ask, self._model
        if not ENDPOINTS[ask.endpoint].generates:
            return 0
        return (ask.max_output or model.max_output or UNSAID_OUTPUT) * ask.choices * ask.prompts

    async def _wait_for_place(self, most: int, prompt: int) -> None:
        model, principal = self._model, self._principal
        turn = Turn(
            id=self._caller.id,
            model=model.id,
            user=principal.user,
            most=most,
            waiting=4 * most if model.max_waiting is None else model.max_waiting,
            weight=self._admit.book.weight_of(principal),
            prompt=self._admit.book.counted(prompt),
        )
        admit, vigil = self._admit, self._vigil
        began = vigil.now()
        admit.waiting[model.id] = admit.waiting.get(model.id, 0) + 1
        try:
            async with asyncio.timeout(model.max_wait):
                await admit.places.take(turn)
        except Overloaded:
            admit.count_refusal(MAX_WAITING)
            raise
        except TimeoutError:
            admit.count_refusal(MAX_WAIT)
            message = f"The model '{model.id}' stayed busy for {model.max_wait:g} s; please try again soon."
            raise Overloaded(message, retry_after=1) from None
        finally:
            admit.waiting[model.id] -= 1
            vigil.waited = vigil.now() - began

    def _leave(self) -> None:
        admit, record = self._admit, self.record
        tokens = NO_TOKENS if record is None else record.tokens
        if self._has_place:
            admit.places.leave(self._caller.id, tokens.completion)
        if self._is_limited:
            cost = 0 if record is None else record.cost
            admit.limiter.settle(self._caller.id, tokens.prompt + tokens.completion, cost)
        admit.in_flight -= 1


class Admit:
    """Counts the calls in flight in this process. `is_open` turns false when the gateway is draining,
    `is_short` true while memory is. `book` and `calendar` are replaced whole when limits change.
    `waiting` says how many of its calls wait for a place, by model, `refusals` how many were turned away, by
    limit."""

    def __init__(
        self, most: int, limiter: Limiter, places: Places, prompts: Prompts, *, book: LimitBook,
        calendar: Calendar,
    ) -> None:  # fmt: skip
        self._most = most
        self.limiter = limiter
        self.places = places
        self.prompts = prompts
        self.book = book
        self.calendar = calendar
        self.in_flight = 0
        self.is_open = True
        self.is_short = False
        self.waiting: dict[str, int] = {}
        self.refusals = dict.fromkeys(REFUSING, 0)

    def __call__(self, caller: Caller, ask: Ask, principal: Principal, model: Model, vigil: Vigil) -> Permit:
        if ask.choices > model.max_choices:
            raise InvalidRequest(
                f"At most {model.max_choices} choices can be asked of this model at once.", param="n"
            )
        if ask.max_output is not None and model.max_output is not None and ask.max_output > model.max_output:
            raise InvalidRequest(
                f"This model gives at most {model.max_output} tokens; fewer can be asked for.",
                param=output_field(ask.body),
            )
        return Permit(self, caller, ask, principal, model, vigil)

    def enter(self) -> None:
        if not self.is_open:
            raise ShuttingDown("The gateway is shutting down; please try again.", retry_after=1)
        if self.in_flight >= self._most or self.is_short:
            self.count_refusal(MEMORY if self.is_short else CAPACITY)
            raise Overloaded("The gateway is busy; please try again soon.", retry_after=1)
        self.in_flight += 1

    def count_refusal(self, *limits: str) -> None:
        for limit in limits:
            self.refusals[limit] += 1


def _counts_tokens(scope: Scope) -> bool:
    limits = scope.limits
    return (
        limits.tokens_per_minute is not None
        or limits.tokens_per_day is not None
        or limits.tokens_per_month is not None
        or limits.cost_per_month is not None
    )
