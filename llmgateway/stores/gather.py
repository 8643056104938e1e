"""Gathering: what many callers ask in one turn of the event loop goes to a server as one batch.

Callers wait on futures and never touch a connection, so a cancelled caller cannot shift replies between
others, and a batch costs little more than one call. A few lanes each carry one batch at a time.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, NoReturn, TypeVar

from llmgateway.domain.errors import StoreUnavailable

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

LARGEST_BATCH = 256


class Gatherer(Generic[Ask, Answer]):
    """`carry` takes a batch and returns, in its order, an answer or the exception in its place for each. When
    it raises `StoreUnavailable` the whole batch fails with that."""

    def __init__(self, carry: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer | Exception]]]) -> None:
        self._carry = carry
        self._pending: deque[tuple[Ask, asyncio.Future[Answer]]] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._is_closed = False

    def ask(self, ask: Ask) -> "asyncio.Future[Answer]":
        """The answer to come. Its holder may cancel it at any time."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._is_closed:
            answer.set_exception(StoreUnavailable("The gateway is closing this connection."))
            return answer
        self._pending.append((ask, answer))
        self._wake()
        return answer

    async def lane(self) -> NoReturn:
        """Carries batch after batch, for ever. As many batches are under way at once as there are lanes."""
        while True:
            if not self._pending:
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(turn)
                await turn
            if batch := self._take():
                await self._deliver(batch)

    def close(self) -> None:
        """Fails what still waits, and whatever is asked from now on."""
        self._is_closed = True
        _fail(self._pending, StoreUnavailable("The gateway is closing this connection."))
        self._pending.clear()

    def _wake(self) -> None:
        if self._idle:
            turn = self._idle.pop()
            if not turn.done():  # else its lane is being closed
                turn.set_result(None)

    def _take(self) -> list[tuple[Ask, "asyncio.Future[Answer]"]]:
        batch: list[tuple[Ask, asyncio.Future[Answer]]] = []
        while self._pending and len(batch) < LARGEST_BATCH:
            asked = self._pending.popleft()
            if not asked[1].done():
                batch.append(asked)
        if self._pending:
            self._wake()
        return batch

    async def _deliver(self, batch: list[tuple[Ask, "asyncio.Future[Answer]"]]) -> None:
        try:
            answers = await self._carry([ask for ask, _ in batch])
        except StoreUnavailable as error:
            _fail(batch, error)
            return
        except BaseException:
            _fail(batch, StoreUnavailable("The call to the server was cut off."))
            raise
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _fail(asked: "Iterable[tuple[Ask, asyncio.Future[Answer]]]",
          error: StoreUnavailable) -> None:  # fmt: skip
    """Each waiting caller gets an exception of its own: a shared one would collect all their tracebacks."""
    for _, future in asked:
        if not future.done():
            own = StoreUnavailable(error.message, retry_after=error.retry_after)
            own.__cause__ = error
            future.set_exception(own)
