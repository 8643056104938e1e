"""The policy's decision: who matches, what adds up, and that nothing is given unless a rule gives it."""

import re

import pytest
from hypothesis import given, strategies as st

from llmgateway.control.policy import decide, fits
from llmgateway.domain.limits import Limits
from llmgateway.domain.policy import (
    Decision,
    Grant,
    Grants,
    Policy,
    Rule,
    limits_of,
    models_of,
    project_of,
    roles_of,
)

IDP = "https://idp.example.org/"
STAFF = Rule(
    name="staff", every={"affiliation": ("employee", "faculty")},
    grants=Grants(roles=("user",), project="campus", models=("small", "large"),
                  limits=Limits(tokens_per_day=100, requests_per_minute=9)),
)  # fmt: skip
HEAVY = Rule(
    name="heavy", some={"groups": ("gpu-*",), "entitlement": ("urn:example:*:llm",)},
    grants=Grants(roles=("user", "operator"), project="gpu", models=("large", "huge"),
                  limits=Limits(tokens_per_day=500, requests_per_minute=9)),
)  # fmt: skip
POLICY = Policy(rules=(STAFF, HEAVY))


def decided(policy: Policy = POLICY, provider: str = IDP, **attributes: tuple[str, ...]) -> Decision:
    return decide(policy, attributes, provider)


def test_nobody_is_given_anything_unless_a_rule_gives_it() -> None:
    student = decided(affiliation=("student",))
    for found in (decided(), decided(affiliation=()), student, decide(Policy(), {}, IDP)):
        assert found == Decision()
        assert not found.is_admitted


def test_each_grant_names_the_rule_that_gave_it() -> None:
    found = decided(affiliation=("member", "faculty"), groups=("gpu-a",))
    assert found.is_admitted
    assert found.rules == ("staff", "heavy")
    assert found.grants == (
        Grant("role", "user", "staff"), Grant("role", "operator", "heavy"),
        Grant("project", "campus", "staff"),
        Grant("model", "small", "staff"), Grant("model", "large", "staff"), Grant("model", "huge", "heavy"),
        Grant("limit", "requests_per_minute", "staff", 9), Grant("limit", "tokens_per_day", "heavy", 500),
    )  # fmt: skip
    assert roles_of(found.grants) == ("user", "operator")
    assert project_of(found.grants) == "campus"
    assert models_of(found.grants) == ("small", "large", "huge")
    assert limits_of(found.grants) == Limits(requests_per_minute=9, tokens_per_day=500)


def test_every_attribute_of_all_and_one_of_any() -> None:
    both = Rule(
        name="both", every={"a": ("1",), "b": ("2",)}, some={"c": ("3",), "d": ("4",)},
        grants=Grants(roles=("user",)),
    )  # fmt: skip
    policy = Policy(rules=(both,))
    assert decided(policy, a=("1",), b=("2",), d=("4",)).is_admitted
    assert decided(policy, a=("0", "1"), b=("2",), c=("3",), d=("5",)).is_admitted
    assert not decided(policy, a=("1",), b=("2",)).is_admitted
    assert not decided(policy, a=("1",), c=("3",)).is_admitted


def test_without_a_role_nobody_is_let_in() -> None:
    extra = Rule(name="extra", grants=Grants(models=("*",)))
    found = decided(Policy(rules=(extra,)))
    assert found.rules == ("extra",)
    assert not found.is_admitted


def test_every_model_is_more_than_some() -> None:
    extra = Rule(name="extra", every={"a": ("*",)}, grants=Grants(models=("*", "small")))
    found = decided(Policy(rules=(STAFF, extra)), affiliation=("employee",), a=("x",))
    assert models_of(found.grants) is None
    assert Grant("model", "*", "extra") in found.grants
    assert models_of(()) == ()


def test_only_the_providers_that_a_rule_believes() -> None:
    rule = Rule(name="r", every={"a": ("1",)}, providers=(IDP,), grants=Grants(roles=("user",)))
    assert decided(Policy(rules=(rule,)), a=("1",)).is_admitted
    assert not decided(Policy(rules=(rule,)), provider=IDP + "x", a=("1",)).is_admitted


def test_short_names_stand_for_attributes() -> None:
    oid = "urn:oid:1.3.6.1.4.1.5923.1.1.1.1"
    policy = Policy(rules=(STAFF,), attributes={"affiliation": (oid, "eduPersonAffiliation")})
    assert decide(policy, {oid: ("employee",)}, IDP).is_admitted
    assert decide(policy, {"eduPersonAffiliation": ("x", "faculty")}, IDP).is_admitted
    assert not decide(policy, {"affiliation": ("employee",)}, IDP).is_admitted  # the short name is taken


@pytest.mark.parametrize(
    ("value", "pattern", "does"),
    [
        ("employee", "employee", True), ("employee2", "employee", False), ("Employee", "employee", False),
        (" employee", "employee", False), ("", "", False), ("", "*", False), ("x", "*", True),
        ("gpu-a", "gpu-*", True), ("gpu-", "gpu-*", True), ("agpu-", "gpu-*", False), (" ", "*", False),
        ("a@b.org", "*@b.org", True), ("a@b.org.evil", "*@b.org", False), ("aba", "ab*ba", False),
        ("abba", "ab*ba", True),
        ("urn:x:y:z", "urn:*:y:*", True), ("urn:x:y", "urn:*:y:*", False), ("a.b", "a?b", False),
        ("axbxc", "a*b*c", True), ("axc", "a*b*c", False), ("a\nb", "a*b", True), ("[ab]", "[ab]", True),
        ("a", "[ab]", False), ("ab", "a**b", True), ("xyx", "x*yx*x", False),
    ],
)  # fmt: skip
def test_s_saml_22_values_fit_whole_and_exactly(value: str, pattern: str, does: bool) -> None:
    assert fits(value, pattern) is does


@given(st.text("ab", max_size=8), st.text("ab*", max_size=6))
def test_patterns_mean_what_they_say(value: str, pattern: str) -> None:
    meant = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert fits(value, pattern) is (value != "" and re.fullmatch(meant, value, re.DOTALL) is not None)


def test_a_long_value_is_looked_at_once() -> None:
    assert not fits("a" * 100_000, "*a*a*a*a*a*a*a*a*b")
