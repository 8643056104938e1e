"""Open calls of all processes: told only while somebody looks, and forgotten when a process is gone."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from llmgateway.domain.live import OpenCall
from llmgateway.jobs.background import Background
from llmgateway.jobs.live import FLEET, LIFE, MOST, PERIOD, SHELF, LiveCalls
from llmgateway.stores.sqlite import open_sqlite
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.doubles import SetClock
from tests.lab.waiting import eventually_answers


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def shelf(tmp_path: Path, clock: SetClock) -> AsyncIterator[SqliteShelf]:
    async with open_sqlite(tmp_path / "gateway.db", 5) as store:
        yield SqliteShelf(store.file, clock)


def call(clock: SetClock, id: str, seconds: float = 0) -> OpenCall:
    at = clock.now() - timedelta(seconds=seconds)
    return OpenCall(id=id, at=at, model="m", stream=True, state="open", user="aino", tokens=3)


async def test_one_look_is_enough_to_hear_of_the_others(shelf: SqliteShelf, clock: SetClock) -> None:
    mine, theirs = [call(clock, "a", 1)], [call(clock, "b", 2)]
    here, there = LiveCalls(lambda: mine, shelf, name="here"), LiveCalls(lambda: theirs, shelf, name="there")
    await there.tell()
    assert await shelf.owned(SHELF, FLEET) == {}, "nobody looks, so nothing is told"
    assert [one.id for one in await here.all()] == ["a"]
    await there.tell()
    await here.tell()
    assert list(await here.all()) == [*theirs, *mine]
    clock.pass_seconds(LIFE + 1)
    assert [one.id for one in await here.all()] == ["a"], "a process that tells no more is gone"


async def test_what_cannot_be_read_is_passed_over(shelf: SqliteShelf, clock: SetClock) -> None:
    mine = [call(clock, "a", 1)]
    here = LiveCalls(lambda: mine, shelf, name="here")
    await shelf.put(SHELF, "there", b"\xc1garbage", LIFE, owner=FLEET)
    assert list(await here.all()) == mine


async def test_telling_goes_on_after_what_nobody_has_thought_of(shelf: SqliteShelf, clock: SetClock) -> None:
    calls = [msgspec.structs.replace(call(clock, "a"), user="\ud800")]
    here, there = LiveCalls(lambda: calls, shelf, name="here"), LiveCalls(list, shelf, name="there")
    async with Background() as background:
        await there.all()
        background.keep(here.run)
        await asyncio.sleep(PERIOD)
        calls[:] = [call(clock, "b")]

        async def hears() -> bool:
            return [one.id for one in await there.all()] == ["b"]

        await eventually_answers(hears, "it is told of what came after", 5)


async def test_alone_it_asks_nobody(clock: SetClock) -> None:
    live = LiveCalls(lambda: [call(clock, str(n), n) for n in range(MOST + 5)], None, name="only")
    await live.tell()
    calls = await live.all()
    assert (len(calls), calls[0].id) == (MOST, str(MOST + 4)), "the oldest first"
