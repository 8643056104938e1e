"""The calls that are under way in all processes: told to the others only while somebody looks."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from llmgateway.domain.errors import GatewayError
from llmgateway.domain.live import OpenCall
from llmgateway.domain.ports import Shelf

log = logging.getLogger(__name__)

SHELF, FLEET, WATCHED = "live", "fleet", "watched"
PERIOD = 1.0  # seconds between two tellings
LIFE = 5.0  # seconds that what a process told is true, and that a look is remembered
MOST = 200  # calls that a process tells of, the oldest first


class LiveCalls:
    """`own` are this process's, whose name is `name`; a process that is alone has no `shelf` to share."""

    def __init__(self, own: Callable[[], Sequence[OpenCall]], shelf: Shelf | None, *, name: str) -> None:
        self._own = own
        self._shelf = shelf
        self._name = name

    async def all(self) -> Sequence[OpenCall]:
        """Oldest first. Other processes follow within two periods of the first look."""
        calls = list(self.told())
        if self._shelf is not None:
            await self._shelf.put(SHELF, WATCHED, b"1", LIFE)
            told = await self._shelf.owned(SHELF, FLEET)
            for name, encoded in told.items():
                if name != self._name:
                    calls += _read(encoded)
        return sorted(calls, key=lambda call: call.at)

    def told(self) -> Sequence[OpenCall]:
        return sorted(self._own(), key=lambda call: call.at)[:MOST]

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self.tell()
            except GatewayError as error:
                log.debug("open calls are not told", extra={"fields": {"error": error.code}})

    async def tell(self) -> None:
        if self._shelf is not None and await self._shelf.get(SHELF, WATCHED) is not None:
            told = msgspec.msgpack.encode(self.told())
            await self._shelf.put(SHELF, self._name, told, LIFE, owner=FLEET)


def _read(told: bytes) -> list[OpenCall]:
    """Nothing where it cannot be read: a newer version has written it."""
    try:
        return msgspec.msgpack.decode(told, type=list[OpenCall])
    except msgspec.DecodeError:
        return []
