"""Users: the people and services that keys and records belong to."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from llmgateway.domain.limits import Limits
from llmgateway.domain.policy import Grant

Role = Literal["user", "operator", "admin"]
UserState = Literal["active", "suspended", "gone"]
GONE = "gone:"  # begins what an account that was ended is known by from then on


class User(Struct, frozen=True, kw_only=True):
    """`id` is the `user` of keys and records: a stable subject, never a mail address that may change
    hands. `models` is None where every model is allowed; all keys are held to it.

    Of who signs in with an identity provider, `provider` is which, `grants` what the policy gave last, and
    `by_hand` the fields that an operator set: those the policy leaves alone. Who is let in is neither
    suspended by an operator (`state`) nor shut out by the policy (`lapsed`). Who is `gone` is so for good.
    Words of a later version may stand in `roles`, which give nothing, and in `state`, which let nobody in.
    """

    id: str
    created_at: datetime
    name: str | None = None
    email: str | None = None
    roles: tuple[str, ...] = ("user",)
    project: str | None = None
    limits: Limits = Limits()
    models: tuple[str, ...] | None = None
    state: str = "active"
    provider: str | None = None
    signed_in_at: datetime | None = None
    lapsed: str | None = None
    grants: tuple[Grant, ...] = ()
    by_hand: tuple[str, ...] = ()
    revision: int = 0

    @property
    def is_active(self) -> bool:
        return self.state == "active" and self.lapsed is None

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @property
    def is_operator(self) -> bool:
        """Operators do the daily work; administrators also say who else does, and which models there are."""
        return self.is_admin or "operator" in self.roles
