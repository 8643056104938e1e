"""Waiting for a condition with a deadline: what tests do instead of sleeping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.02


async def eventually(condition: Callable[[], T], what: str, seconds: float = 5) -> T:
    """The first truthy value of `condition`; AssertionError when there was none in time."""

    async def ask() -> T:
        return condition()

    return await eventually_answers(ask, what, seconds)


async def eventually_answers(condition: Callable[[], Awaitable[T]], what: str, seconds: float = 5) -> T:
    """As `eventually`, for a condition that has to be asked for over a socket."""
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    while not (value := await condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {value!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return value


def wait_until(condition: Callable[[], T], what: str, seconds: float = 5) -> T:
    """As `eventually`, for what is started before there is an event loop."""
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {value!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return value
