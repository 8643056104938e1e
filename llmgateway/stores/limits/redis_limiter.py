"""The limiter of many workers: one script on Redis counts for all, and while it is away each counts a share.

What many callers claim in one turn of the event loop goes out as one call, with what has ended meanwhile.
One call is under way at a time, so what a call holds is known before it is given back, and nobody who is
cancelled leaves a claim behind.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from msgspec import UNSET, UnsetType

from llmgateway.domain.admission import Behind, LoadUsed, Spent
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.limits import Claim, Scope, Standing
from llmgateway.domain.periods import Period
from llmgateway.domain.ports import Clock, SystemClock
from llmgateway.stores.alongside import alongside
from llmgateway.stores.breaker import Health, reason_of
from llmgateway.stores.limits.grants import Grants, Shares
from llmgateway.stores.limits.limiter_calls import Asked, Open
from llmgateway.stores.limits.limiter_turn import GATHERED, UNTOLD_YET, Again, Change, Reply, Turn, Turns
from llmgateway.stores.limits.memory_limiter import MINUTE, nothing_waits, question
from llmgateway.stores.limits.redis_sums import RedisSums
from llmgateway.stores.limits.share import Seen, Share
from llmgateway.stores.limits.standings import Money, refusal, standings_of, tightest, units
from llmgateway.stores.limits.sums import LedgerSums, without
from llmgateway.stores.limits.tellings import Tellings
from llmgateway.stores.limits.windows import Answer
from llmgateway.stores.redis import RedisState

log = logging.getLogger(__name__)

CLAIMS, CHANGES = 64, 256  # of one turn: Redis does nothing else meanwhile
BACKLOG = 100_000  # changes kept for a Redis that is away
BEAT, TICK = 0.2, 0.25  # seconds
SOON = 0.02  # seconds until it is asked again whether all have told
SLACK = 100  # ms that the two clocks may have drifted since the last turn
GATHERING = 2  # turns of the event loop between two of these, in which more calls come to ask: fewer are sent
BREAKS = 3
ASKS = 4  # of one claim: the ledger's sums may be lost again before they arrive
ALONE = " While a part of the gateway is away, limits are shared out among its workers."


class RedisLimiter:
    """`open_redis_limiter` makes it and keeps it running. A worker's name is never used twice."""

    name = "redis"

    def __init__(self, turns: Turns, load: LoadUsed, clock: Clock, money: Money) -> None:
        self.turns = turns
        self.sums = RedisSums(turns.redis)
        self.behind: Behind = nothing_waits
        self._redis = turns.redis
        self._load = load
        self._clock = clock
        self._money = money
        self._sums = LedgerSums(load, clock)
        self._health = Health("Counting limits on Redis", log)
        self._asked: deque[Asked] = deque()
        self._changes: deque[Change | Again] = deque()
        self._sending: list[Change | Again] = []  # what a turn that may have failed was to change
        self._number = self._broken = 0  # turns with changes; turns in a row that failed as none should
        self._open: dict[str, Open] = {}
        self._share: Share | None = None
        self._grants, self._shares, self._seen = Grants(turns.window), Shares(turns.window), Seen()
        self.tellings = Tellings(turns.redis, self._shares, self._milliseconds)
        self._wake = asyncio.Event()
        self._epoch: str | UnsetType = UNSET
        self._ahead: int | None = None  # Redis's time less the monotonic clock's, in ms
        self._live = 1
        self._patience = int(turns.redis.timeout * 1000) + SLACK
        self._beats = True  # the next turn is a sign of life
        self._last_beat = clock.monotonic()
        self._is_stuck = False  # the last turn failed: changes wait for a tick
        self._stage = GATHERED
        self._is_running = True
        self.most_changes = BACKLOG
        self._is_full = False

    def is_healthy(self) -> bool:
        return self._is_running and self._redis.is_healthy() and self._health.is_good

    @property
    def is_gathered(self) -> bool:
        """Redis knows what all workers have let in, as far as this one has heard."""
        return self._stage == GATHERED

    @property
    def live_workers(self) -> int:
        """As last known."""
        return self._live

    @property
    def backlog(self) -> int:
        """Changes that Redis has not been told yet."""
        return len(self._changes) + len(self._sending)

    async def reserve(self, claim: Claim) -> Sequence[Standing]:
        if not claim.scopes:
            return ()
        answer, note = await self._answer(claim)
        if not answer.is_taken:
            raise refusal(claim, answer.readings, self._clock.now, money=self._money, note=note)
        return tightest(claim.scopes, answer.readings, claim.period, self._clock.now)

    def settle(self, id: str, tokens: int, cost: int) -> None:
        opened = self._open.pop(id, None)
        if opened is None:
            return
        self._grants.correct(opened.counted, tokens - opened.claim.tokens)
        if self._share is not None:
            self._share.settle(id, tokens, cost)
        if (change := opened.change) is not None and not (change.is_sent or opened.is_uncertain):
            change.kind, change.tokens, change.cost = "charge", tokens, cost
        elif opened.is_counted:
            self._tell(Change("settle", opened.claim, tokens, cost))

    async def standings(self, scopes: Sequence[Scope], period: Period) -> Sequence[Standing]:
        if not scopes:
            return []
        answer, _ = await self._answer(question(scopes, period))
        return standings_of(scopes, answer.readings, period, self._clock.now)

    async def recover(self, worker: str, spent: Spent) -> None:
        if worker == self.turns.worker:
            raise ValueError("a worker that lives is not recovered")
        while await self.turns.recover(worker, spent):
            pass

    async def lane(self) -> NoReturn:
        """Carries turn after turn, for ever. Without it nobody waits for Redis."""
        self._is_running = True
        try:
            while True:
                while not (self._asked or self._beats or (self._has_changes() and not self._is_stuck)):
                    self._wake.clear()
                    await self._wake.wait()
                await self._turn()
                if self._stage == UNTOLD_YET:
                    self._beats = True
                    await asyncio.sleep(SOON)
                for _ in range(GATHERING):
                    await asyncio.sleep(0)
        finally:
            self._stop()

    async def beat(self) -> NoReturn:
        """Lets Redis know that this worker lives, and try again what could not be told."""
        while True:
            if self._redis.is_healthy():
                is_due = self._clock.monotonic() - self._last_beat >= BEAT
                if is_due or self._is_stuck:
                    self._is_stuck, self._beats = False, self._beats or is_due
                    self._wake.set()
            await asyncio.sleep(TICK)

    async def close(self) -> None:
        """Tells what is left to tell, if Redis is there."""
        self._stop()
        with suppress(StoreUnavailable):
            while self._has_changes():
                await self._carry([])
            if not self._open and not self.behind():
                await self.turns.leave()

    def _stop(self) -> None:
        self._is_running = False
        self._failed(self._taken(), None)

    # --- a claim ------------------------------------------------------------------------------------------

    async def _answer(self, claim: Claim) -> tuple[Answer, str]:
        """The answer, and what is to be said with a refusal."""
        begins, is_uncertain = self._sums.away(claim), False
        for left in reversed(range(ASKS)):
            if not (self._is_running and self._redis.is_healthy()):
                break
            asked = Asked(claim, begins)
            answer = await self._of_redis(asked)
            if answer is None:
                is_uncertain = asked.is_uncertain
                break
            if not answer.unknown:
                return answer, ""
            begins = await self._sums.begins(claim, answer.unknown) if left > 1 else without(claim)
        return await self._alone(claim, is_uncertain=is_uncertain), ALONE

    async def _of_redis(self, asked: Asked) -> Answer | None:
        self._asked.append(asked)
        self._wake.set()
        try:
            return await asked.answer
        except asyncio.CancelledError:
            if not asked.answer.cancelled():  # else the lane will see that nobody waits
                self._let_go(asked, asked.answer.result())
            raise

    async def _alone(self, claim: Claim, *, is_uncertain: bool) -> Answer:
        is_taken = False
        try:
            await self.tellings.catch_up()
            share = self._share = self._share or self._new_share()
            answer = await share.admit(claim)
            is_taken = answer.is_taken
        finally:
            if is_uncertain and not is_taken:
                self._tell(Change("settle", claim, 0, 0))
        if is_taken and claim.id:
            now = self._milliseconds()
            opened = self._open[claim.id] = Open(
                claim, self._grants.take(claim, now), is_counted=False, is_uncertain=is_uncertain
            )
            self._shares.spent(claim, now)
            if is_uncertain or self.backlog < self.most_changes:
                self._hold(opened, now)
            elif not self._is_full:
                self._is_full = True
                log.warning("Redis is away for long; more calls are counted by the ledger, and here alone")
        return answer

    def _new_share(self) -> Share:
        share = Share(self._load, self._clock, self.turns.window / 1000, workers=self._live,
                      shares=self._shares, seen=self._seen)  # fmt: skip
        share.adopt(opened.claim for opened in self._open.values())
        return share

    def _hold(self, opened: Open, at: int | None = None) -> None:
        claim = opened.claim
        opened.change = Change("hold", claim, claim.tokens, claim.cost, at)
        opened.is_counted = True
        self._tell(opened.change)

    def _let_go(self, asked: Asked, answer: Answer | None) -> None:
        """Nobody wants what was or may have been claimed."""
        if answer is None and asked.is_uncertain and asked.claim.id:
            self._tell(Change("settle", asked.claim, 0, 0))
        self.settle(asked.claim.id, 0, 0)

    # --- a turn -------------------------------------------------------------------------------------------

    def _tell(self, change: Change | Again) -> None:
        self._changes.append(change)
        self._wake.set()

    def _has_changes(self) -> bool:
        return bool(self._changes or self._sending)

    async def _turn(self) -> None:
        asked = self._taken(CLAIMS)
        try:
            await self._carry(asked)
        except StoreUnavailable as error:
            self._failed(asked, error)
        except BaseException:
            self._failed(asked, None)
            self._give_up()
            raise

    def _taken(self, most: int | None = None) -> list[Asked]:
        """Claims for whose answer somebody waits."""
        taken: list[Asked] = []
        while self._asked and len(taken) != most:
            one = self._asked.popleft()
            if not one.answer.done():
                taken.append(one)
        return taken

    async def _carry(self, asked: Sequence[Asked]) -> None:
        for _ in range(ASKS):
            reply = await self._send(asked)
            if reply.epoch != self._epoch:
                self._begin_anew(reply.epoch)
                continue
            self._sending, self._broken = [], 0
            if not reply.is_late:
                self._succeeded(asked, reply)
                return
        raise StoreUnavailable("Redis forgets its limits or answers too late.", retry_after=1)

    async def _send(self, asked: Sequence[Asked]) -> Reply:
        if not self._sending and self._changes:
            self._number += 1
            while self._changes and len(self._sending) < CHANGES:
                self._sending.append(self._changes.popleft())
                self._sending[-1].is_sent = True
        for one in asked:
            one.is_uncertain = True
        reply = await self.turns.send(Turn(
            self._sending, [(one.claim, one.begins) for one in asked], self._epoch, self._number,
            UNSET if self._ahead is None else self._milliseconds() + self._ahead + self._patience,
            self._beats, self._shipped_to() if self._beats else UNSET, self._milliseconds(), self._live,
            self._stage == UNTOLD_YET and not self._changes,
        ))  # fmt: skip
        self._ahead = reply.now - self._milliseconds()
        if self._epoch is UNSET:
            self._epoch = reply.epoch
        return reply

    def _succeeded(self, asked: Sequence[Asked], reply: Reply) -> None:
        self._is_stuck = self._is_full = False
        if self._beats:
            self._beats, self._last_beat = False, self._clock.monotonic()
        self._health.good()
        now = self._milliseconds()
        last: dict[int, tuple[Claim, Answer]] = {}  # a key's calls come with the same scopes
        self._stage = reply.stage
        if reply.stage != GATHERED:
            self._not_yet(asked)
            return
        self._live = max(1, reply.live)
        self.tellings.answered(self.turns.names, reply)
        self._share = None
        for one, answer in zip(asked, reply.answers, strict=True):
            claim = one.claim
            if answer.is_taken and claim.id:
                self._open[claim.id] = Open(claim, self._grants.take(claim, now))
            if answer.readings:
                last[id(claim.scopes)] = claim, answer
            if one.answer.done():
                self._let_go(one, answer)
            else:
                one.answer.set_result(answer)
        self._seen.note(last.values())

    def _not_yet(self, asked: Sequence[Asked]) -> None:
        """Redis does not know yet what others have let in. Until all are there each goes on with its share;
        then they wait for a moment until all have told."""
        for one in asked:
            one.is_uncertain = False
        if self._stage == UNTOLD_YET:
            self._asked.extendleft(reversed(asked))
        else:
            self._give_back(asked)

    def _give_back(self, asked: Sequence[Asked]) -> None:
        """Claims that are not Redis's to answer."""
        for one in asked:
            if one.answer.done():
                self._let_go(one, None)
            else:
                one.answer.set_result(None)

    def _failed(self, asked: Sequence[Asked], error: StoreUnavailable | None) -> None:
        """Also when the breaker is closed: Redis may answer and refuse, being full or somebody's replica."""
        self._is_stuck, self._beats, self._stage = True, False, GATHERED
        if error is not None and self._redis.is_healthy():
            self._health.bad(" ".join(getattr(error, "__notes__", ())) or reason_of(error))
        self._give_back(asked)

    def _give_up(self) -> None:
        """Changes that no turn can be made of must not keep all later ones back."""
        self._broken += bool(self._sending)
        if self._broken >= BREAKS:
            fields = {"ids": [change.id for change in self._sending]}
            log.error("changes that cannot be told to Redis are dropped", extra={"fields": fields})
            self._sending, self._broken = [], 0

    def _begin_anew(self, epoch: str) -> None:
        """Redis has lost everything, or at least the epoch. What has ended is in the ledger, what is open is
        said again."""
        log.warning("Redis has lost its counts of limits; they begin anew with the ledger's sums")
        self._epoch = epoch
        kept = (one for one in (*self._sending, *self._changes) if isinstance(one, Change))
        self._changes = deque(one for one in kept if one.kind == "settle")
        self._sending = []
        self._shares.begin_anew()
        now = self._milliseconds()
        for window in self._grants.windows(now):
            self._tell(Again(window, now))
        for opened in self._open.values():
            self._hold(opened)

    def _shipped_to(self) -> int | UnsetType:
        """In Redis's time as last heard: who is late in telling this must not seem to have shipped more. Both
        times are cut to milliseconds, hence one less."""
        waits = math.ceil(self.behind() * 1000)
        return UNSET if self._ahead is None else self._milliseconds() + self._ahead - waits - 1

    def _milliseconds(self) -> int:
        return int(self._clock.monotonic() * 1000)


@asynccontextmanager
async def open_redis_limiter(
    redis: RedisState, load: LoadUsed, *, worker: str, clock: Clock | None = None, window: float = MINUTE,
    money: Money = units,
) -> AsyncIterator[RedisLimiter]:  # fmt: skip
    """`window` is what a minute is."""
    limiter = RedisLimiter(Turns(redis, worker, window), load, clock or SystemClock(), money)
    try:
        async with alongside(limiter.lane, limiter.beat, limiter.tellings.listen):
            yield limiter
    finally:
        await limiter.close()
