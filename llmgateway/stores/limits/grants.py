"""What one worker let in within the last minute, by scope, and what of its shares is used: all it needs when
Redis is away, and all that Redis needs when it has lost its counts."""

from collections.abc import Iterator

from msgspec import Struct

from llmgateway.domain.admission import ScopeKey
from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.stores.limits.windows import PARTS, Part, Use

SWEEP_AT = 10_000  # so many scopes, and those that are not used any more are forgotten

Scopes = tuple[Scope, ...]
Counted = list[Part]
"""Where a call is counted."""


class Window(Struct, frozen=True):
    """What a scope was given here: ms ago, requests, tokens; one after the other."""

    scope: Scope
    parts: list[int]


class Grants:
    """`window` is in milliseconds, as all times are."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._width = max(1, window // PARTS)
        self._uses: dict[ScopeKey, tuple[Scope, Use]] = {}
        self._of: dict[int, tuple[Scopes, list[Use]]] = {}  # by identity: a key's calls come with the same
        self._sweep_at = SWEEP_AT

    def take(self, claim: Claim, now: int) -> Counted:
        known, over = self._of.get(id(claim.scopes)), now - self._window
        uses = known[1] if known is not None else self._meet(claim.scopes, now)
        counted: Counted = []
        for use in uses:
            parts = use.parts
            if parts and parts[0].at <= over:
                use.roll(over)
            part = use.part_at(now, self._width)
            part.requests += 1
            part.tokens += claim.tokens
            counted.append(part)
        return counted

    def correct(self, counted: Counted, more: int) -> None:
        """A call has used so many tokens more than it claimed."""
        for part in counted:
            part.tokens += more

    def windows(self, now: int) -> Iterator[Window]:
        for scope, use in self._uses.values():
            use.roll(now - self._window)
            if use.parts:
                parts = [n for part in use.parts for n in (now - part.at, part.requests, part.tokens)]
                yield Window(scope, parts)

    def _meet(self, scopes: Scopes, now: int) -> list[Use]:
        if max(len(self._uses), len(self._of)) >= self._sweep_at:
            self._forget(now)
        uses: list[Use] = []
        for scope in scopes:
            if has_minute(scope.limits):
                _, use = self._uses.get((scope.kind, scope.id)) or (scope, Use())
                self._uses[scope.kind, scope.id] = (scope, use)
                uses.append(use)
        self._of[id(scopes)] = (scopes, uses)  # which keeps them, so that no others get their identity
        return uses

    def _forget(self, now: int) -> None:
        over = now - self._window
        self._of.clear()
        kept = {key: one for key, one in self._uses.items() if one[1].parts and one[1].parts[-1].at > over}
        self._uses = kept
        self._sweep_at = max(SWEEP_AT, 2 * len(kept))


class Spending(Struct):
    """What of this worker's share is used of a scope since a `telling`, of requests and of tokens; `at` is
    when that was last heard or changed."""

    telling: int
    requests: int
    tokens: int
    at: int


class Shares:
    """What every worker knows of how much it may let in alone, should Redis go away now.

    Redis shares out what is left of a limit among all workers each time it tells how much is used, and tells
    it again, to all of them, when it gives one of them more than its share: what is used and what all may
    give alone is never more than the limit. What was heard a minute ago counts no more.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._known: dict[ScopeKey, Spending] = {}
        self._sweep_at = SWEEP_AT

    def heard(self, key: ScopeKey, spending: Spending) -> None:
        """From whomever: an older telling is no news."""
        known = self._known.get(key)
        is_old = known is not None and known.at > spending.at - self._window
        if known is None or not is_old or spending.telling >= known.telling:
            self._known[key] = spending
            if len(self._known) >= self._sweep_at:
                self._forget(spending.at)

    def told(self, key: ScopeKey, spending: Spending) -> None:
        """To all workers: who has heard of it with an answer knows better."""
        known = self._known.get(key)
        if known is None or spending.telling > known.telling or known.at <= spending.at - self._window:
            self.heard(key, spending)

    def spent(self, claim: Claim, now: int) -> None:
        """Let in alone."""
        for scope in claim.scopes:
            if has_minute(scope.limits):
                spending = self._known.setdefault((scope.kind, scope.id), Spending(-1, 0, 0, now))
                spending.requests += 1
                spending.tokens += claim.tokens
                spending.at = now

    def begin_anew(self) -> None:
        """Redis has lost its tellings and counts them from the first again."""
        for spending in self._known.values():
            spending.telling = -1

    def of(self, key: ScopeKey) -> Spending | None:
        return self._known.get(key)

    def _forget(self, now: int) -> None:
        self._known = {key: one for key, one in self._known.items() if one.at > now - self._window}
        self._sweep_at = max(SWEEP_AT, 2 * len(self._known))


def has_minute(limits: Limits) -> bool:
    return limits.requests_per_minute is not None or limits.tokens_per_minute is not None
