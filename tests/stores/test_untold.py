"""Announcements that failed are made as soon as they can be, however often that takes."""

import asyncio
from collections.abc import Sequence

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change
from llmgateway.stores import untold
from llmgateway.stores.untold import EVERYTHING, Untold
from tests.lab.waiting import eventually

ONE, TWO = Change("keys", "1"), Change("keys", "2")


class Teller:
    """Fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.told: list[Change] = []
        self.untold = Untold(self.tell)

    async def tell(self, change: Change) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreUnavailable("It is busy.")
        self.told.append(change)

    async def tells(self, changes: Sequence[Change]) -> bool:
        async def at_once() -> None: ...

        running = asyncio.ensure_future(self.untold.run(at_once))
        try:
            await eventually(lambda: len(self.untold) == 0, "all is told")
        finally:
            running.cancel()
        return self.told == list(changes)


async def test_what_was_kept_is_told_once_in_its_order() -> None:
    teller = Teller(failures=2)
    for change in (ONE, TWO, ONE):
        teller.untold.keep(change)
    assert len(teller.untold) == 2
    assert await teller.tells([ONE, TWO])


async def test_too_much_of_it_is_everything() -> None:
    teller = Teller()
    for n in range(untold.MOST + 2):
        teller.untold.keep(Change("keys", str(n)))
    assert len(teller.untold) == 1
    assert await teller.tells([EVERYTHING])


async def test_what_changes_again_while_it_is_told_is_told_again() -> None:
    """The first word may have come before the second change."""
    teller, is_telling, go_on = Teller(), asyncio.Event(), asyncio.Event()

    async def slowly(change: Change) -> None:
        is_telling.set()
        await go_on.wait()
        await teller.tell(change)

    teller.untold = Untold(slowly)
    teller.untold.keep(ONE)
    telling = asyncio.ensure_future(teller.tells([ONE, ONE]))
    await is_telling.wait()
    teller.untold.keep(ONE)
    go_on.set()
    assert await telling
