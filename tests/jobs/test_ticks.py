import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change, SystemClock
from llmgateway.domain.sweep import NEVER, Sweep
from llmgateway.jobs.background import Background
from llmgateway.jobs.ticks import Reload, every, heed_changes, turn_sweep
from llmgateway.stores.memory import MemoryState
from tests.lab.waiting import eventually

CLOCK = SystemClock()


class Egg:
    """Something that is due."""

    def __init__(self, *, fails: bool = False) -> None:
        self.due = CLOCK.monotonic()
        self.fails = fails
        self.expired = 0

    def expire(self, now: float) -> None:
        self.expired += 1
        if self.fails:
            raise RuntimeError("broken")
        self.due = NEVER


async def test_deadlines_fire_though_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    sweep = Sweep[Egg]()
    eggs = [Egg(fails=True), *(Egg() for _ in range(20))]
    for egg in eggs:
        sweep.add(egg)
    async with Background() as background:
        background.begin(turn_sweep(sweep, CLOCK))
        await eventually(lambda: all(egg.expired for egg in eggs), "both fired")
    assert "a deadline failed" in caplog.text


async def test_periodic_work_goes_on_after_a_failure() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise RuntimeError("broken")

    async with Background() as background:
        background.begin(every(0.001, work))
        await eventually(lambda: len(calls) > 2, "it was called again")


async def test_every_listener_hears_of_a_change() -> None:
    state, heard, also = MemoryState(), list[Change](), list[Change]()
    async with Background() as background:
        background.begin(heed_changes(state, [heard.append, also.append]))
        await eventually(lambda: heard == [Change("*")], "it listens")
        await state.announce(Change("keys", "k"))
        await eventually(lambda: Change("keys", "k") in heard, "it heard")
    assert heard == also


class Feed:
    """A state whose feed breaks once."""

    name = "feed"

    def __init__(self) -> None:
        self.opened = 0

    async def changes(self) -> AsyncIterator[Change]:
        self.opened += 1
        yield Change("*")
        if self.opened == 1:
            raise RuntimeError("broken")
        await asyncio.Event().wait()


async def test_a_broken_feed_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    feed, heard = Feed(), list[Change]()
    async with Background() as background:
        background.begin(heed_changes(feed, [heard.append]))  # type: ignore[arg-type]
        await eventually(lambda: feed.opened == 2, "it was opened again")
    assert "the feed of changes ended" in caplog.text


async def test_a_catalogue_is_read_when_asked_and_told_of_once_while_it_cannot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    reads: list[int] = []
    is_away = True

    async def read() -> None:
        reads.append(1)
        if is_away:
            raise StoreUnavailable("away")

    reload = Reload(read, "it")
    assert not await reload.once()
    assert not await reload.once()
    is_away = False
    assert await reload.once()
    assert await reload.once()
    assert [one.getMessage() for one in caplog.records] == ["it cannot be read now", "it can be read again"]
    reads.clear()
    async with Background() as background:
        background.begin(reload.run())
        await eventually(lambda: len(reads) == 1, "it was read at the start")
        reload.soon()
        await eventually(lambda: len(reads) == 2, "it was read when asked")
