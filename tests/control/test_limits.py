"""Limits: the settings' as the base, an operator's over them, and back again."""

import msgspec
import pytest

from llmgateway.control.keys import NewKey
from llmgateway.control.limits import LimitSet, Subject, load_book, subject_in
from llmgateway.control.people import UserChanges
from llmgateway.domain.book import LimitBook, Weights
from llmgateway.domain.errors import InvalidRequest, NotFound
from llmgateway.domain.keys import Principal
from llmgateway.domain.limits import Limits, Scope
from llmgateway.domain.ports import Change
from tests.control.desk import ANN, Desk, model

FEW, MANY = Limits(requests_per_minute=1), Limits(requests_per_minute=100)
NONE = Limits()


async def shown(desk: Desk, subject: Subject) -> tuple[Limits, Limits, str | None]:
    found = await desk.control.limits.get(subject)
    return found.limits, found.effective, found.source


@pytest.mark.parametrize("subject", [Subject("project", "thesis"), Subject("model", "org/embed"),
                                     Subject("default", "default")])  # fmt: skip
async def test_an_operator_s_limits_hold_until_they_are_taken_away(desk: Desk, subject: Subject) -> None:
    base = LimitBook(default=MANY, projects={"thesis": MANY}, models={"org/embed": MANY})
    desk.configure(limits=base)
    assert await shown(desk, subject) == (MANY, MANY, "settings")
    await desk.control.limits.put(ANN, subject, Limits(tokens_per_day=5))
    put = Limits(tokens_per_day=5)
    assert await shown(desk, subject) == (put, put, "admin"), "the whole set, not field by field"
    await desk.control.limits.put(ANN, subject, FEW)
    await desk.control.limits.delete(ANN, subject)
    assert await shown(desk, subject) == (MANY, MANY, "settings")
    assert desk.state.announced == [Change("limits", subject.name)] * 3


async def test_nothing_may_be_put_over_something(desk: Desk) -> None:
    desk.configure(limits=LimitBook(models={"org/embed": FEW}))
    embed = Subject("model", "org/embed")
    await desk.control.limits.put(ANN, embed, NONE)
    assert await shown(desk, embed) == (NONE, NONE, "admin")


async def test_a_user_s_limits_go_before_everybody_s_field_by_field(desk: Desk) -> None:
    everybody = Limits(requests_per_minute=60, tokens_per_day=9)
    desk.configure(limits=LimitBook(default=everybody, users={"bob": FEW}))
    assert (await shown(desk, Subject("user", "carol")))[1:] == (
        Limits(requests_per_minute=60, tokens_per_day=9), None)  # fmt: skip
    assert await shown(desk, Subject("user", "bob")) == (
        FEW, Limits(requests_per_minute=1, tokens_per_day=9), "settings")  # fmt: skip
    await desk.control.limits.put(ANN, Subject("user", "alice"), FEW)
    assert (await desk.control.people.get("alice")).limits == FEW, "a user who was not known is made"
    assert await shown(desk, Subject("user", "alice")) == (
        FEW, Limits(requests_per_minute=1, tokens_per_day=9), "admin")  # fmt: skip
    await desk.control.limits.delete(ANN, Subject("user", "alice"))
    assert (await shown(desk, Subject("user", "alice")))[2] is None


async def test_a_key_s_limits_reach_its_calls(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))
    token = issued.token.reveal()
    assert (await desk.call(token)).key_limits == NONE
    await desk.control.limits.put(ANN, Subject("key", issued.key.id), FEW)
    await desk.control.limits.put(ANN, Subject("user", "alice"), MANY)
    principal = await desk.call(token)
    assert (principal.key_limits, principal.user_limits) == (FEW, MANY)
    book = await load_book(desk.store, desk.configuration.limits)
    assert book.scopes_for(principal, model("qwen3-32b")) == (
        Scope("key", issued.key.id, FEW), Scope("user", "alice", MANY))  # fmt: skip
    await desk.control.limits.delete(ANN, Subject("key", issued.key.id))
    assert (await desk.call(token)).key_limits == NONE
    with pytest.raises(NotFound):
        await desk.control.limits.put(ANN, Subject("key", "nobody"), FEW)


async def test_the_book_is_the_settings_with_what_was_put_over_them(desk: Desk) -> None:
    base = LimitBook(default=FEW, users={"bob": MANY}, projects={"a": FEW}, models={"m": FEW})
    for subject in (Subject("default", "default"), Subject("project", "b"), Subject("model", "m")):
        await desk.control.limits.put(ANN, subject, MANY)
    book = await load_book(desk.store, base)
    assert (book.default, book.users, book.projects, book.models) == (
        MANY, {"bob": MANY}, {"a": FEW, "b": MANY}, {"m": MANY})  # fmt: skip
    carol = Principal("k", "carol", "b", None)
    assert {scope.kind for scope in book.scopes_for(carol, model("m"))} == {"user", "project", "model"}


async def test_all_that_is_set_is_listed_in_pages(desk: Desk) -> None:
    desk.configure(limits=LimitBook(default=FEW, users={"bob": FEW}, models={"org/embed": FEW}))
    issued = await desk.control.keys.create(ANN, NewKey(user="alice", name="k", limits=FEW))
    await desk.control.limits.put(ANN, Subject("project", "thesis"), FEW)
    await desk.control.limits.put(ANN, Subject("user", "alice"), FEW)
    found: list[LimitSet] = []
    after: str | None = None
    while True:
        page, after = await desk.control.limits.page(limit=2, after=after)
        found += page
        if after is None:
            break
    assert [one.subject.name for one in found] == [
        "default", f"key/{issued.key.id}", "model/org/embed", "project/thesis", "user/alice", "user/bob",
    ]  # fmt: skip
    users, after = await desk.control.limits.page(limit=1, matches=lambda subject: subject.kind == "user")
    assert ([one.subject.id for one in users], after) == (["alice"], "user/alice")
    users, after = await desk.control.limits.page(
        limit=1, after=after, matches=lambda subject: "b" in subject.id
    )
    assert ([one.subject.id for one in users], after) == (["bob"], None)


async def test_what_limits_a_person(desk: Desk) -> None:
    desk.configure(limits=LimitBook(default=MANY, projects={"thesis": FEW}, models={"org/embed": FEW}))
    limited = await desk.control.keys.create(ANN, NewKey(user="alice", name="a", limits=FEW))
    free = await desk.control.keys.create(ANN, NewKey(user="alice", name="b"))
    alice = await desk.control.people.change(ANN, "alice", UserChanges(project="thesis"))
    keys, models = [limited.key, free.key], ["qwen3-32b", "org/embed"]
    assert await desk.control.limits.scopes_of(alice, keys, models) == [
        Scope("user", "alice", MANY), Scope("project", "thesis", FEW), Scope("key", limited.key.id, FEW),
        Scope("model", "org/embed", FEW),
    ]  # fmt: skip


async def test_every_change_is_in_the_audit_log(desk: Desk) -> None:
    await desk.control.limits.put(ANN, Subject("model", "m"), FEW)
    await desk.control.limits.delete(ANN, Subject("model", "m"))
    lines = (await desk.control.audit.page({}, limit=9)).data
    assert [(line["action"], line["target"], line["details"]) for line in reversed(lines)] == [
        ("limits.change", "model/m", {"requests_per_minute": 1}),
        ("limits.delete", "model/m", {}),
    ]


@pytest.mark.parametrize(("kind", "id", "error"), [
    ("team", "x", InvalidRequest), ("user", "", InvalidRequest), ("default", "x", NotFound),
])  # fmt: skip
def test_subjects_that_there_are_not(kind: str, id: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        subject_in(kind, id)
    assert subject_in("default").name == "default"
    assert subject_in("model", "org/embed").name == "model/org/embed"


async def test_numbers_have_an_end(desk: Desk) -> None:
    with pytest.raises(InvalidRequest):
        await desk.control.limits.put(ANN, Subject("model", "m"), Limits(tokens_per_day=2**53))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"tokens_per_day": -1}, Limits)


async def test_shares_of_the_settings_hold_whatever_operators_put(desk: Desk) -> None:
    await desk.control.limits.put(ANN, Subject("project", "p"), Limits(tokens_per_day=1))
    shares = Weights(projects={"p": 2.0})
    assert (await load_book(desk.store, LimitBook(weights=shares))).weights is shares
