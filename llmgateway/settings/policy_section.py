"""The file's `policy` and `fair_share`: who may do what by the word of an identity provider, and whose calls
wait how long for full models."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final, get_args

from msgspec import structs

from llmgateway.domain.book import EVEN, Weights
from llmgateway.domain.entries import read_limits
from llmgateway.domain.fields import Fields, attempt, fields_of
from llmgateway.domain.people import Role
from llmgateway.domain.policy import EVERY_MODEL, Condition, Grants, KeyRules, Policy, Rule
from llmgateway.domain.scalars import Reader, Wrong, described, model_name, number, one_of, text
from llmgateway.settings.keeping import WARNING, days

EVERYBODY = "everybody"
ROLES: Final[Sequence[str]] = get_args(Role)
LEAST_SHARE, LARGEST_SHARE = Decimal("0.01"), Decimal(100)


def read_policy(fields: Fields, complaints: list[str]) -> Policy:
    before = len(complaints)
    rules = [_rule(fields_of(entry, path, complaints)) for path, entry in fields.items("rules")]
    policy = Policy(
        rules=tuple(rules), attributes=_condition(fields, "attributes"), keys=_keys(fields.section("keys"))
    )
    fields.done()
    if len(complaints) == before:
        complaints += [f"{fields.at('rules')}{wrong}" for wrong in _senseless(policy.rules)]
    return policy


def policy_entry(policy: Policy) -> dict[str, Any]:
    """As it would be written."""
    within = policy.keys.sign_in_within
    return {
        "attributes": {name: list(meant) for name, meant in policy.attributes.items()},
        "rules": [_rule_entry(rule) for rule in policy.rules],
        "keys": {
            "sign_in_within": None if within is None else f"{within}d", "warn": f"{policy.keys.warn}d"
        },
    }  # fmt: skip


def read_shares(fields: Fields, complaints: list[str]) -> Weights:
    tokens = fields.section("weights")
    weights = Weights(
        projects=_shares(fields.section("projects"), text, complaints),
        roles=_shares(fields.section("roles"), one_of(ROLES), complaints),
        prompt=tokens.take("prompt", _share, EVEN.prompt),
        completion=tokens.take("completion", _share, EVEN.completion),
    )
    tokens.done()
    fields.done()
    return weights


def shares_entry(weights: Weights) -> dict[str, Any]:
    tokens = {"prompt": weights.prompt, "completion": weights.completion}
    return {"projects": dict(weights.projects), "roles": dict(weights.roles), "weights": tokens}


def _rule(fields: Fields) -> Rule:
    is_for_everybody = fields.raw("when") == EVERYBODY
    rule = Rule(
        name=fields.need("name", text, ""),
        every={} if is_for_everybody else _condition(fields, "when"),
        some=_condition(fields, "when_any"),
        providers=_values(fields, "providers"),
        grants=_grants(fields.section("grants")),
    )
    if not is_for_everybody and not fields.raw("when") and not fields.raw("when_any"):
        fields.complain("when", f"is missing: say which attributes, or '{EVERYBODY}' for all who sign in")
    if fields.raw("grants") is None:
        fields.complain("grants", "is missing: a rule that gives nothing does nothing")
    fields.done()
    return rule


def _grants(fields: Fields) -> Grants:
    grants = Grants(
        roles=tuple(dict.fromkeys(fields.elements("roles", one_of(ROLES)))),
        project=fields.take("project", text, None),
        models=tuple(dict.fromkeys(fields.elements("models", _model))),
        limits=read_limits(fields.section("limits")),
    )
    fields.done()
    return grants


def _keys(fields: Fields) -> KeyRules:
    within = fields.take("sign_in_within", _some_days, None)
    usual = WARNING if within is None else min(WARNING, within // 2)
    warn = fields.take("warn", days, usual)
    if within is not None and warn >= within:
        fields.complain("warn", f"must be shorter than sign_in_within ({within}d)")
    fields.done()
    return KeyRules(sign_in_within=within, warn=warn)


def _senseless(rules: Sequence[Rule]) -> Iterator[str]:
    """What can be written, and cannot be meant."""
    names = [rule.name for rule in rules]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield f"[{i}].name: the name '{name}' is taken already, by rules[{names.index(name)}]"
    if rules and not any(rule.grants.roles for rule in rules):
        yield ": no rule gives a role, such as [user], and who has none is not let in"
    elif rules and not any(rule.grants.models for rule in rules):
        yield f': no rule gives models, such as ["{EVERY_MODEL}"] for all that there are'


def _condition(fields: Fields, name: str) -> Condition:
    """Names of attributes with their values: one, or a list."""
    section = fields.section(name)
    return {key: _values(section, key, is_needed=True) for key, _, _ in section.each()}


def _values(fields: Fields, name: str, *, is_needed: bool = False) -> tuple[str, ...]:
    value = fields.raw(name)
    if value in (None, [], ()):
        if is_needed:
            fields.complain(name, "must name at least one value")
        return ()
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(fields.elements(name, text)))
    one = fields.take(name, text, None)
    return () if one is None else (one,)


def _model(value: object) -> str:
    return EVERY_MODEL if value == EVERY_MODEL else model_name(value)


def _some_days(value: object) -> int:
    found = days(value)
    if found == 0:
        raise Wrong("must be at least 1d; leave it out for never")
    return found


def _shares(fields: Fields, read_name: Reader[str], complaints: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, path, value in fields.each():
        name = attempt(read_name, key, None, path, complaints)
        share = attempt(_share, value, None, path, complaints)
        if name is not None and share is not None:
            found[name] = share
    return found


def _share(value: object) -> float:
    exact = number(value)
    if not LEAST_SHARE <= exact <= LARGEST_SHARE:
        raise Wrong(f"must be a number from {LEAST_SHARE} to {LARGEST_SHARE}, not {described(value)}")
    return float(exact)


def _rule_entry(rule: Rule) -> dict[str, Any]:
    grants = rule.grants
    limits = {name: most for name, most in structs.asdict(grants.limits).items() if most is not None}
    return {
        "name": rule.name,
        "when": {name: list(values) for name, values in rule.every.items()} or EVERYBODY,
        "when_any": {name: list(values) for name, values in rule.some.items()},
        "providers": list(rule.providers),
        "grants": {
            "roles": list(grants.roles), "project": grants.project, "models": list(grants.models),
            "limits": limits,
        },
    }  # fmt: skip
