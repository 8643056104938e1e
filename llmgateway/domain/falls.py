"""Work that is meant to go on for ever and has broken off: how soon again, and what is said of it."""

import logging

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds until it begins anew
SILENCE = 60.0  # seconds in which the same failure is told once


class Falls:
    """Of one work, `what`. Times are seconds of a monotonic clock."""

    __slots__ = ("_last", "_log", "_pause", "_told_at", "_what", "count")

    def __init__(self, what: str, log: logging.Logger) -> None:
        self._what = what
        self._log = log
        self._last: tuple[type[Exception], str] | None = None
        self._told_at = float("-inf")
        self._pause = FIRST_PAUSE
        self.count = 0

    def note(self, error: Exception, now: float) -> float:
        """The pause until it begins anew."""
        self.count += 1
        this, is_late = (type(error), str(error)), now - self._told_at >= SILENCE
        self._pause = FIRST_PAUSE if is_late else min(2 * self._pause, LONGEST_PAUSE)
        if is_late or this != self._last:
            self._last, self._told_at = this, now
            self._log.error("%s has failed and begins anew", self._what, exc_info=error)
        return self._pause
