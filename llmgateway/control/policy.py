"""The policy's decision: what the attributes of a person are worth here, and which rule says so.

Nothing is given unless a rule gives it. Of all rules that match, roles and models add up, of each limit the
most generous counts, and of projects the first.
"""

from collections.abc import Iterable, Iterator, Sequence

from llmgateway.domain.identity import Attributes
from llmgateway.domain.limits import Limits
from llmgateway.domain.policy import EVERY_MODEL, Condition, Decision, Grant, Policy, Rule

ANYTHING = "*"


def decide(policy: Policy, attributes: Attributes, provider: str) -> Decision:
    """`provider` is who says that these are the attributes."""
    known = _named(policy, attributes)
    rules = [rule for rule in policy.rules if _matches(rule, known, provider)]
    return Decision(tuple(rule.name for rule in rules), tuple(_given(rules)))


def fits(value: str, pattern: str) -> bool:
    """`*` stands for any characters, all else for itself, capitals too. An empty value says nothing."""
    first, *rest = pattern.split(ANYTHING)
    if not rest:
        return value == pattern != ""
    last = rest.pop()
    if not value.strip() or len(value) < len(first) + len(last) or not value.startswith(first):
        return False
    at = len(first)
    for part in rest:  # as early as can be: if that does not fit, nothing does
        found = value.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return value.endswith(last) and at <= len(value) - len(last)


def _named(policy: Policy, attributes: Attributes) -> Attributes:
    """With the policy's short names for them."""
    short = {
        name: tuple(value for one in meant for value in attributes.get(one, ()))
        for name, meant in policy.attributes.items()
    }
    return {**attributes, **short}


def _matches(rule: Rule, attributes: Attributes, provider: str) -> bool:
    if rule.providers and provider not in rule.providers:
        return False
    return all(_hits(rule.every, attributes)) and (not rule.some or any(_hits(rule.some, attributes)))


def _hits(condition: Condition, attributes: Attributes) -> Iterator[bool]:
    for name, patterns in condition.items():
        values = attributes.get(name, ())
        yield any(fits(value, pattern) for value in values for pattern in patterns)


def _given(rules: Sequence[Rule]) -> Iterator[Grant]:
    """Of equals, the first rule gave it."""
    roles = _firsts((role, rule.name) for rule in rules for role in rule.grants.roles)
    models = _firsts((model, rule.name) for rule in rules for model in rule.grants.models)
    if EVERY_MODEL in models:  # whatever else is named is in it
        models = {EVERY_MODEL: models[EVERY_MODEL]}
    projects = [(rule.grants.project, rule.name) for rule in rules if rule.grants.project is not None]
    yield from (Grant("role", role, rule) for role, rule in roles.items())
    yield from (Grant("project", project, rule) for project, rule in projects[:1])
    yield from (Grant("model", model, rule) for model, rule in models.items())
    yield from _limits(rules)


def _limits(rules: Sequence[Rule]) -> Iterator[Grant]:
    for name in Limits.__struct_fields__:
        offers = [(getattr(rule.grants.limits, name), rule.name) for rule in rules]
        named = [(most, rule) for most, rule in offers if most is not None]
        if named:
            most, rule = max(named, key=lambda offer: offer[0])
            yield Grant("limit", name, rule, most)


def _firsts(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value, rule in pairs:
        found.setdefault(value, rule)
    return found
