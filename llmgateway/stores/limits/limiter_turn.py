"""What a worker and `lua/limiter.lua` say to each other in one turn: changes and claims out, answers back."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmgateway.domain.admission import Spent
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.limits import Claim
from llmgateway.stores.limits.windows import PARTS, Answer, Begin
from llmgateway.stores.redis import Foreign, RedisState, Script

EPOCH, WORKERS = "{lgw}:epoch", "{lgw}:workers"
SHIPPED = "{lgw}:shipped"  # by worker: in Redis's time, until when all that ended there is in the ledger
HELD, USE = "{lgw}:held:", "{lgw}:use:"
IDLE = 24 * 3_600_000  # ms; a scope that nobody uses for so long is forgotten, the ledger knows its sums
SILENCE = 15 * 60_000  # ms without a sign of life; recovery has had its turn long before
RECENT = 15_000  # ms: heard of three beats ago or later
FORGOTTEN = 7 * 86_400_000  # ms; what a worker held that nobody recovered


class Change(Struct):
    """What has happened and is to be counted. `settle`: a call has ended. `hold`: one was let in here.
    `charge`: both."""

    kind: Literal["settle", "hold", "charge"]
    claim: Claim
    tokens: int
    cost: int
    is_sent: bool = False


class Reply(Struct, array_like=True, frozen=True):
    """`epoch` is another when Redis has lost everything; then nothing was done."""

    turn: int
    epoch: str
    now: int
    live: int
    is_late: bool
    answers: list[Answer]


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
    lives: bool = False
    beats: bool = False
    behind: int = 0
    idle: int
    silence: int
    recent: int
    forgotten: int
    names: Sequence[str] = ()
    changes: Sequence[Any] = ()
    claims: Sequence[Any] = ()


class Turn(Struct, frozen=True):
    """What a worker wants of one call of the script. `deadline` is given up for a set time. `behind` is how
    long the oldest record has waited that is not in the ledger, in ms."""

    changes: Sequence[Change]
    claims: Sequence[tuple[Claim, Sequence[Begin]]]
    epoch: str | UnsetType
    number: int
    deadline: int | UnsetType
    beats: bool
    behind: int = 0


class Names:
    """The scopes of a turn: each stands once among its keys."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def of(self, claim: Claim) -> list[list[Any]]:
        found = self.found
        return [[found.setdefault(f"{scope.kind}:{scope.id}", len(found) + 1), scope.limits]
                for scope in claim.scopes]  # fmt: skip


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

    async def send(self, turn: Turn) -> Reply:
        names = Names()
        ask = self._ask(self.worker)
        ask.changes = [_written(change, names) for change in turn.changes]
        ask.claims = [
            [one.id, one.tokens, one.cost, one.period.day, one.period.month, names.of(one), begins]
            for one, begins in turn.claims
        ]
        ask.names = list(names.found)
        ask.epoch, ask.number, ask.lives, ask.beats = turn.epoch, turn.number, True, turn.beats
        ask.behind = turn.behind
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
            width=max(1, self.window // PARTS), now=self.now, idle=IDLE, silence=SILENCE, recent=RECENT,
            forgotten=FORGOTTEN,
        )  # fmt: skip

    async def _run(self, ask: Ask) -> Reply:
        keys = [EPOCH, WORKERS, HELD + ask.worker, SHIPPED, *(USE + name for name in ask.names)]

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


def _written(change: Change, names: Names) -> list[Any]:
    claim, scopes = change.claim, names.of(change.claim)
    if change.kind == "settle":
        return ["settle", claim.id, change.tokens, change.cost]
    period = claim.period
    return [change.kind, claim.id, change.tokens, change.cost, period.day, period.month, scopes]
