"""Periodic work: due, by one process, never beside itself, through outages and clocks that are set."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.jobs.background import Background
from llmgateway.jobs.timetable import AGAIN, LEAD_PERIOD, Job, Timetable
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.doubles import SetClock
from tests.lab.waiting import eventually

LOG = "llmgateway.jobs.timetable"


class Baton:
    """A lead that is given and taken by hand."""

    def __init__(self) -> None:
        self.is_held = True
        self.is_away = False
        self.was_resigned = False

    async def is_mine(self) -> bool:
        if self.is_away:
            raise StoreUnavailable("away")
        return self.is_held

    async def resign(self) -> None:
        self.was_resigned = True


class Labour:
    """A job that notes its runs and can be held up, or fail."""

    def __init__(self) -> None:
        self.began = self.ended = 0
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def __call__(self) -> Mapping[str, int]:
        self.began += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        self.ended += 1
        return {"things": 3}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "gateway.db", 5) as opened:
        yield opened


@pytest.fixture
def labour() -> Labour:
    return Labour()


@asynccontextmanager
async def running(
    store: SqliteStore, labour: Labour, baton: Baton, clock: SetClock, **how: bool
) -> AsyncIterator[Timetable]:
    job = Job(name="labour", work=labour, seconds=(600, 700), **how)
    async with Background() as background:
        timetable = Timetable([job], baton, background, store, clock)
        background.begin(timetable.run())
        yield timetable


async def test_whoever_leads_does_the_work_at_once_and_says_so(
    store: SqliteStore, labour: Labour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG)
    clock = SetClock()
    async with running(store, labour, Baton(), clock) as timetable:
        progress = timetable.progress["labour"]
        await eventually(lambda: progress.succeeded_at == clock.now(), "the job was done")
    (line,) = [one for one in caplog.records if one.getMessage() == "labour done"]
    assert line.__dict__["fields"]["things"] == 3


async def test_who_does_not_lead_does_nothing(store: SqliteStore, labour: Labour) -> None:
    baton = Baton()
    baton.is_held = False
    async with running(store, labour, baton, SetClock()) as timetable:
        timetable.soon("labour")
        assert not timetable.leads
        assert labour.began == 0


async def test_a_job_never_runs_beside_itself(store: SqliteStore, labour: Labour) -> None:
    labour.go.clear()
    async with running(store, labour, Baton(), SetClock()) as timetable:
        await eventually(lambda: labour.began == 1, "the job has begun")
        timetable.soon("labour")
        timetable.soon("labour")
        labour.go.set()
        await eventually(lambda: labour.ended == 1, "the job has ended")
        await eventually(lambda: not timetable._running, "and is over")
        timetable.soon("labour")
        await eventually(lambda: labour.ended == 2, "now it may run again")
    assert labour.began == 2


@pytest.mark.parametrize("how", ["taken", "away"])
async def test_who_loses_the_lead_stops_in_the_middle(store: SqliteStore, labour: Labour, how: str) -> None:
    labour.go.clear()
    baton, clock = Baton(), SetClock()
    async with running(store, labour, baton, clock) as timetable:
        await eventually(lambda: labour.began == 1, "the job has begun")
        baton.is_held, baton.is_away = how != "taken", how == "away"
        clock.pass_seconds(LEAD_PERIOD)
        await eventually(lambda: not timetable.leads, "the lead is lost")
        await eventually(lambda: not timetable._running, "the job was cut off")
        labour.go.set()
        baton.is_held, baton.is_away = True, False
        clock.pass_seconds(LEAD_PERIOD)
        await eventually(lambda: labour.ended == 1, "it is done when the lead is back")
    assert labour.began == 2


async def test_an_outage_is_told_of_once_and_survived(
    store: SqliteStore, labour: Labour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG)
    async with running(store, labour, Baton(), SetClock()) as timetable:
        progress = timetable.progress["labour"]
        await eventually(lambda: labour.ended == 1, "it works")
        for failures in (1, 2, 3):
            labour.error = StoreUnavailable("away") if failures < 3 else RuntimeError("broken")
            await eventually(lambda: not timetable._running, "it is over")
            timetable.soon("labour")
            await eventually(lambda failures=failures: progress.failures == failures, "it failed")  # type: ignore[misc]
        assert progress.is_failing
        labour.error = None
        await eventually(lambda: not timetable._running, "it is over")
        timetable.soon("labour")
        await eventually(lambda: not progress.is_failing, "it works again")
    words = [one.getMessage() for one in caplog.records if one.levelno > logging.INFO]
    assert words == ["labour has to wait", "labour failed"]


async def test_what_had_to_wait_for_a_store_is_tried_again_soon(store: SqliteStore, labour: Labour) -> None:
    """Its next turn may be an hour away, and till then it would be told of as failing."""
    labour.error, clock = StoreUnavailable("away"), SetClock()
    async with running(store, labour, Baton(), clock) as timetable:
        progress = timetable.progress["labour"]
        await eventually(lambda: progress.is_failing and not timetable._running, "it failed")
        clock.pass_seconds(AGAIN)
        await eventually(lambda: progress.failures == 2 and not timetable._running, "and once more")
        labour.error = None
        clock.pass_seconds(AGAIN)
        await eventually(lambda: labour.ended == 1 and not progress.is_failing, "it works again")
        clock.pass_seconds(AGAIN)
        assert not timetable._again


async def test_a_job_that_fails_is_told_of_until_it_is_another_process_s(
    store: SqliteStore, labour: Labour
) -> None:
    labour.error, baton, clock = RuntimeError("broken"), Baton(), SetClock()
    async with running(store, labour, baton, clock) as timetable:
        progress = timetable.progress["labour"]
        await eventually(lambda: progress.failures == 1, "it failed")
        assert progress.is_failing, "whatever the error was"
        baton.is_held = False
        clock.pass_seconds(LEAD_PERIOD)
        await eventually(lambda: not timetable.leads, "the lead is lost")
        assert not progress.is_failing


async def test_daily_work_that_another_process_has_done_fails_no_more(
    store: SqliteStore, labour: Labour
) -> None:
    labour.error, clock = StoreUnavailable("away"), SetClock()
    async with running(store, labour, Baton(), clock, is_daily=True) as timetable:
        progress = timetable.progress["labour"]
        await eventually(lambda: progress.is_failing and not timetable._running, "it failed")
        await store.insert("jobs", {"id": "labour", "revision": 0, "succeeded_at": clock.now()})
        timetable.soon("labour")
        await eventually(lambda: not progress.is_failing, "it is done")
    assert labour.began == 1


async def test_daily_work_is_done_once_a_day_in_the_whole_fleet(store: SqliteStore, labour: Labour) -> None:
    clock = SetClock()
    async with running(store, labour, Baton(), clock, is_daily=True):
        await eventually(lambda: labour.ended == 1, "the first does it")

        async def noted() -> bool:
            return await store.get("jobs", "labour") is not None

        await eventually(lambda: labour.began == 1, "once")
        while not await noted():
            await asyncio.sleep(0.001)
    for hours, runs in ((22, 1), (2, 2), (-200, 3)):  # a time to come is one that a wrong clock wrote
        clock.at += timedelta(hours=hours)
        async with running(store, labour, Baton(), clock, is_daily=True) as timetable:
            progress = timetable.progress["labour"]
            await eventually(lambda: timetable.leads and not timetable._running, "it has looked")
            assert labour.ended == runs, progress


async def test_r_fault_50_times_move_with_a_clock_that_is_set(store: SqliteStore, labour: Labour) -> None:
    """An hour back: a job that is due in ten minutes is not due in seventy. The package itself looks at the
    real clock, so what moves here stays in the future."""
    clock = SetClock()
    async with running(store, labour, Baton(), clock) as timetable:
        await eventually(lambda: labour.ended == 1, "it works")
        before = _next_run(timetable)
        for jump in (timedelta(days=1), timedelta(hours=-1)):
            clock.at += jump
            expected = before + jump
            await eventually(lambda expected=expected: _next_run(timetable) == expected, "it moved")  # type: ignore[misc]
            before = expected
        assert not labour.began > 1


async def test_at_the_end_another_may_lead_at_once(store: SqliteStore, labour: Labour) -> None:
    baton = Baton()
    async with running(store, labour, baton, SetClock()) as timetable:
        await eventually(lambda: labour.ended == 1, "it leads")
        await timetable.resign()
        assert baton.was_resigned
        timetable.soon("labour")
    assert labour.began == 1


def _next_run(timetable: Timetable) -> datetime:
    (due,) = timetable._schedule.jobs
    assert due.next_run is not None
    return due.next_run
