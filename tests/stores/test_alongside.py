"""Tasks beside a body: they end with it, and an early end is reported."""

import asyncio

import pytest

from llmgateway.stores.alongside import alongside
from tests.lab.waiting import eventually
from tests.stores.watching import lines_of


async def test_they_run_beside_the_body_and_end_with_it() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("ended")

    async with alongside(work, work):
        await asyncio.sleep(0)
        assert steps == ["began", "began"]
    assert steps == ["began", "began", "ended", "ended"]


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with alongside(lambda: asyncio.sleep(60)):
            raise KeyError


async def test_work_that_breaks_is_told_of_once_and_begins_anew() -> None:
    runs: list[int] = []

    async def broken() -> None:
        runs.append(1)
        raise OSError("no")

    with lines_of("llmgateway.stores.alongside") as lines:
        async with alongside(broken):
            await eventually(lambda: len(runs) >= 3, "it began anew")
    (line,) = lines
    assert "broken" in line
