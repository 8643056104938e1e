"""What scopes use, counted: sliding minutes, calendar sums, and the places of open calls.

Pure and for one process; `lua/limiter.lua` is the same on Redis for all, and a test holds the two together.
Times are milliseconds. A minute is cut into sixtieths, and each counts as long as its last request does: so
in no minute more than the limit passes, and what is counted too long is less than a sixtieth.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from llmgateway.domain.admission import Counted, ScopeKey
from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.domain.periods import Period

What = Literal["requests", "tokens"]

PARTS = 60  # of a window
LABELS = 3  # days and months remembered of a scope: calls that are open at midnight end in the old one
IDLE_AT = 10_000  # so many scopes, and those that nobody uses are forgotten; the ledger knows their sums


class Reading(Struct, array_like=True, frozen=True, gc=False):
    """How a scope stands. `..._reset`: until nothing of what is used now counts; `..._wait`: until there is
    room for the claim that was refused, -1 for never."""

    requests: int
    tokens: int
    day_tokens: int
    month_tokens: int
    month_cost: int
    places: int
    requests_reset: int
    tokens_reset: int
    requests_wait: int = 0
    tokens_wait: int = 0


class Unknown(Struct, array_like=True, frozen=True):
    """The claim's scope at `index` is not counted from the beginning of its day or month, but from a time
    (`..._since`, of the day's clock) at which the ledger could not be asked; 0: not at all."""

    index: int
    day_since: int
    month_since: int


class Begin(Struct, array_like=True, frozen=True):
    """What the ledger says to an `Unknown`; `is_away`: nothing, go on without."""

    index: int
    day_since: int = 0
    month_since: int = 0
    day_tokens: int = 0
    month_tokens: int = 0
    month_cost: int = 0
    is_away: bool = False


class Answer(Struct, array_like=True, frozen=True):
    """To a claim: either `readings`, one for each scope, or what must be known first."""

    is_taken: bool
    readings: list[Reading] = []
    unknown: list[Unknown] = []


class Part:
    """A sixtieth of a window: the time of its last request, requests, tokens."""

    __slots__ = ("at", "is_over", "requests", "tokens")

    def __init__(self, at: int) -> None:
        self.at = at
        self.requests = self.tokens = 0
        self.is_over = False


class Sums:
    """Of a day or a month. `since` is 0 when it holds all of it."""

    __slots__ = ("cost", "since", "tokens")

    def __init__(self, tokens: int, cost: int, since: int = 0) -> None:
        self.tokens = tokens
        self.cost = cost
        self.since = since


NOTHING, UNKNOWN = Sums(0, 0), Sums(0, 0, -1)


class Use:
    """Of one scope."""

    __slots__ = ("days", "months", "parts", "places", "requests", "tokens")

    def __init__(self) -> None:
        self.parts: deque[Part] = deque()
        self.requests = self.tokens = 0  # of all parts
        self.days: dict[str, Sums] = {}
        self.months: dict[str, Sums] = {}
        self.places = 0

    def roll(self, over: int) -> None:
        """Parts whose last request came at `over` or before count no more."""
        parts = self.parts
        while parts and parts[0].at <= over:
            part = parts.popleft()
            part.is_over = True
            self.requests -= part.requests
            self.tokens -= part.tokens

    def part_at(self, now: int, width: int) -> Part:
        parts = self.parts
        if parts and parts[-1].at // width == now // width:
            parts[-1].at = now
            return parts[-1]
        parts.append(part := Part(now))
        return part

    def has_room(self, limits: Limits, claim: Claim) -> bool:
        """All that the claim asks for fits under the limits."""
        day = self.days.get(claim.period.day, NOTHING)
        month = self.months.get(claim.period.month, NOTHING)
        tokens = claim.tokens
        return (
            ((most := limits.requests_per_minute) is None or self.requests < most)
            and ((most := limits.tokens_per_minute) is None or self.tokens + tokens <= most)
            and ((most := limits.tokens_per_day) is None or day.tokens + tokens <= most)
            and ((most := limits.tokens_per_month) is None or month.tokens + tokens <= most)
            and ((most := limits.cost_per_month) is None or month.cost + claim.cost <= most)
            and ((most := limits.concurrent_requests) is None or self.places < most)
        )

    def reading(self, period: Period, counted_until: int) -> Reading:
        """`counted_until`: for how long a request of this moment counts, from 0."""
        day = self.days.get(period.day, NOTHING)
        month = self.months.get(period.month, NOTHING)
        parts = self.parts
        return Reading(
            self.requests, self.tokens, day.tokens, month.tokens, month.cost, self.places,
            parts[-1].at + counted_until if parts else 0,
            self._last_tokens() + counted_until if self.tokens else 0,
        )  # fmt: skip

    def _last_tokens(self) -> int:
        for part in reversed(self.parts):
            if part.tokens:
                return part.at
        return 0

    def wait(self, limit: int | None, what: What, need: int, counted_until: int) -> int:
        """Until so many requests or tokens have room; -1: they never have."""
        if limit is None:
            return 0
        if need > limit:
            return -1
        is_requests = what == "requests"
        surplus, wait = (self.requests if is_requests else self.tokens) + need - limit, 0
        for part in self.parts:
            if surplus <= 0:
                break
            surplus -= part.requests if is_requests else part.tokens
            wait = part.at + counted_until
        return wait


class Together:
    """The scopes that a key's calls come with, and their uses. In the period `begun` all sums hold all."""

    __slots__ = ("begun", "scopes", "uses")

    def __init__(self, scopes: tuple[Scope, ...], uses: Sequence[Use]) -> None:
        self.scopes = scopes
        self.uses = uses
        self.begun: Period | None = None


Held = tuple[Use, Part | None, Sums | None, Sums | None]
"""What a call has of one scope, and where it is counted."""


class Counts:
    """Claims are taken from all their scopes or from none. `wall` is the time of day, in milliseconds."""

    def __init__(self, window: float, wall: Callable[[], int], *, idle_at: int = IDLE_AT) -> None:
        self._window = int(window * 1000)
        self._width = max(1, self._window // PARTS)
        self._wall = wall
        self._idle_at = self._sweep_at = idle_at
        self._uses: dict[ScopeKey, Use] = {}
        self._known: dict[int, Together] = {}  # by the identity of the scopes, which are kept with it
        self._held: dict[str, tuple[Claim, list[Held]]] = {}

    def claim(self, claim: Claim, now: int, begins: Sequence[Begin] = ()) -> Answer:
        known = self._known.get(id(claim.scopes)) or self._meet(claim.scopes, now)
        uses, period = known.uses, claim.period
        _roll(uses, now - self._window)
        if begins:
            self._begin(claim, uses, begins)
        if known.begun is not period:
            if unknown := _unknown(claim, uses, begins):
                return Answer(is_taken=False, unknown=unknown)
            known.begun = None if begins else period
        counted_until = self._window - now
        for use, scope in zip(uses, claim.scopes, strict=True):
            if not use.has_room(scope.limits, claim):
                return Answer(is_taken=False, readings=self._refused(claim, uses, counted_until))
        self._take(claim, uses, now)
        return Answer(is_taken=True, readings=[use.reading(period, counted_until) for use in uses])

    def look(self, claim: Claim, now: int, begins: Sequence[Begin] = ()) -> Answer:
        """As `claim`, but takes nothing."""
        uses = [self._use(scope) for scope in claim.scopes]
        _roll(uses, now - self._window)
        if begins:
            self._begin(claim, uses, begins)
        if unknown := _unknown(claim, uses, begins):
            return Answer(is_taken=False, unknown=unknown)
        readings = [use.reading(claim.period, self._window - now) for use in uses]
        return Answer(is_taken=True, readings=readings)

    def settle(self, id: str, tokens: int, cost: int) -> None:
        held = self._held.pop(id, None)
        if held is None:
            return
        claim, shares = held
        more, more_cost = tokens - claim.tokens, cost - claim.cost
        for use, part, day, month in shares:
            use.places -= 1
            if part is not None and not part.is_over:
                part.tokens += more
                use.tokens += more
            if day is not None:
                day.tokens += more
            if month is not None:
                month.tokens += more
                month.cost += more_cost

    def settled(self, period: Period) -> dict[ScopeKey, Counted]:
        """What is counted of the day and the month without what is reserved; of whole sums only."""
        reserved: dict[int, list[int]] = {}
        for claim, shares in self._held.values():
            for _, _, day, month in shares:
                for sums in (day, month):
                    of = reserved.setdefault(id(sums), [0, 0])
                    of[0] += claim.tokens
                    of[1] += claim.cost
        found: dict[ScopeKey, Counted] = {}
        for key, use in self._uses.items():
            day, month = _whole(use.days, period.day), _whole(use.months, period.month)
            tokens, (of_month, cost) = reserved.get(id(day), (0, 0))[0], reserved.get(id(month), (0, 0))
            found[key] = Counted(
                None if day is None else day.tokens - tokens,
                None if month is None else month.tokens - of_month,
                None if month is None else month.cost - cost,
            )
        return found

    def add(self, period: Period, more: Mapping[ScopeKey, tuple[int, int, int]]) -> None:
        for key, (tokens, of_month, cost) in more.items():
            if (use := self._uses.get(key)) is None:
                continue
            if (day := _whole(use.days, period.day)) is not None:
                day.tokens += tokens
            if (month := _whole(use.months, period.month)) is not None:
                month.tokens += of_month
                month.cost += cost

    def adopt(self, claim: Claim) -> None:
        """A call that was let in elsewhere: it has its places here, too."""
        uses = [self._use(scope) for scope in claim.scopes]
        self._held[claim.id] = (claim, [(use, None, None, None) for use in uses])
        for use in uses:
            use.places += 1

    def used_before(self, scope: Scope, at: int, requests: int, tokens: int) -> None:
        """What a scope used in the window, counted elsewhere until `at`; only of one that is new here."""
        use = self._use(scope)
        if not use.parts:
            part = use.part_at(at, self._width)
            part.requests = use.requests = requests
            part.tokens = use.tokens = tokens

    def _use(self, scope: Scope) -> Use:
        use = self._uses.get((scope.kind, scope.id))
        if use is None:
            use = self._uses[scope.kind, scope.id] = Use()
        return use

    def _meet(self, scopes: tuple[Scope, ...], now: int) -> Together:
        if max(len(self._uses), len(self._known)) >= self._sweep_at:
            self._forget_idle(now)
        known = self._known[id(scopes)] = Together(scopes, [self._use(scope) for scope in scopes])
        return known

    def _begin(self, claim: Claim, uses: Sequence[Use], begins: Sequence[Begin]) -> None:
        period = claim.period
        for begin in begins:
            use, limits = uses[begin.index], claim.scopes[begin.index].limits
            if limits.tokens_per_day is not None:
                _begin(use.days, period.day, begin, (begin.day_since, begin.day_tokens, 0), self._wall)
            if limits.tokens_per_month is not None or limits.cost_per_month is not None:
                found = (begin.month_since, begin.month_tokens, begin.month_cost)
                _begin(use.months, period.month, begin, found, self._wall)

    def _refused(self, claim: Claim, uses: Sequence[Use], counted_until: int) -> list[Reading]:
        readings = []
        for use, scope in zip(uses, claim.scopes, strict=True):
            now, limits = use.reading(claim.period, counted_until), scope.limits
            readings.append(Reading(
                now.requests, now.tokens, now.day_tokens, now.month_tokens, now.month_cost, now.places,
                now.requests_reset, now.tokens_reset,
                use.wait(limits.requests_per_minute, "requests", 1, counted_until),
                use.wait(limits.tokens_per_minute, "tokens", claim.tokens, counted_until),
            ))  # fmt: skip
        return readings

    def _take(self, claim: Claim, uses: Sequence[Use], now: int) -> None:
        tokens, period = claim.tokens, claim.period
        shares: list[Held] = []
        for use in uses:
            part = use.part_at(now, self._width)
            part.requests += 1
            part.tokens += tokens
            use.requests += 1
            use.tokens += tokens
            use.places += 1
            if (day := use.days.get(period.day)) is not None:
                day.tokens += tokens
            if (month := use.months.get(period.month)) is not None:
                month.tokens += tokens
                month.cost += claim.cost
            shares.append((use, part, day, month))
        self._held[claim.id] = (claim, shares)

    def _forget_idle(self, now: int) -> None:
        over = now - self._window
        kept = {key: use for key, use in self._uses.items()
                if use.places or (use.parts and use.parts[-1].at > over)}  # fmt: skip
        self._uses = kept
        self._known.clear()
        self._sweep_at = max(self._idle_at, 2 * len(kept))


def _roll(uses: Iterable[Use], over: int) -> None:
    for use in uses:
        parts = use.parts
        if parts and parts[0].at <= over:
            use.roll(over)


def _whole(sums: Mapping[str, Sums], label: str) -> Sums | None:
    found = sums.get(label)
    return found if found is not None and not found.since else None


def _unknown(claim: Claim, uses: Sequence[Use], begins: Sequence[Begin]) -> list[Unknown]:
    """Scopes with a calendar limit whose sums do not hold all, unless the ledger is known to be away."""
    unknown, period = [], claim.period
    for index, (scope, use) in enumerate(zip(claim.scopes, uses, strict=True)):
        limits = scope.limits
        needs_day = limits.tokens_per_day is not None
        needs_month = limits.tokens_per_month is not None or limits.cost_per_month is not None
        if not needs_day and not needs_month:
            continue
        day = use.days.get(period.day, UNKNOWN) if needs_day else NOTHING
        month = use.months.get(period.month, UNKNOWN) if needs_month else NOTHING
        if not day.since and not month.since:
            continue
        if not any(begin.index == index and begin.is_away for begin in begins):
            unknown.append(Unknown(index, max(0, day.since), max(0, month.since)))
    return unknown


def _begin(known: dict[str, Sums], label: str, begin: Begin, found: tuple[int, int, int],
           wall: Callable[[], int]) -> None:  # fmt: skip
    """Sums that are not there yet begin; those that began without the ledger get what it says, once."""
    since, tokens, cost = found
    sums = known.get(label)
    if sums is None and (begin.is_away or not since):
        if len(known) >= LABELS:
            del known[min(known)]
        known[label] = Sums(0, 0, wall()) if begin.is_away else Sums(tokens, cost)
    elif sums is not None and sums.since and not begin.is_away and sums.since == since:
        sums.tokens += tokens
        sums.cost += cost
        sums.since = 0
