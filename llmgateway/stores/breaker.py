"""The breaker: while a server does not answer, callers fail at once and one probe asks whether it is back."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from llmgateway.domain.errors import StoreUnavailable

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0  # seconds between two probes
LONGEST_REASON = 200  # drivers describe their whole topology; the beginning says what happened


class Health:
    """Whether a store answers, with one log line each time that changes."""

    def __init__(self, what: str, log: logging.Logger) -> None:
        self.what = what
        self.is_good = True
        self._log = log
        self._since = 0.0

    def good(self) -> None:
        if not self.is_good:
            self.is_good = True
            self._log.info("%s is available again after %.1f s", self.what, time.monotonic() - self._since)

    def bad(self, reason: str) -> None:
        if self.is_good:
            self.is_good = False
            self._since = time.monotonic()
            self._log.warning("%s is not available: %s", self.what, reason)


class Breaker:
    """Closed while the server answers. A failed call opens it; only the probe of `watch` closes it again, so
    nobody pays for finding out."""

    def __init__(self, what: str, log: logging.Logger, *, first: float = FIRST_PAUSE,
                 longest: float = LONGEST_PAUSE) -> None:  # fmt: skip
        self._health = Health(what, log)
        self._first, self._longest = first, longest
        self._round = 0
        self._has_answered = False
        self._closed, self._opened = asyncio.Event(), asyncio.Event()
        self._closed.set()

    @property
    def is_closed(self) -> bool:
        return self._health.is_good

    @property
    def is_proved(self) -> bool:
        """Closed, and not only because nobody has asked yet: the server has answered before."""
        return self._health.is_good and self._has_answered

    def answered(self) -> None:
        self._has_answered = True

    def check(self) -> int:
        """The round that a call begins in, for `failed`. Raises at once while the server is away."""
        if not self._health.is_good:
            raise self._unavailable()
        return self._round

    def failed(self, error: BaseException, began: int) -> StoreUnavailable:
        """What a failed call raises. Opens the breaker, unless the server failed and recovered since the call
        began: then this is old news."""
        if began == self._round:
            self._open(error)
        return self._unavailable()

    async def closed(self) -> None:
        await self._closed.wait()

    async def opened(self) -> None:
        await self._opened.wait()

    async def watch(self, probe: Callable[[], Awaitable[object]]) -> NoReturn:
        """Probes at the start, and after a failed call until `probe` no longer raises `StoreUnavailable`."""
        pause = self._first
        while True:
            try:
                await probe()
            except StoreUnavailable as error:
                self._open(error.__cause__ or error)
            else:
                self._close()
                await self._opened.wait()
                pause = self._first
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._longest)

    def _open(self, error: BaseException) -> None:
        self._health.bad(reason_of(error))
        self._closed.clear()
        self._opened.set()

    def _close(self) -> None:
        self._has_answered = True
        if not self._health.is_good:
            self._round += 1
        self._health.good()
        self._opened.clear()
        self._closed.set()

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._health.what} is not available.", retry_after=1)


def reason_of(error: BaseException) -> str:
    """An error on one line, short enough for a log."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:LONGEST_REASON]}" if text else type(error).__name__
