"""Refusals: noted at once, written soon, shown from all processes, gone after a day."""

from datetime import timedelta
from pathlib import Path

from llmgateway.domain.refusals import Refusal
from llmgateway.jobs.background import Background
from llmgateway.jobs.refusals import KEPT, LIFE, MOST_USERS, SHELF, Refusals
from llmgateway.stores.sqlite import open_sqlite
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.doubles import SetClock
from tests.lab.waiting import eventually_answers


def refusal(clock: SetClock, request_id: str, seconds: float = 0) -> Refusal:
    at = clock.now() - timedelta(seconds=seconds)
    return Refusal(
        at=at, status=429, code="rate_limit_exceeded", message="No.", request_id=request_id, key="k"
    )


async def test_they_are_told_together_and_forgotten(tmp_path: Path) -> None:
    clock = SetClock()
    async with open_sqlite(tmp_path / "gateway.db", 5) as store:
        shelf = SqliteShelf(store.file, clock)
        here, there = Refusals(shelf, name="here"), Refusals(shelf, name="there")
        for n in range(KEPT + 5):
            here.note("aino", refusal(clock, f"a{n:02}", 100 - n))
        there.note("aino", refusal(clock, "b", 0))
        there.note("ville", refusal(clock, "c", 0))
        assert await here.of("aino", clock.now(), 5) == [], "not written yet"
        await here.write()
        await there.write()
        told = await here.of("aino", clock.now(), 100)
        assert [one.request_id for one in told[:2]] == ["b", "a24"]
        assert len(told) == KEPT + 1
        assert [one.request_id for one in await there.of("ville", clock.now(), 5)] == ["c"]
        here.note("aino", refusal(clock, "new"))
        clock.pass_seconds(LIFE + 1)
        await here.write()
        assert await here.of("aino", clock.now(), 5) == []


async def test_what_cannot_be_written_or_read_keeps_nobody_elses_back(tmp_path: Path) -> None:
    clock = SetClock()
    async with open_sqlite(tmp_path / "gateway.db", 5) as store:
        shelf = SqliteShelf(store.file, clock)
        refusals = Refusals(shelf, name="here")
        await shelf.put(SHELF, "aino\nthere", b"\xc1garbage", LIFE, owner="aino")
        for user in ("\ud800", "aino"):
            refusals.note(user, refusal(clock, "a"))
        async with Background() as background:
            background.keep(refusals.run)

            async def is_written() -> bool:
                return len(await refusals.of("aino", clock.now(), 5)) == 1

            await eventually_answers(is_written, "the other's is written", 10)


async def test_a_flood_of_users_is_bounded(tmp_path: Path) -> None:
    clock = SetClock()
    async with open_sqlite(tmp_path / "gateway.db", 5) as store:
        refusals = Refusals(SqliteShelf(store.file, clock), name="here")
        for n in range(MOST_USERS + 10):
            refusals.note(f"user-{n}", refusal(clock, "x"))
        assert len(refusals._by_user) == MOST_USERS
