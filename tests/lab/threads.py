"""Runs a part of the lab in a thread with its own event loop, for tests that have none or block theirs."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def in_thread(part: AbstractAsyncContextManager[T], seconds: float = 10) -> Iterator[T]:
    """The part, opened in the thread's loop; it is closed there too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="lab", daemon=True)
    thread.start()
    try:
        entered = asyncio.run_coroutine_threadsafe(part.__aenter__(), loop).result(seconds)
        try:
            yield entered
        finally:
            asyncio.run_coroutine_threadsafe(part.__aexit__(None, None, None), loop).result(seconds)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(seconds)
        loop.close()
