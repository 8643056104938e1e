"""A clock whose dates never jump while the process runs: what expires by it does so in time."""

from datetime import datetime, timedelta

from llmgateway.domain.ports import Clock


class SteadyClock:
    """Begins at the time of day that `clock` tells, and goes on by its monotonic seconds."""

    __slots__ = ("_began", "_zero", "monotonic")

    def __init__(self, clock: Clock) -> None:
        self._began = clock.now()
        self._zero = clock.monotonic()
        self.monotonic = clock.monotonic

    def now(self) -> datetime:
        return self._began + timedelta(seconds=self.monotonic() - self._zero)
