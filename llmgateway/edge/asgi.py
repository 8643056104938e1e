"""ASGI's types, and the one trick that the gateway plays with them."""

from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from types import coroutine
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def begin(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Runs a coroutine to its first wait, now: None when it is done, else the rest of it, to be awaited by a
    task.

    A server's `send` waits only when the client reads too slowly. So a chunk goes from the upstream's socket
    to the client's inside one callback, without a task switch, and back-pressure still has a task to stop.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return _rest(work, waits_for)


@coroutine
def _rest(work: Coroutine[Any, Any, None], waits_for: object) -> Generator[Any, Any, None]:
    """Waits first for what the work has already begun to wait for, then goes on with it."""
    try:
        yield waits_for
    except BaseException:
        work.close()
        raise
    yield from work.__await__()
