"""What the calls themselves tell about a replica: how many it has now, and whether it keeps failing.

Outlier ejection as in Envoy, without active checks: after five failures in a row a replica is asked last for
30 s, then one call tries it; a failure doubles the time. No replica is ever refused altogether: the last one
is still asked.
"""

from collections.abc import Callable, Sequence

from llmgateway.domain.catalog import Target
from llmgateway.domain.errors import GatewayError, UpstreamError, UpstreamRefused

FAILURES = 5
EJECTED_SECONDS, EJECTED_MOST = 30.0, 600.0


class Replica:
    """The state of one address, for as long as the process lives."""

    __slots__ = ("_ejected_for", "_failures", "_now", "ejected_until", "in_flight")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failures = 0
        self._ejected_for = 0.0
        self.ejected_until = 0.0
        self.in_flight = 0

    def left(self, error: BaseException) -> None:
        """A call ended before it had an answer; only a failure of the server's counts against it."""
        self.in_flight -= 1
        if isinstance(error, UpstreamError):
            self.failed()

    def answered(self, status: int, error: GatewayError | None) -> None:
        """A call that had an answer has ended, with `error` if that broke off."""
        self.in_flight -= 1
        if status >= 500 or (error is not None and _is_failure(error)):
            self.failed()
        else:
            self.succeeded()

    def succeeded(self) -> None:
        self._failures = 0
        self._ejected_for = 0.0

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES and self._now() >= self.ejected_until:
            self._ejected_for = min(self._ejected_for * 2 or EJECTED_SECONDS, EJECTED_MOST)
            self.ejected_until = self._now() + self._ejected_for

    @property
    def is_up(self) -> bool:
        """Not ejected; one whose time has passed is up for one call at a time until that call succeeds."""
        return self._failures < FAILURES or (self._now() >= self.ejected_until and self.in_flight == 0)


class Replicas:
    """All replicas by address."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._by_url: dict[str, Replica] = {}

    def of(self, target: Target) -> Replica:
        replica = self._by_url.get(target.url)
        if replica is None:
            replica = self._by_url[target.url] = Replica(self._now)
        return replica

    def order(self, targets: Sequence[Target]) -> Sequence[Target]:
        """By preference, the given order; of the replicas of one model the least busy first. Those that are
        down last."""
        first: dict[tuple[str, str], int] = {}
        for place, target in enumerate(targets):
            first.setdefault((target.provider, target.model), place)
        return sorted(targets, key=lambda target: self._rank(target, first[target.provider, target.model]))

    def _rank(self, target: Target, preference: int) -> tuple[bool, float, int]:
        replica = self.of(target)
        return (False, preference, replica.in_flight) if replica.is_up else (True, replica.ejected_until, 0)

    def seen(self) -> dict[str, Replica]:
        return dict(self._by_url)


def _is_failure(error: GatewayError) -> bool:
    """Whether it is the server's: a refusal in the middle of a stream may be the request's own fault."""
    if isinstance(error, UpstreamRefused):
        return error.status >= 500
    return isinstance(error, UpstreamError)
