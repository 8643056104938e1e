"""Users: the people and services that keys and records belong to."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from llmgateway.domain.limits import Limits

Role = Literal["user", "operator", "admin"]
UserState = Literal["active", "suspended"]


class User(Struct, frozen=True, kw_only=True):
    """`id` is the `user` of keys and records: a stable subject, never a mail address that may change
    hands."""

    id: str
    created_at: datetime
    name: str | None = None
    email: str | None = None
    roles: tuple[Role, ...] = ("user",)
    project: str | None = None
    limits: Limits = Limits()
    state: UserState = "active"
    revision: int = 0

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @property
    def is_operator(self) -> bool:
        """Operators do the daily work; administrators also say who else does, and which models there are."""
        return self.is_admin or "operator" in self.roles
