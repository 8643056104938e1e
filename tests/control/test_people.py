"""Users: made, changed, suspended with all their keys."""

import asyncio

import pytest

from llmgateway.control.keys import NewKey
from llmgateway.control.people import NewUser, UserChanges, user_view
from llmgateway.domain.errors import Conflict, InvalidRequest, NotAuthenticated, NotFound
from llmgateway.domain.limits import Limits
from llmgateway.domain.ports import Change
from tests.control.desk import ANN, Desk


async def test_a_user_comes_back(desk: Desk) -> None:
    new = NewUser(
        id="https://idp!alice",
        name="Alice",
        email="a@example.org",
        roles=["user", "admin", "user"],
        project="p",
    )
    made = await desk.control.people.create(ANN, new)
    assert await desk.control.people.get("https://idp!alice") == made
    assert user_view(made) == {
        "id": "https://idp!alice",
        "created_at": "2026-11-20T12:00:00Z",
        "name": "Alice",
        "email": "a@example.org",
        "roles": ("user", "admin"),
        "project": "p",
        "limits": {},
        "models": None,
        "state": "active",
        "provider": None,
        "signed_in_at": None,
        "lapsed": None,
        "by_hand": (),
    }


async def test_an_id_is_taken_once(desk: Desk) -> None:
    tries = [desk.control.people.create(ANN, NewUser(id="alice")) for _ in range(5)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(one).__name__ for one in results) == ["Conflict"] * 4 + ["User"]
    with pytest.raises(Conflict):
        await desk.control.people.create(ANN, NewUser(id="alice"))


async def test_many_first_keys_make_one_user(desk: Desk) -> None:
    await asyncio.gather(*(desk.control.keys.create(ANN, NewKey(user="alice", name="k")) for _ in range(8)))
    assert len((await desk.control.keys.page({"user": "alice"}, limit=99))[0]) == 8
    assert [user.id for user in (await desk.control.people.page({}, limit=9))[0]] == ["alice"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"email": "nowhere"}, "email"),
        ({"roles": []}, "roles"),
        ({"name": ""}, "name"),
        ({"limits": Limits(cost_per_month=2**60)}, "limits.cost_per_month"),
    ],
)
async def test_what_a_user_cannot_be(desk: Desk, changes: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await desk.control.people.create(ANN, NewUser(id="alice", **changes))  # type: ignore[arg-type]
    assert refused.value.param == param
    await desk.control.people.create(ANN, NewUser(id="alice"))
    with pytest.raises(InvalidRequest):
        await desk.control.people.change(ANN, "alice", UserChanges(**changes))  # type: ignore[arg-type]


async def test_the_models_of_a_user_hold_all_keys(desk: Desk) -> None:
    free = await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))
    narrow = await desk.control.keys.create(ANN, NewKey(user="alice", name="k", models=["org/embed"]))
    assert (await desk.call(free.token.reveal())).models is None
    await desk.control.people.change(ANN, "alice", UserChanges(models=["default"]))
    assert (await desk.call(free.token.reveal())).models == frozenset({"qwen3-32b"})
    assert (await desk.call(narrow.token.reveal())).models == frozenset()
    await desk.control.people.change(ANN, "alice", UserChanges(models=["*"]))
    assert (await desk.call(narrow.token.reveal())).models == frozenset({"org/embed"})
    await desk.control.people.change(ANN, "alice", UserChanges(models=None, roles=None, limits=None))
    assert (await desk.call(free.token.reveal())).models is None
    for models in ([], ["nothing"]):
        with pytest.raises(InvalidRequest):
            await desk.control.people.change(ANN, "alice", UserChanges(models=models))


async def test_suspending_a_user_stops_all_keys(desk: Desk) -> None:
    issued = [await desk.control.keys.create(ANN, NewKey(user="alice", name="k")) for _ in range(3)]
    other = await desk.control.keys.create(ANN, NewKey(user="bob", name="k"))
    for one in (*issued, other):
        await desk.call(one.token.reveal())
    await desk.control.people.change(ANN, "alice", UserChanges(state="suspended"))
    assert set(desk.state.announced) == {
        Change("users", "alice"),
        *(Change("keys", one.key.id) for one in issued),
    }
    for one in issued:
        with pytest.raises(NotAuthenticated):
            await desk.call(one.token.reveal())
    await desk.call(other.token.reveal())
    await desk.control.people.change(ANN, "alice", UserChanges(state="active"))
    await desk.call(issued[0].token.reveal())


async def test_changing_every_field(desk: Desk) -> None:
    await desk.control.people.create(ANN, NewUser(id="alice", name="Alice", email="a@example.org"))
    changes = UserChanges(
        name=None, email="b@example.org", roles=["operator"], project="p", limits=Limits(tokens_per_day=1)
    )
    user = await desk.control.people.change(ANN, "alice", changes)
    assert (user.name, user.email, user.roles, user.project) == (None, "b@example.org", ("operator",), "p")
    assert user.limits.tokens_per_day == 1
    cleared = await desk.control.people.change(ANN, "alice", UserChanges(limits=None, project=None))
    assert (cleared.limits, cleared.project) == (Limits(), None)


async def test_nobody_can_be_changed(desk: Desk) -> None:
    with pytest.raises(NotFound):
        await desk.control.people.change(ANN, "nobody", UserChanges(name="x"))
    with pytest.raises(NotFound):
        await desk.control.people.get("nobody")


async def test_lists_are_filtered_and_paged(desk: Desk) -> None:
    for name in "cab":
        await desk.control.people.create(ANN, NewUser(id=name, project="p" if name > "a" else None))
    first, after = await desk.control.people.page({}, limit=2)
    assert [user.id for user in first] == ["a", "b"]
    assert [user.id for user in (await desk.control.people.page({}, limit=2, after=after))[0]] == ["c"]
    assert [user.id for user in (await desk.control.people.page({"project": "p"}, limit=9))[0]] == ["b", "c"]
