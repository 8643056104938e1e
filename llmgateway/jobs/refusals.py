"""What programs were refused lately, by user: calls that were never accepted leave no record, but their
people should see why. Kept for a day, a few for each user and process; never what was asked."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NoReturn

import msgspec

from llmgateway.domain.errors import GatewayError
from llmgateway.domain.ports import Shelf
from llmgateway.domain.refusals import Refusal

log = logging.getLogger(__name__)

SHELF = "refusals"
PERIOD = 2.0  # seconds between two writings
LIFE = 86_400.0  # seconds
KEPT = 20  # of a user, by each process
MOST_USERS = 10_000  # remembered by a process


class Refusals:
    """`name` is this process's."""

    def __init__(self, shelf: Shelf, *, name: str) -> None:
        self._shelf = shelf
        self._name = name
        self._by_user: dict[str, list[Refusal]] = {}
        self._unwritten: set[str] = set()

    def note(self, user: str, refusal: Refusal) -> None:
        """At once, and without waiting: a flood of refusals costs no more than memory."""
        if user not in self._by_user and len(self._by_user) >= MOST_USERS:
            self._by_user.pop(next(iter(self._by_user)))
        known = self._by_user.setdefault(user, [])
        known.append(refusal)
        del known[:-KEPT]
        self._unwritten.add(user)

    async def of(self, user: str, now: datetime, most: int) -> Sequence[Refusal]:
        """Newest first, of all processes."""
        stored = await self._shelf.owned(SHELF, user)
        found = [one for value in stored.values() for one in _read(value)]
        fresh = [one for one in found if one.at > now - timedelta(seconds=LIFE)]
        return sorted(fresh, key=lambda one: one.at, reverse=True)[:most]

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self.write()
            except GatewayError as error:
                log.debug("refusals are not written", extra={"fields": {"error": error.code}})

    async def write(self) -> None:
        while self._unwritten:
            user = self._unwritten.pop()
            value = msgspec.msgpack.encode(self._by_user.get(user, []))
            try:
                await self._shelf.put(SHELF, f"{user}\n{self._name}", value, LIFE, owner=user)
            except GatewayError:
                self._unwritten.add(user)
                raise


def _read(value: bytes) -> list[Refusal]:
    """Nothing where it cannot be read: a newer version has written it."""
    try:
        return msgspec.msgpack.decode(value, type=list[Refusal])
    except msgspec.DecodeError:
        return []
