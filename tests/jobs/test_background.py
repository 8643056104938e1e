import asyncio
import logging

import pytest

from llmgateway.jobs.background import Background
from tests.lab.waiting import eventually


async def test_leaving_ends_and_awaits_all() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async with Background() as background:
        background.begin(work("a"), work("b"))
        await asyncio.sleep(0)
    assert sorted(ended) == ["a", "b"]


async def test_what_goes_on_for_ever_begins_anew_where_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []
    gate = asyncio.Event()

    async def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError("broken")
        await gate.wait()

    async with Background() as background:
        background.keep(work)
        await eventually(lambda: len(runs) == 3, "it goes on")
    assert [record.exc_info is not None for record in caplog.records] == [True], (
        "told once, with its traceback"
    )


async def test_one_that_fails_is_told_of_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    gate = asyncio.Event()

    async def fail() -> None:
        raise RuntimeError("broken")

    async with Background() as background:
        background.begin(fail())
        task = background.create_task(gate.wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        await task
    assert "broken" in caplog.text
