"""The sums of days and months that all workers count on Redis, read to be compared with the ledger's."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmgateway.domain.admission import Counted, Look, ScopeKey
from llmgateway.domain.periods import Period
from llmgateway.stores.limits.limiter_turn import EPOCH, HELD, RECENT, SHIPPED, SILENCE, USE, WORKERS, key_of
from llmgateway.stores.redis import Foreign, RedisState, Script

BATCH = 200  # scopes of one call: Redis does nothing else meanwhile
SCAN_COUNT = 1000


class _Ask(Struct, kw_only=True):
    """`more` is to be added, (tokens of the day, of the month, cost of the month) for each name."""

    names: Sequence[str]
    day: str
    month: str
    more: Sequence[tuple[int, int, int]]
    now: int | UnsetType
    held: str = HELD
    recent: int = RECENT
    silence: int = SILENCE


class _Reply(Struct, array_like=True, frozen=True):
    epoch: str
    now: int
    shipped_to: int
    silent: int
    rows: list[tuple[int | bool, int | bool, int | bool]]


class RedisSums:
    """`now` stands in the place of Redis's time, in tests."""

    def __init__(self, redis: RedisState) -> None:
        self._redis = redis
        self._script = Script.named("sums")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Reply).decode
        self.now: int | UnsetType = UNSET

    async def look(self, period: Period) -> Look:
        names = await self._names()
        replies = [await self._run(period, names[at : at + BATCH]) for at in range(0, len(names), BATCH)]
        replies.append(await self._run(period, ()))
        rows = zip(names, (row for reply in replies for row in reply.rows), strict=True)
        last = replies[-1]
        return Look(
            epoch=last.epoch if len({reply.epoch for reply in replies}) == 1 else "",
            at=last.now, shipped_to=last.shipped_to, silent=last.silent,
            sums={key_of(name): Counted(*(None if n is False else int(n) for n in row))
                  for name, row in rows},
        )  # fmt: skip

    async def add(self, period: Period, more: Mapping[ScopeKey, tuple[int, int, int]]) -> None:
        names = [f"{kind}:{id}" for kind, id in more]
        amounts = list(more.values())
        for at in range(0, len(names), BATCH):
            await self._run(period, names[at : at + BATCH], amounts[at : at + BATCH])

    async def _names(self) -> list[str]:
        found: set[bytes] = set()
        cursor: str | bytes = "0"
        while True:
            cursor, names = await self._redis.ask(("SCAN", cursor, "MATCH", USE + "*", "COUNT", SCAN_COUNT))
            found.update(names)
            if cursor == b"0":
                return sorted(name.decode().removeprefix(USE) for name in found)

    async def _run(
        self, period: Period, names: Sequence[str], more: Sequence[tuple[int, int, int]] = ()
    ) -> _Reply:
        ask = _Ask(names=names, day=period.day, month=period.month, more=more, now=self.now)

        def own(reply: bytes) -> _Reply:
            try:
                read = self._decode(reply)
            except (msgspec.DecodeError, TypeError):
                raise Foreign from None
            if len(read.rows) != len(names):
                raise Foreign
            return read

        keys = [EPOCH, WORKERS, SHIPPED, *(USE + name for name in names)]
        reply: _Reply = await self._redis.run(self._script, keys, self._encode(ask), own)
        return reply
