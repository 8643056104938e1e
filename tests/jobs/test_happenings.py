"""Calls that ended are told once, whenever they began; who reads slowly loses the oldest; nobody is asked for
nothing."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from llmgateway.control.audit import Actor, Audit
from llmgateway.domain.errors import Overloaded, StoreUnavailable
from llmgateway.domain.live import OpenCall
from llmgateway.jobs import happenings as happening
from llmgateway.jobs.background import Background
from llmgateway.jobs.happenings import (
    BUFFER,
    MOST_FOLLOWERS,
    Ended,
    Follower,
    Happening,
    Happenings,
    Mark,
    milliseconds_of,
)
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.doubles import SetClock
from tests.stores.samples import record


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "gateway.db", 5) as opened:
        yield opened


def open_call(clock: SetClock, id: str, state: Literal["waiting", "open"] = "open") -> OpenCall:
    return OpenCall(id=id, at=clock.now(), model="m", stream=True, state=state)


class World:
    """What a look finds: open calls, and a store that can be away."""

    def __init__(self, store: SqliteStore, clock: SetClock) -> None:
        self.store = store
        self.clock = clock
        self.calls: list[OpenCall] = []
        self.looks = 0
        self.is_away = False

    async def open_calls(self) -> Sequence[OpenCall]:
        self.looks += 1
        if self.is_away:
            raise StoreUnavailable("The store is away.")
        return list(self.calls)

    async def end(self, id: str, seconds: float = 0) -> None:
        """A call that began so long ago ends now."""
        now = self.clock.now()
        at = now - timedelta(seconds=seconds)
        await self.store.append([record(random.Random(1), at, id=id, ended_at=now)])


@pytest.fixture
def world(store: SqliteStore, clock: SetClock) -> World:
    return World(store, clock)


async def test_short_and_long_calls_are_told_once(world: World, clock: SetClock) -> None:
    await world.end("old")
    clock.pass_seconds(1)
    ended = Ended(world.store, clock, clock.now())
    long, queued = open_call(clock, "long"), open_call(clock, "queued", "waiting")
    assert await ended.look([long, queued]) == [], "what ended before is nobody's news"
    clock.pass_seconds(600)
    await world.end("short")
    assert [one["id"] for one in await ended.look([long])] == ["short"]
    await world.end("long", 600)
    assert await ended.look([long]) == [], "as long as it is told to be open"
    assert [one["id"] for one in await ended.look([])] == ["long"]
    assert await ended.look([]) == []


async def test_a_record_may_come_late_or_never(
    world: World, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Ended(world.store, clock, clock.now())
    monkeypatch.setattr(happening, "MOST", 1)
    await ended.look([open_call(clock, "never"), open_call(clock, "late"), open_call(clock, "back")])
    clock.pass_seconds(60)
    for _ in range(3):
        assert await ended.look([open_call(clock, "back")]) == [], "two are asked for in turn"
    await world.end("late", 60)
    found = [one["id"] for _ in range(2) for one in await ended.look([open_call(clock, "back")])]
    assert found == ["late"]
    clock.pass_seconds(happening.AWAITED)
    await ended.look([])
    await world.end("never", 300)
    await world.end("back", 300)
    assert [one["id"] for _ in range(3) for one in await ended.look([])] == ["back"]


async def test_what_is_told_is_forgotten_when_it_cannot_come_again(world: World, clock: SetClock) -> None:
    ended = Ended(world.store, clock, clock.now())
    await world.end("one")
    assert len(await ended.look([])) == 1
    clock.pass_seconds(happening.REMEMBERED + 1)
    assert await ended.look([]) == []
    assert not ended._seen


async def test_who_reads_slowly_loses_the_oldest(clock: SetClock) -> None:
    follower = Follower()
    for number in range(BUFFER + 3):
        follower.tell(Happening("call", number))
    for calls in ([open_call(clock, "a")], [open_call(clock, "b")]):
        follower.show(calls)
    first, *rest = await follower.next(1)
    assert first == Happening("skipped", 3)
    assert [one.value for one in rest[:-1]] == list(range(3, BUFFER + 3))
    assert rest[-1] == Happening("open", [open_call(clock, "b")])
    follower.show([open_call(clock, "b")])
    assert await follower.next(0.01) == [], "nothing has changed"


async def test_all_who_follow_are_told_and_nobody_looks_for_none(
    world: World, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(happening, "PERIOD", 0.01)
    happenings = Happenings(world.open_calls, world.store, world.store, clock)
    audit, actor = Audit(world.store, clock), Actor("operator", "cli")
    await audit.write(actor, "keys.create", "before", result="ok", details={})
    async with Background() as background:
        background.keep(happenings.run)
        await asyncio.sleep(0.05)
        assert world.looks == 0
        with happenings.follow() as one, happenings.follow() as other:
            async with asyncio.timeout(5):
                await one.has_looked.wait()
                await other.has_looked.wait()
                assert one.line == "0000000000000001"
                world.is_away = True
                await asyncio.sleep(0.03)
                world.is_away = False
                await world.end("ended")
                await audit.write(actor, "keys.revoke", "key", result="ok", details={})
                for follower in (one, other):
                    found: list[Happening] = []
                    while len(found) < 3:
                        found += await follower.next(1)
                    assert {(each.kind, each.value["id"]) for each in found if each.kind != "open"} == {
                        ("call", "ended"), ("audit", "0000000000000002")
                    }  # fmt: skip
                happenings.end()
                assert one.is_over
        looks = world.looks
        await asyncio.sleep(0.05)
        assert world.looks <= looks + 1
    with happenings.follow() as late:
        assert late.is_over


async def test_who_comes_back_is_told_what_was_missed(world: World, clock: SetClock) -> None:
    happenings = Happenings(world.open_calls, world.store, world.store, clock)
    audit, actor = Audit(world.store, clock), Actor("operator", "cli")
    for number in range(3):
        await world.end(f"{number}", 600)
        await audit.write(actor, "keys.create", f"{number}", result="ok", details={})
        clock.pass_seconds(60)
    read = milliseconds_of(clock.now() - timedelta(seconds=180))
    found = await happenings.since(Mark(read, "0", "0000000000000001"))
    assert [(one.kind, one.value["id"]) for one in found] == [
        ("call", "1"), ("call", "2"), ("audit", "0000000000000002"), ("audit", "0000000000000003"),
    ]  # fmt: skip
    assert {one.kind for one in await happenings.since(Mark(read))} == {"call"}


async def test_who_was_away_too_long_is_told_that_it_is_not_all(
    world: World, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(happening, "MOST_SINCE", 2)
    happenings = Happenings(world.open_calls, world.store, world.store, clock)
    for number in range(3):
        await world.end(f"{number}")
    first, *rest = await happenings.since(Mark(0, "", ""))
    assert first == Happening("skipped", None)
    assert len(rest) == 2


async def test_too_many_are_refused(world: World, clock: SetClock) -> None:
    happenings = Happenings(world.open_calls, world.store, world.store, clock)
    following = [happenings.follow() for _ in range(MOST_FOLLOWERS)]
    for one in following:
        one.__enter__()
    with pytest.raises(Overloaded), happenings.follow():
        pass
    following[0].__exit__(None, None, None)
    with happenings.follow():
        pass
