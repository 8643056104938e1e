"""Two workers, their journals, Redis and a ledger, in whatever order calls, crashes and outages come."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from tests.lab.bookkeeping import Books, Call, open_books

pytestmark = pytest.mark.service

RUNS = [pytest.param(12, 25), pytest.param(400, 50, marks=pytest.mark.soak)]
AMOUNTS = st.integers(min_value=0, max_value=4000)


class Bookkeeping(RuleBasedStateMachine):
    """Each step runs to its end in one event loop; the books live in a task of their own."""

    redis_url = ""

    def __init__(self) -> None:
        super().__init__()
        self._root = Path(tempfile.mkdtemp(prefix="books-"))
        self._runner = asyncio.Runner()
        self._closing = asyncio.Event()
        self._runner.run(self._open())

    async def _open(self) -> None:
        opened: asyncio.Future[Books] = asyncio.get_running_loop().create_future()

        async def live() -> None:
            async with open_books(self._root, self.redis_url) as books:
                opened.set_result(books)
                await self._closing.wait()

        self._life = asyncio.ensure_future(live())
        self.books = await opened

    calls = Bundle("calls")

    def _does(self, step: Any) -> Any:
        async def done() -> Any:
            return await step

        return self._runner.run(done())

    @initialize()
    def two_workers(self) -> None:
        for _ in range(2):
            self._does(self.books.begin())

    @rule(target=calls, which=st.integers(0, 1), tokens=AMOUNTS, is_accepted=st.booleans())
    def a_call(self, which: int, tokens: int, is_accepted: bool) -> Any:
        worker = list(self.books.workers)[which % len(self.books.workers)]
        call = self._does(self.books.ask(worker, tokens))
        if call is None:
            return multiple()
        if is_accepted:
            self.books.accept(call)
        return call

    @rule(call=calls, tokens=AMOUNTS)
    def it_goes_on(self, call: Call, tokens: int) -> None:
        if call.is_open and not call.is_lost and call.record is not None:
            self.books.progress(call, tokens)

    @rule(call=consumes(calls), tokens=AMOUNTS)
    def it_ends(self, call: Call, tokens: int) -> None:
        async def ends() -> None:
            if call.is_open and not call.is_lost:
                self.books.settle(call, tokens)

        self._does(ends())

    @precondition(lambda self: len(self.books.workers) > 1)
    @rule(which=st.integers(0, 1))
    def a_worker_is_killed(self, which: int) -> None:
        self._does(self.books.kill(list(self.books.workers)[which]))

    @rule(is_replaced=st.booleans())
    def somebody_takes_over(self, is_replaced: bool) -> None:
        if is_replaced and len(self.books.workers) < 2:
            self._does(self.books.begin())
        self._does(self.books.take_over(list(self.books.workers)[-1]))

    @rule(how=st.sampled_from(["well", "away", "answer lost"]))
    def records_are_shipped(self, how: str) -> None:
        self.books.is_away, self.books.loses_answer = how == "away", how == "answer lost"
        for worker in list(self.books.workers.values()):
            self._does(worker.shipper.ship())
        self.books.is_away = False

    @rule()
    def redis_forgets(self) -> None:
        """What the dead had settled and not shipped must be in the ledger, too, of which the sums begin."""
        if not any(call.is_lost for call in self.books.calls.values()):
            self.books.loses_answer = False
            self._does(self.books.take_over(list(self.books.workers)[-1]))
            for worker in self.books.workers.values():
                assert self._does(worker.shipper.ship())
            self._does(self.books.flush())

    @invariant()
    def nothing_is_owed_by_the_living(self) -> None:
        for call in self.books.calls.values():
            assert call.spent >= 0

    @override
    def teardown(self) -> None:
        try:
            self._does(self._finish())
        finally:
            self._runner.close()
            shutil.rmtree(self._root, ignore_errors=True)

    async def _finish(self) -> None:
        books = self.books
        if books.workers:
            books.loses_answer = False
            for call in books.calls.values():
                if call.is_open and not call.is_lost:
                    books.settle(call, call.claimed)
            await books.take_over(next(iter(books.workers)))
            for worker in books.workers.values():
                assert await worker.shipper.ship()
            await books.agree()
        self._closing.set()
        await self._life


@pytest.mark.parametrize(("examples", "steps"), RUNS)
def test_r_acc_01_09_10_whatever_happens_the_books_agree(redis_url: str, examples: int, steps: int) -> None:
    class Here(Bookkeeping):
        pass

    Here.redis_url = redis_url
    how = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(Here, settings=how)
