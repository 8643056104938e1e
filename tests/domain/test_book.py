"""Whose limits a call is under."""

import pytest
from msgspec import structs

from llmgateway.domain.book import LimitBook, Weights, merged
from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.keys import Principal
from llmgateway.domain.limits import Limits, Scope

MODEL = Model(id="m", targets=(Target(url="http://a/v1", model="m"),))
ALICE = Principal("k1", "alice", "thesis", None)
FEW, MANY = Limits(requests_per_minute=1), Limits(requests_per_minute=100)


def test_without_limits_there_are_no_scopes() -> None:
    assert LimitBook().scopes_for(ALICE, MODEL) == ()


def test_every_subject_of_a_call_limits_it() -> None:
    book = LimitBook(default=MANY, projects={"thesis": FEW}, models={"m": FEW, "other": MANY})
    principal = structs.replace(ALICE, key_limits=FEW)
    assert book.scopes_for(principal, MODEL) == (
        Scope("key", "k1", FEW),
        Scope("user", "alice", MANY),
        Scope("model", "m", FEW),
        Scope("project", "thesis", FEW),
    )
    assert book.scopes_for(Principal("k2", "bob", None, None), MODEL) == (
        Scope("user", "bob", MANY),
        Scope("model", "m", FEW),
    )


def test_a_user_s_own_limits_go_field_by_field_before_everybody_s() -> None:
    everybody = Limits(requests_per_minute=60, tokens_per_day=1000)
    book = LimitBook(default=everybody, users={"alice": Limits(tokens_per_day=5000)})
    assert book.user_limits("alice", Limits()) == Limits(requests_per_minute=60, tokens_per_day=5000)
    assert book.user_limits("alice", FEW) == Limits(requests_per_minute=1, tokens_per_day=1000)
    assert book.user_limits("bob", Limits()) == everybody
    assert merged(Limits(tokens_per_day=0), everybody).tokens_per_day == 0


def test_what_is_known_of_a_principal_ends_with_it() -> None:
    book = LimitBook(default=MANY)
    assert book.scopes_for(ALICE, MODEL) is book.scopes_for(ALICE, MODEL)
    changed = structs.replace(ALICE, user_limits=FEW)
    assert book.scopes_for(changed, MODEL) == (Scope("user", "alice", FEW),)


@pytest.mark.parametrize(
    ("principal", "weight"),
    [
        (ALICE, 3.0),
        (Principal("k", "bob", None, None), 1.0),
        (Principal("k", "bob", "other", None, roles=("user", "staff", "guest")), 2.0),
    ],
)
def test_the_project_s_weight_else_the_greatest_of_the_roles(principal: Principal, weight: float) -> None:
    weights = Weights(projects={"thesis": 3.0}, roles={"staff": 2.0, "guest": 0.5})
    assert LimitBook(weights=weights).weight_of(principal) == weight
