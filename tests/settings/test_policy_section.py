"""The sections `policy` and `fair_share`: read strictly, complained about helpfully, written back."""

from pathlib import Path

import pytest

from llmgateway.domain.book import Weights
from llmgateway.domain.limits import Limits
from llmgateway.domain.policy import Grants, KeyRules, Policy, Rule
from llmgateway.settings.bad_settings import BadSettings
from llmgateway.settings.gateway_file import GatewayFile, file_entry, read_file

WHOLE = """
policy:
  attributes: {affiliation: [urn:a, urn:b], groups: isMemberOf}
  rules:
    - name: staff
      when: {affiliation: employee, groups: [a, "b*"]}
      when_any: {mail: ["*@example.org"]}
      providers: https://idp/
      grants: {roles: [user, Admin], project: p, models: [m, "*"], limits: {tokens_per_day: 5}}
    - {name: all, when: everybody, grants: {limits: {tokens_per_day: 9}}}
  keys: {sign_in_within: 90d, warn: 7d}
fair_share: {projects: {thesis: 2, "a.b": 0.5}, roles: {operator: 1.5}, weights: {prompt: 0.5, completion: 3}}
"""
RULE = "when: {a: b}, grants: {roles: [user], models: [m]}"


def read(path: Path, text: str) -> GatewayFile:
    config = path / "gateway.yaml"
    config.write_text(text)
    return read_file(config, {})


def complaints(path: Path, text: str) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        read(path, text)
    return list(caught.value.complaints)


def test_all_of_it(tmp_path: Path) -> None:
    file = read(tmp_path, WHOLE)
    assert file.policy == Policy(
        attributes={"affiliation": ("urn:a", "urn:b"), "groups": ("isMemberOf",)},
        rules=(
            Rule(
                name="staff", every={"affiliation": ("employee",), "groups": ("a", "b*")},
                some={"mail": ("*@example.org",)}, providers=("https://idp/",),
                grants=Grants(roles=("user", "admin"), project="p", models=("m", "*"),
                              limits=Limits(tokens_per_day=5)),
            ),
            Rule(name="all", grants=Grants(limits=Limits(tokens_per_day=9))),
        ),
        keys=KeyRules(sign_in_within=90, warn=7),
    )  # fmt: skip
    shares = {"thesis": 2.0, "a.b": 0.5}
    assert file.fair_share == Weights(projects=shares, roles={"operator": 1.5}, prompt=0.5, completion=3.0)


def test_what_is_written_back_can_be_read_again(tmp_path: Path) -> None:
    entry = file_entry(read(tmp_path, WHOLE))
    assert entry["policy"]["rules"][1]["when"] == "everybody"
    assert entry["policy"]["keys"] == {"sign_in_within": "90d", "warn": "7d"}
    assert entry["fair_share"]["roles"] == {"operator": 1.5}
    assert entry["fair_share"]["weights"] == {"prompt": 0.5, "completion": 3.0}


def test_nothing_is_said_where_nothing_is_written(tmp_path: Path) -> None:
    file = read(tmp_path, "currency: EUR\n")
    assert (file.policy, file.fair_share) == (Policy(), Weights())
    file = read(tmp_path, "policy: {keys: {sign_in_within: 7d}}")
    assert file.policy.keys == KeyRules(sign_in_within=7, warn=3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{name: a, grants: {roles: [user], models: [m]}}", "[0].when: is missing: say which"),
        ("{name: a, when: {}, grants: {roles: [user], models: [m]}}", "[0].when: is missing"),
        (f"{{{RULE}}}", "[0].name: is missing"),
        ("{name: a, when: {a: b}}", "[0].grants: is missing: a rule that gives nothing"),
        (f"{{name: a, {RULE}}}, {{name: a, {RULE}}}", "[1].name: the name 'a' is taken already"),
        ("{name: a, when: {a: []}, grants: {roles: [user]}}", "[0].when.a: must name at least"),
        ("{name: a, when: {a: }, grants: {roles: [user]}}", "[0].when.a: must name at least"),
        ("{name: a, when: {a: {b: c}}, grants: {}}", "[0].when.a: must be text, not a mapping"),
        ("{name: a, when: all, grants: {}}", "[0].when: must be a mapping of names"),
        ("{name: a, when: {a: b}, grants: {roles: [boss]}}", "[0].grants.roles[0]: must be"),
        ("{name: a, when: {a: b}, grants: {limits: {tokens: 1}}}", "[0].grants.limits.tokens: is unknown"),
        ("{name: a, when: {a: b}, grants: {models: ['qwen *']}}", "[0].grants.models[0]: must be"),
        ("{name: a, wen: {a: b}, grants: {}}", "[0].wen: is unknown; did you mean 'when'?"),
        ("{name: a, when: {a: b}, grants: {models: [m]}}", ": no rule gives a role"),
        ("{name: a, when: {a: b}, grants: {roles: [user]}}", ": no rule gives models"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_is_told_of_by_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    found = complaints(tmp_path, f"policy: {{rules: [{text}]}}\n")
    assert any(one.startswith(f"policy.rules{complaint}") for one in found), found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("policy: {keys: {sign_in_within: 90}}", "policy.keys.sign_in_within: must be days such as 14d"),
        ("policy: {keys: {sign_in_within: 0d}}", "policy.keys.sign_in_within: must be at least 1d"),
        ("policy: {keys: {sign_in_within: 7d, warn: 7d}}", "policy.keys.warn: must be shorter than"),
        ("policy: {rule: []}", "policy.rule: is unknown; did you mean 'rules'?"),
        ("policy: {rules: {a: b}}", "policy.rules: must be a list"),
        ("fair_share: {roles: {staff: 2}}", "fair_share.roles.staff: must be user or operator or admin"),
        ("fair_share: {projects: {p: 0}}", "fair_share.projects.p: must be a number from 0.01 to 100"),
        ("fair_share: {projects: {p: much}}", "fair_share.projects.p: must be a number"),
        ("fair_share: {users: {}}", "fair_share.users: is unknown"),
        ("fair_share: {weights: {prompt: 0}}", "fair_share.weights.prompt: must be a number from 0.01"),
        ("fair_share: {weights: {completion: 101}}", "fair_share.weights.completion: must be a number from"),
        ("fair_share: {weights: {answer: 2}}", "fair_share.weights.answer: is unknown"),
    ],
)  # fmt: skip
def test_what_else_cannot_be(tmp_path: Path, text: str, complaint: str) -> None:
    (only,) = complaints(tmp_path, text)
    assert only.startswith(complaint)
