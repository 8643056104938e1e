"""What a worker and `lua/limiter.lua` say to each other in one turn: changes and claims out, answers back."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmgateway.domain.admission import ScopeKey, Spent
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.limits import Claim, Scope
from llmgateway.stores.limits.grants import Window
from llmgateway.stores.limits.windows import PARTS, Answer, Begin
from llmgateway.stores.redis import Foreign, RedisState, Script

EPOCH, WORKERS = "{lgw}:epoch", "{lgw}:workers"
SHIPPED = "{lgw}:shipped"  # by worker: in Redis's time, until when all that ended there is in the ledger
UNTOLD, TELLINGS = "{lgw}:limits-untold", "{lgw}:tellings"  # see the script
CHANNEL = "{lgw}:limits"  # where it tells of shares
HELD, USE = "{lgw}:held:", "{lgw}:use:"
IDLE = 24 * 3_600_000  # ms; a scope that nobody uses for so long is forgotten, the ledger knows its sums
SILENCE = 15 * 60_000  # ms without a sign of life; recovery has had its turn long before
RECENT = 3000  # ms: heard of six beats ago or later; who is silent for longer may be cut off
GAP = 450  # ms in which nobody at all was heard: Redis was away
PATIENCE = 5000  # ms; so long workers that come back after an outage are waited for
GATHERED, MISSING, UNTOLD_YET = 0, 1, 2  # are all back, and have told what they let in meanwhile
FORGOTTEN = 7 * 86_400_000  # ms; what a worker held that nobody recovered


class Change(Struct):
    """What has happened and is to be counted. `settle`: a call has ended. `hold`: one was let in here.
    `charge`: both. `at` is when it was let in, where its minute is to be counted, too."""

    kind: Literal["settle", "hold", "charge"]
    claim: Claim
    tokens: int
    cost: int
    at: int | None = None
    is_sent: bool = False

    @property
    def id(self) -> str:
        return self.claim.id


class Again(Struct):
    """What was let in here within the last minute, said anew to a Redis that has lost its counts; `at` is
    when that was written down."""

    window: Window
    at: int
    is_sent: bool = False

    @property
    def id(self) -> str:
        return self.window.scope.id


class Reply(Struct, array_like=True, frozen=True):
    """`epoch` is another when Redis has lost everything; then nothing was done. Until all workers are
    `GATHERED` it gives nothing. `shares` are this worker's: scope's number, telling, requests, tokens."""

    turn: int
    epoch: str
    now: int
    live: int
    is_late: bool
    stage: int
    answers: list[Answer]
    shares: list[tuple[int, int, int, int]]


class Ask(Struct, kw_only=True):
    """`number` counts the turns with changes; `deadline` is for the claims, in Redis's time; `now` stands in
    its place in tests."""

    turn: int
    worker: str
    epoch: str | UnsetType = UNSET
    fresh: str
    window: int
    width: int
    number: int | UnsetType = UNSET
    deadline: int | UnsetType = UNSET
    now: int | UnsetType = UNSET
    live: int = 1
    has_told: bool = False
    lives: bool = False
    beats: bool = False
    shipped_to: int | UnsetType = UNSET
    idle: int
    silence: int
    recent: int
    forgotten: int
    gap: int
    patience: int
    channel: str = CHANNEL
    names: Sequence[str] = ()
    changes: Sequence[Any] = ()
    claims: Sequence[Any] = ()


class Turn(Struct, frozen=True):
    """What a worker wants of one call of the script. `deadline` is given up for a set time. What ended here
    before `shipped_to`, in Redis's time, is in the ledger; `moment` is now, by the clock of the changes;
    `live` are the workers as last known; `has_told`: this worker has let in nothing alone that is not said
    herewith, or before."""

    changes: Sequence[Change | Again]
    claims: Sequence[tuple[Claim, Sequence[Begin]]]
    epoch: str | UnsetType
    number: int
    deadline: int | UnsetType
    beats: bool
    shipped_to: int | UnsetType = UNSET
    moment: int = 0
    live: int = 1
    has_told: bool = False


class Names:
    """The scopes of a turn: each stands once among its keys."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self._known: dict[int, list[list[Any]]] = {}  # by identity: a key's calls come with the same scopes

    def of(self, claim: Claim) -> list[list[Any]]:
        known = self._known.get(id(claim.scopes))
        if known is None:
            known = self._known[id(claim.scopes)] = [self.one(scope) for scope in claim.scopes]
        return known

    def one(self, scope: Scope) -> list[Any]:
        found = self.found
        return [found.setdefault(f"{scope.kind}:{scope.id}", len(found) + 1), scope.limits]


class Turns:
    """Sends turns in a worker's name. `now` stands in the place of Redis's time, in tests."""

    def __init__(self, redis: RedisState, worker: str, window: float) -> None:
        self.redis = redis
        self.worker = worker
        self.window = int(window * 1000)
        self._script = Script.named("limiter")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Reply).decode
        self._turn = 0
        self.now: int | UnsetType = UNSET
        self.recent, self.gap, self.patience = RECENT, GAP, PATIENCE
        self.names: list[str] = []  # of the last turn

    async def send(self, turn: Turn) -> Reply:
        names = Names()
        ask = self._ask(self.worker)
        ask.changes = [_written(change, names, turn.moment) for change in turn.changes]
        ask.claims = [
            [one.id, one.tokens, one.cost, one.period.day, one.period.month, names.of(one), begins]
            for one, begins in turn.claims
        ]
        ask.names = self.names = list(names.found)
        ask.live, ask.has_told = turn.live, turn.has_told
        ask.epoch, ask.number, ask.lives, ask.beats = turn.epoch, turn.number, True, turn.beats
        ask.shipped_to = turn.shipped_to
        if ask.now is UNSET:
            ask.deadline = turn.deadline
        return await self._run(ask)

    async def recover(self, worker: str, spent: Spent) -> int:
        """Settles some of what a dead worker held; how much, and 0 when nothing is left. Raises
        `StoreUnavailable` when nobody can say what the rest has used."""
        held = await self._some_held(worker)
        if not held:
            await self._forget(worker)
            return 0
        used = await spent(list(held))
        if not used:
            raise StoreUnavailable("What a dead worker's calls have used cannot be told now.", retry_after=1)
        ask = self._ask(worker)
        ask.names = list({name for id in used for name in held[id][5][::2]})
        ask.changes = [["settle", id, *of] for id, of in used.items()]
        await self._run(ask)
        return len(used)

    async def leave(self) -> None:
        await self._forget(self.worker)

    async def _forget(self, worker: str) -> None:
        await self.redis.ask(("UNLINK", HELD + worker), ("HDEL", SHIPPED, worker), ("ZREM", WORKERS, worker))

    async def _some_held(self, worker: str) -> dict[str, list[Any]]:
        """By call; empty when nothing is left. A step of the scan may find nothing where others do: a large
        hash that was emptied from its front is long empty there."""
        held: dict[str, list[Any]] = {}
        cursor = b"0"
        while True:
            cursor, found = await self.redis.ask(("HSCAN", HELD + worker, cursor, "COUNT", 100))
            for id, one in zip(found[::2], found[1::2], strict=True):
                if id != b"#":
                    held[id.decode()] = msgspec.msgpack.decode(one, type=list[Any])
            if held or cursor == b"0":
                return held

    def _ask(self, worker: str) -> Ask:
        self._turn += 1
        return Ask(
            turn=self._turn, worker=worker, fresh=f"{self.worker}.{self._turn}", window=self.window,
            width=max(1, self.window // PARTS), now=self.now, idle=IDLE, silence=SILENCE, recent=self.recent,
            gap=self.gap, patience=self.patience, forgotten=FORGOTTEN,
        )  # fmt: skip

    async def _run(self, ask: Ask) -> Reply:
        keys = [
            EPOCH,
            WORKERS,
            HELD + ask.worker,
            SHIPPED,
            UNTOLD,
            TELLINGS,
            *(USE + name for name in ask.names),
        ]

        def own(reply: bytes) -> Reply:
            try:
                read = self._decode(reply)
            except (msgspec.DecodeError, TypeError):
                raise Foreign from None
            if read.turn != ask.turn:
                raise Foreign
            return read

        reply: Reply = await self.redis.run(self._script, keys, self._encode(ask), own)
        return reply


def _written(change: Change | Again, names: Names, moment: int) -> list[Any]:
    if isinstance(change, Again):
        parts, ago = change.window.parts, moment - change.at
        return ["window", names.one(change.window.scope),
                [n if index % 3 else n + ago for index, n in enumerate(parts)]]  # fmt: skip
    claim, scopes = change.claim, names.of(change.claim)
    if change.kind == "settle":
        return ["settle", claim.id, change.tokens, change.cost]
    period = claim.period
    ago = -1 if change.at is None else max(0, moment - change.at)
    return [change.kind, claim.id, change.tokens, change.cost, period.day, period.month, scopes, ago]


def key_of(name: str) -> ScopeKey:
    """What stands in the names of scopes."""
    kind, _, id = name.partition(":")
    return kind, id  # type: ignore[return-value]  # what is written there are kinds
