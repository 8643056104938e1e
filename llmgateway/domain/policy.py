"""Policy: the operators' rules of who may do what here, and what they make of one person."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from llmgateway.domain.limits import Limits

What = Literal["role", "project", "model", "limit"]
Lapse = Literal["denied", "absent"]
Condition = Mapping[str, tuple[str, ...]]
EVERY_MODEL = "*"
NO_CONDITION: Condition = MappingProxyType({})


class Grants(Struct, frozen=True, kw_only=True):
    """What a rule gives. `models` are names, or `*` for every one there is."""

    roles: tuple[str, ...] = ()
    project: str | None = None
    models: tuple[str, ...] = ()
    limits: Limits = Limits()


class Rule(Struct, frozen=True, kw_only=True):
    """Matches who has one of the values of every attribute in `every`, and one value at all of those in
    `some` where there are any. `providers` are the identity providers it believes, all where there are
    none."""

    name: str
    every: Condition = NO_CONDITION
    some: Condition = NO_CONDITION
    providers: tuple[str, ...] = ()
    grants: Grants = Grants()


class KeyRules(Struct, frozen=True, kw_only=True):
    """Days: keys are suspended `sign_in_within` after their owner's last sign-in, None for never; `warn`
    before that the owner is told of."""

    sign_in_within: int | None = None
    warn: int = 14


class Policy(Struct, frozen=True, kw_only=True):
    """`attributes` gives short names to attributes: of several, all values count."""

    rules: tuple[Rule, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = NO_CONDITION
    keys: KeyRules = KeyRules()


class Grant(Struct, frozen=True):
    """One thing that somebody was given, and by which rule. `value` names it; `most` is that of a limit. What
    a later version gave may be another `What`, or a limit of another name: neither counts here."""

    what: str
    value: str
    rule: str
    most: int | None = None


class Decision(Struct, frozen=True):
    """What the rules that match give together; `rules` are their names, in order."""

    rules: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()

    @property
    def is_admitted(self) -> bool:
        """Who is given no role is not let in, whatever else a rule would give."""
        return any(grant.what == "role" for grant in self.grants)


def roles_of(grants: Sequence[Grant]) -> tuple[str, ...]:
    return _values(grants, "role")


def project_of(grants: Sequence[Grant]) -> str | None:
    return next(iter(_values(grants, "project")), None)


def models_of(grants: Sequence[Grant]) -> tuple[str, ...] | None:
    """None for every model; nothing given is none at all."""
    models = _values(grants, "model")
    return None if EVERY_MODEL in models else models


def limits_of(grants: Sequence[Grant]) -> Limits:
    limits = {grant.value: grant.most for grant in grants if grant.what == "limit"}
    return Limits(**{name: limits[name] for name in Limits.__struct_fields__ if name in limits})


def _values(grants: Sequence[Grant], what: What) -> tuple[str, ...]:
    return tuple(grant.value for grant in grants if grant.what == what)
