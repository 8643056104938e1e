"""Doubles: ordinary classes that implement ports, for what a test wants to hold in its hand."""

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


class HandClock:
    """Implements `domain.ports.Clock`; time passes when the test says so."""

    def __init__(self, at: datetime = NOON) -> None:
        self._at = at
        self._passed = 1000.0

    def monotonic(self) -> float:
        return self._passed

    def now(self) -> datetime:
        return self._at

    def pass_by(self, seconds: float) -> None:
        self._passed += seconds
        self._at += timedelta(seconds=seconds)
