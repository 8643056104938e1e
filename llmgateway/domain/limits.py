"""Limits: what a subject may use, what a call claims of all its subjects at once, and how a limit stands."""

from typing import Literal

from msgspec import Struct

from llmgateway.domain.periods import Period

LimitName = Literal[
    "requests_per_minute", "tokens_per_minute", "tokens_per_day", "tokens_per_month", "cost_per_month",
    "concurrent_requests",
]  # fmt: skip
ScopeKind = Literal["user", "project", "key", "model"]


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Integers; None where there is no limit. `cost_per_month` is in micro-units."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_per_month: int | None = None
    concurrent_requests: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative")


class Scope(Struct, frozen=True):
    """A subject whose use is counted, and its limits, of which there is at least one."""

    kind: ScopeKind
    id: str
    limits: Limits


class Claim(Struct, frozen=True):
    """What a call may use at most, of all its scopes: reserved before it goes upstream, put right when it
    ends. `period` is that of acceptance; what the call uses later is charged to it, too."""

    id: str
    scopes: tuple[Scope, ...]
    tokens: int
    cost: int
    period: Period


class Standing(Struct, frozen=True):
    """How one limit of one scope stands: `used` holds what is reserved for open calls. `reset` is in seconds:
    until nothing of what is used now counts any more; 0 for `concurrent_requests`."""

    scope: Scope
    name: LimitName
    limit: int
    used: int
    reset: float

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)
