"""The places of full models, on Redis: one queue for all workers and replicas.

A worker says what is new in numbered batches, one after the other, so nothing overtakes anything: a call
that is cancelled while it asks leaves in a later batch than the one it came in. Whenever a batch may have
been lost, or Redis has lost its memory, the next one is whole: it says all that the worker has, and Redis is
put right. Grants to other workers go through their channels; every second a worker asks what became of its
calls that wait.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import NoReturn

from msgspec import Struct
from msgspec.structs import replace

from llmgateway.domain.admission import Queue, Turn
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.stores.alongside import alongside
from llmgateway.stores.limits.memory_places import Granted, MemoryPlaces, overloaded
from llmgateway.stores.limits.places_batch import (
    CHANNEL,
    MODELS,
    Ask,
    OfModel,
    Told,
    keys_of,
    line,
    news,
    packed,
    queue_of,
    told,
)
from llmgateway.stores.redis import Foreign, RedisState, Script

log = logging.getLogger(__name__)

AGAIN = 1.0  # seconds until a Redis is asked again that answers, but not as it should


class Times(Struct, frozen=True):
    """Seconds: between two signs of life; after the last one, until a worker's places are given to others;
    and that a Redis that lost all gives nothing away, until every worker has said what it has. Those need to
    find out that Redis is back."""

    tick: float = 1.0
    lease: float = 60.0
    patience: float = 2.5


USUAL = Times()


class _Call:
    __slots__ = ("granted", "told", "turn")

    def __init__(self, turn: Turn, granted: Granted) -> None:
        self.turn = turn
        self.granted = granted
        self.told = 0

    @property
    def is_in(self) -> bool:
        """It has its place."""
        granted = self.granted
        return granted.done() and not granted.cancelled() and granted.exception() is None


class _News:
    """What has not been said yet of a model, by call."""

    __slots__ = ("leaves", "served", "takes")

    def __init__(self) -> None:
        self.takes: dict[str, Turn] = {}
        self.leaves: dict[str, int] = {}
        self.served: dict[str, int] = {}

    def of(self, name: str, most: int) -> OfModel:
        return OfModel(
            name=name,
            most=most,
            takes=[line(turn, turn.waiting) for turn in self.takes.values()],
            leaves=list(self.leaves.items()),
            served=list(self.served.items()),
        )


class RedisPlaces:
    """`open_places` makes it and keeps it running. While Redis is away each worker gives its share of the
    places by itself."""

    name = "redis"

    def __init__(self, state: RedisState, worker: str, workers: int, times: Times) -> None:
        self._state = state
        self._worker = worker
        self._live = workers
        self._times = times
        self._script = Script.named("places")
        self._calls: dict[str, _Call] = {}
        self._most: dict[str, int] = {}  # of every model that was ever asked for
        self._queues: dict[str, Queue] = {}
        self._news: dict[str, _News] = {}
        self._wake = asyncio.Event()
        self._number = 0
        self._is_whole = True  # the next batch
        self._next_look = 0.0
        self._local: MemoryPlaces | None = None
        self._is_away = False

    def is_healthy(self) -> bool:
        return not self._is_away

    async def take(self, turn: Turn) -> None:
        call = _Call(turn, asyncio.get_running_loop().create_future())
        self._calls[turn.id] = call
        self._most[turn.model] = turn.most
        if self._local is not None:
            self._local.join(self._share(turn), call.granted)
        else:
            self._news_of(turn.model).takes[turn.id] = turn
            self._wake.set()
        try:
            await call.granted
        except BaseException:
            self.leave(turn.id, 0)
            raise

    def served(self, id: str, tokens: int) -> None:
        """Goes with the next batch, a tick from now at the latest."""
        call = self._calls.get(id)
        if call is None or tokens <= call.told:
            return
        call.told = tokens
        if self._local is not None:
            self._local.served(id, tokens)
        else:
            self._news_of(call.turn.model).served[id] = tokens

    def leave(self, id: str, tokens: int) -> None:
        call = self._calls.pop(id, None)
        if call is None:
            return
        if self._local is not None:
            self._local.leave(id, tokens)
            return
        unsaid = self._news_of(call.turn.model)
        unsaid.served.pop(id, None)
        if unsaid.takes.pop(id, None) is None:
            unsaid.leaves[id] = max(tokens, call.told)
        self._wake.set()

    def resize(self, most: Mapping[str, int]) -> None:
        """Without calls here there is nothing to say: whoever has some says it."""
        self._most = {name: most.get(name, before) for name, before in self._most.items()}
        if self._local is not None:
            self._local.resize({name: self._share_of(most) for name, most in self._most.items()})
            return
        for call in self._calls.values():
            self._news_of(call.turn.model)
        self._wake.set()

    def queue(self, model: str) -> Queue:
        if self._local is not None:
            return self._local.queue(model)
        return self._queues.get(model, Queue())

    async def recover(self, worker: str) -> None:
        """Here too, whoever gets a place by it is told through its channel."""
        names: list[bytes] = await self._state.ask(("SMEMBERS", MODELS))
        models = [OfModel(name=name.decode()) for name in names]
        ask = self._ask(worker, models)
        ask.whole = ask.recovers = True
        await self._say(ask)

    # --- what runs beside the calls ---

    async def run(self) -> NoReturn:
        """Says what is new, batch after batch, for ever."""
        while True:
            try:
                await self._batch()
            except StoreUnavailable as error:
                self._fall_back(error)
                if self._state.is_healthy():
                    await asyncio.sleep(AGAIN)
                await self._state.available()
            else:
                await self._something_new()

    async def listen(self) -> None:
        """Hears what other workers' batches bring about here."""
        async with aclosing(self._state.messages(CHANNEL + self._worker)) as messages:
            async for message in messages:
                if message is None:
                    self._next_look = 0.0
                    self._wake.set()
                elif self._local is None:
                    self._heed(*news(message))

    async def _something_new(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_look):
                await self._wake.wait()

    async def _batch(self) -> None:
        self._wake.clear()
        now = asyncio.get_running_loop().time()
        looks = now >= self._next_look
        if not (self._is_whole or looks or self._news):
            return
        models = self._all() if self._is_whole else self._new(looks=looks)
        self._number += 1
        ask = self._ask(self._worker, models)
        ask.whole, ask.looks = self._is_whole, looks
        self._is_whole = True  # until it is known that this one came through
        if looks:
            self._next_look = now + self._times.tick
        reply = await self._say(ask)
        if reply.status != "done":
            self._wake.set()
            return
        self._is_whole = False
        self._came_back()
        self._live = max(1, reply.live)
        for model, queue in zip(models, reply.queues, strict=True):
            self._queues[model.name] = queue_of(*queue)
        self._heed(reply.granted, reply.refused)
        for worker in reply.dead:
            log.warning("nothing was heard of a worker for %g s, its places are given to others: %s",
                        self._times.lease, worker)  # fmt: skip
            await self.recover(worker)

    def _ask(self, worker: str, models: list[OfModel]) -> Ask:
        return Ask(worker=worker, number=self._number, models=models, lease=int(self._times.lease * 1000),
                   patience=int(self._times.patience * 1000))  # fmt: skip

    async def _say(self, ask: Ask) -> Told:
        def own(reply: object) -> Told:
            answer = told(reply)
            if answer is None or answer.number != ask.number:
                raise Foreign
            if answer.status == "done" and len(answer.queues) != len(ask.models):
                raise Foreign
            return answer

        reply: Told = await self._state.run(
            self._script, keys_of(model.name for model in ask.models), packed(ask), own
        )
        return reply

    def _new(self, *, looks: bool) -> list[OfModel]:
        unsaid, self._news = self._news, {}
        models = {name: said.of(name, self._most[name]) for name, said in unsaid.items()}
        if looks:
            self._look(models, unsaid)
        return list(models.values())

    def _look(self, models: dict[str, OfModel], unsaid: Mapping[str, _News]) -> None:
        """Asks for what may have been missed, and how the queues of the models are that are in use here."""
        for call in self._calls.values():
            name = call.turn.model
            model = models.setdefault(name, OfModel(name=name, most=self._most[name]))
            if not call.granted.done() and (name not in unsaid or call.turn.id not in unsaid[name].takes):
                model.waits.append(call.turn.id)
        self._queues.clear()

    def _all(self) -> list[OfModel]:
        """From here on Redis has the say again; what was not said yet is in it."""
        self._local = None
        self._news.clear()
        models = {name: OfModel(name=name, most=most) for name, most in self._most.items()}
        for call in self._calls.values():
            if call.is_in:
                models[call.turn.model].held.append(line(call.turn, call.told))
        for call in self._waiting():
            models[call.turn.model].takes.append(line(call.turn, call.turn.waiting))
        return list(models.values())

    def _waiting(self) -> Iterable[_Call]:
        return (call for call in self._calls.values() if not call.granted.done())

    def _news_of(self, model: str) -> _News:
        unsaid = self._news.get(model)
        if unsaid is None:
            unsaid = self._news[model] = _News()
        return unsaid

    def _heed(self, granted: Iterable[str], refused: Iterable[str]) -> None:
        """Who was cancelled meanwhile has left already, or is about to."""
        for id in granted:
            call = self._calls.get(id)
            if call is not None and not call.granted.done():
                call.granted.set_result(None)
        for id in refused:
            call = self._calls.get(id)
            if call is not None and not call.granted.done():
                del self._calls[id]
                call.granted.set_exception(overloaded(call.turn.model, self.queue(call.turn.model)))

    # --- without Redis ---

    def _fall_back(self, error: StoreUnavailable) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("places are given by each worker for itself, 1/%d of them: %s", self._live,
                        error.message)  # fmt: skip
        self._news.clear()
        self._is_whole = True
        local = self._local = MemoryPlaces()
        for call in list(self._calls.values()):
            if call.is_in:
                local.hold(self._share(call.turn), call.told)
        for call in list(self._waiting()):
            local.join(self._share(call.turn), call.granted)

    def _came_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("places are given by all workers together again")

    def _share(self, turn: Turn) -> Turn:
        return replace(turn, most=self._share_of(self._most[turn.model]))

    def _share_of(self, most: int) -> int:
        return max(1, most // self._live)


@asynccontextmanager
async def open_places(
    state: RedisState, worker: str, *, workers: int = 1, times: Times = USUAL
) -> AsyncIterator[RedisPlaces]:
    """`worker` names this process, once and for all; `workers` is how many there are as long as Redis has not
    told. At the end its places go to others at once."""
    places = RedisPlaces(state, worker, workers, times)
    try:
        async with alongside(places.run, places.listen):
            yield places
    finally:
        with suppress(StoreUnavailable):
            await places.recover(worker)
