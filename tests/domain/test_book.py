"""Whose limits a call is under."""

import pytest
from msgspec import structs

from llmgateway.domain.admission import Turn
from llmgateway.domain.book import LimitBook, Weights, merged
from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.fair import Line
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


@pytest.mark.parametrize(
    ("prompt", "completion", "counted"), [(1.0, 2.0, 100), (1.0, 4.0, 50), (2.0, 2.0, 200), (0.01, 100.0, 0)]
)
def test_prompts_count_by_how_weights_of_tokens_compare(
    prompt: float, completion: float, counted: int
) -> None:
    book = LimitBook(weights=Weights(prompt=prompt, completion=completion))
    assert (book.counted(100), book.counted(0)) == (counted, 0)


def next_user(book: LimitBook) -> str:
    """After alice's prompt of 30 tokens and bob's answer of 10, while both have another call waiting."""
    line = Line()
    for user, prompt in (("alice", 30), ("bob", 1)):
        line.enter(turn(user, user, book.counted(prompt)))
        line.enter(turn(f"{user} again", user, book.counted(prompt)))
    assert [given.id for given in (line.next(2), line.next(2)) if given is not None] == ["alice", "bob"]
    line.served("bob", 10)
    line.leave("alice", 0)
    given = line.next(2)
    assert given is not None
    return given.user


def turn(id: str, user: str, prompt: int) -> Turn:
    return Turn(id=id, model="m", user=user, most=2, waiting=9, prompt=prompt)


def test_weights_of_tokens_say_who_is_next() -> None:
    assert next_user(LimitBook()) == "bob"  # 21 against 30
    assert next_user(LimitBook(weights=Weights(completion=8.0))) == "alice"  # 81 against 30
    assert next_user(LimitBook(weights=Weights(prompt=0.5))) == "alice"  # 20.5 against 15
