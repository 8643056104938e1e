"""The conformance suite on the state of one process, its bounds, and what another process writes."""

import asyncio
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change
from llmgateway.stores.memory import BACKLOG, MemoryState
from llmgateway.stores.sqlite import open_sqlite
from tests.stores.contract import StateContract, key, soon

WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("DELETE FROM documents")
connection.commit()
"""


class TestMemory(StateContract):
    @pytest.fixture
    def state(self) -> MemoryState:
        return MemoryState(hold=0.3)

    @pytest.fixture
    def other_state(self, state: MemoryState) -> MemoryState:
        return state


async def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    state = MemoryState(size=3)
    for id in "abc":
        await state.cache_key(key(id), 30)
    assert await state.cached_key("a") is not None
    await state.cache_key(key("d"), 30)
    assert [id for id in "abcd" if await state.cached_key(id)] == ["a", "c", "d"]


async def test_a_listener_that_is_far_behind_is_told_to_forget_everything() -> None:
    state = MemoryState()
    async with aclosing(state.changes()) as feed:
        await anext(feed)
        for n in range(BACKLOG + 1):
            await state.announce(Change("keys", f"k{n}"))
        assert await soon(anext(feed)) == Change("*")
        assert await soon(anext(feed)) == Change("keys", f"k{BACKLOG}")


async def test_a_write_of_another_process_reaches_every_listener_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    async with open_sqlite(path) as store:
        await store.insert("keys", key())
        state = MemoryState(store.changed_elsewhere)
        await state.cache_key(key(), 30)
        async with aclosing(state.changes()) as one, aclosing(state.changes()) as two:
            assert [await anext(one), await anext(two)] == [Change("*")] * 2
            told = [asyncio.ensure_future(anext(feed)) for feed in (one, two)]
            done, _ = await asyncio.wait(told, timeout=0.7)
            assert not done  # what this process writes is no news
            assert await asyncio.to_thread(subprocess.call, [sys.executable, "-c", WRITE, path]) == 0
            written = time.perf_counter()
            assert await asyncio.wait_for(asyncio.gather(*told), 2) == [Change("*")] * 2
            assert time.perf_counter() - written < 1
        assert await state.cached_key("k1") is None


async def test_a_store_that_is_away_does_not_end_the_feed() -> None:
    answers = iter([StoreUnavailable("locked"), True])

    async def changed() -> bool:
        answer = next(answers, False)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    async with aclosing(MemoryState(changed).changes()) as feed:
        await anext(feed)
        assert await soon(anext(feed), 3) == Change("*")
