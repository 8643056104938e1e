"""Stand-ins for ports where the real thing cannot be brought into the state that a test needs."""

from datetime import UTC, datetime, timedelta

from typing_extensions import override

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change
from llmgateway.stores.memory import MemoryState


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self, at: datetime = datetime(2026, 11, 20, 12, tzinfo=UTC)) -> None:
        self.at = at
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds

    def move(self, by: timedelta) -> None:
        self.at += by
        self.seconds += by.total_seconds()

    def pass_seconds(self, seconds: float) -> None:
        self.move(timedelta(seconds=seconds))


class WatchedState(MemoryState):
    """Keeps what was announced; while `is_down` nothing can be."""

    def __init__(self) -> None:
        super().__init__()
        self.announced: list[Change] = []
        self.is_down = False

    @override
    async def announce(self, change: Change) -> None:
        if self.is_down:
            raise StoreUnavailable("The state store is away.")
        self.announced.append(change)
        await super().announce(change)
