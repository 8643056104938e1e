"""How long a change takes until every process has heard of it: measured with a change that means nothing.

It goes the same way as the revocation of a key. Its topic is one of which processes remember nothing, its id
no user's.
"""

import asyncio
import logging
from typing import NoReturn

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change, Clock, State

log = logging.getLogger(__name__)

PERIOD = 15.0  # seconds between two measurements


class Propagation:
    """`seconds` is the last measurement: the way from this process to itself, over what the fleet shares."""

    def __init__(self, state: State, clock: Clock, *, name: str, period: float = PERIOD) -> None:
        self._state = state
        self._now = clock.monotonic
        self._change = Change("users", f"/propagation/{name}")  # no id of a user begins so
        self._period = period
        self._sent_at: float | None = None
        self.seconds: float | None = None

    def heed(self, change: Change) -> None:
        if change == self._change and self._sent_at is not None:
            self.seconds = self._now() - self._sent_at
            self._sent_at = None

    async def run(self) -> NoReturn:
        """For ever; while the state is away there is nothing to measure."""
        while True:
            await asyncio.sleep(self._period)
            self._sent_at = self._now()
            try:
                await self._state.announce(self._change)
            except StoreUnavailable:
                self._sent_at = None
            except Exception:
                log.exception("measuring how changes spread failed")
