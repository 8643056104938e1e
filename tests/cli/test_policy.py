"""`policy explain` as it is typed: which rule gave what, to an assertion and to a key, and how it ends."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llmgateway.app.in_force import InForce
from llmgateway.app.memory import open_memory
from llmgateway.app.services import control_over
from llmgateway.control.audit import Actor
from llmgateway.domain.errors import NotAllowed
from llmgateway.domain.identity import Identity
from llmgateway.domain.ports import SystemClock
from llmgateway.settings import Settings, with_secrets
from tests.cli.conftest import Ask, Run

CONFIG = """
models: [{id: m, aliases: [default], targets: [{provider: echo}]}, {id: big, targets: [{provider: echo}]}]
limits: {default: {requests_per_minute: 60}, models: {m: {concurrent_requests: 4}}}
policy:
  rules:
    - name: staff
      when: {affiliation: employee}
      grants: {roles: [user], models: [default], project: campus, limits: {tokens_per_day: 9}}
    - {name: idp only, when: everybody, providers: [https://idp/], grants: {limits: {tokens_per_day: 5}}}
  keys: {sign_in_within: 90d}
"""


@pytest.fixture
def with_rules(config: Path) -> None:
    config.write_text(CONFIG)


@pytest.fixture
def assertion(tmp_path: Path) -> Path:
    return tmp_path / "assertion.json"


@pytest.mark.usefixtures("with_rules")
def test_an_assertion_that_is_let_in(ask: Ask, run: Run, assertion: Path) -> None:
    assertion.write_text('{"provider": "https://idp/", "attributes": {"affiliation": ["employee"]}}')
    found = ask("policy", "explain", "--assertion", str(assertion))
    assert (found["is_admitted"], found["is_verified"]) == (True, False)
    assert found["rules"] == ["staff", "idp only"]
    assert {"what": "limit", "value": "tokens_per_day", "most": 9, "rule": "staff"} in found["grants"]
    code, said = run("policy", "explain", "--assertion", str(assertion), "--issuer", "https://other/")
    assert code == 0
    for words in ("Admitted: yes", "match: staff (of 2)", "Nothing was verified", "Attributes: affil"):
        assert words in said


@pytest.mark.usefixtures("with_rules")
def test_an_assertion_that_is_not(run: Run, assertion: Path) -> None:
    assertion.write_text('{"affiliation": ["student"], "x": "y"}')
    code, said = run("policy", "explain", "--assertion", str(assertion))
    assert code == 1
    assert "Admitted: no, since no rule gives a role" in said
    assert "Attributes: affiliation, x" in said
    code, said = run("policy", "explain", "--assertion", str(assertion), "--json")
    assert (code, json.loads(said)["is_admitted"]) == (1, False)


def test_wrong_usage(run: Run, assertion: Path) -> None:
    assert run("policy", "explain", "--assertion", str(assertion))[0] == 2
    for words in ((), ("--key", "x", "--assertion", "y")):
        with pytest.raises(SystemExit) as ended:
            run("policy", "explain", *words)
        assert ended.value.code == 2
    assert run("policy", "explain", "--key", "nobody")[0] == 1


def sign_in(tmp_path: Path, config: Path, *affiliations: str) -> None:
    """As the portal does it."""

    async def welcome() -> None:
        settings = with_secrets(Settings.load({"LLMGATEWAY_DATA_DIR": str(tmp_path / "data")}, config=config))
        async with open_memory(settings) as memory:
            control = control_over(InForce(settings), memory.store, memory.state, SystemClock())
            who = Identity(provider="https://idp/", subject="alice", attributes={"affiliation": affiliations})
            await control.enrolment.welcome(Actor("nobody", "test"), who)

    asyncio.run(welcome())


@pytest.mark.usefixtures("with_rules")
def test_a_key_of_somebody_who_signs_in(ask: Ask, run: Run, tmp_path: Path, config: Path) -> None:
    sign_in(tmp_path, config, "employee")
    made = ask("keys", "create", "--user", "alice", "--name", "k", "--models", "m,big")
    found: dict[str, Any] = ask("policy", "explain", "--key", made["prefix"])
    assert (found["calls_pass"], found["troubles"], found["provider"]) == (True, [], "https://idp/")
    assert found["sign_in_due"] > found["signed_in_at"]
    assert found["sources"] == [
        {"what": "role", "value": "user", "source": "the rule 'staff'"},
        {"what": "project", "value": "campus", "source": "the rule 'staff'"},
        {"what": "limit", "value": {"tokens_per_day": 9}, "source": "the rule 'staff'"},
        {"what": "model", "value": "m", "source": "the rule 'staff'"},
    ]
    assert (found["models"], found["key_models"]) == (["m"], ["m", "big"])
    assert [(row["scope"], row["id"], row["source"]) for row in found["limits"]] == [
        ("user", "alice", "policy"), ("model", "m", "settings"),
    ]  # fmt: skip
    assert found["limits"][0]["limits"] == {"requests_per_minute": 60, "tokens_per_day": 9}
    code, said = run("policy", "explain", "--key", made["id"])
    assert code == 0
    assert "The key itself is restricted to: m, big." in said

    ask("limits", "set", "user", "alice", "tokens_per_day=7")
    config.write_text(CONFIG.replace("name: staff", "name: people"))
    found = ask("policy", "explain", "--key", made["id"])
    assert found["limits"][0] == {
        "scope": "user", "id": "alice", "limits": {"requests_per_minute": 60, "tokens_per_day": 7},
        "source": "admin",
    }  # fmt: skip
    assert {"what": "limits", "value": {"tokens_per_day": 7}, "source": "an operator"} in found["sources"]
    assert "which the configuration has no more" in found["sources"][0]["source"]

    with pytest.raises(NotAllowed):
        sign_in(tmp_path, config, "student")
    code, said = run("policy", "explain", "--key", made["id"])
    assert code == 1
    assert "its owner was refused at the last sign-in" in said
    assert "All keys are refused still: by the policy (denied)" in run("users", "activate", "alice")[1]
    run("users", "suspend", "alice")
    run("keys", "revoke", made["id"])
    troubles = json.loads(run("policy", "explain", "--key", made["id"], "--json")[1])["troubles"]
    assert len(troubles) == 4


def test_a_key_of_somebody_whom_no_policy_concerns(ask: Ask, run: Run) -> None:
    made = ask("keys", "create", "--user", "bob", "--name", "k")
    found = ask("policy", "explain", "--key", made["id"])
    assert found["models"] == ["echo"]
    assert {"what": "models", "value": "*", "source": "the default"} in found["sources"]
    assert "Nothing is limited." in run("policy", "explain", "--key", made["id"])[1]
