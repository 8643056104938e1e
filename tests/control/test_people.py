"""Users: made, changed, suspended with all their keys."""

import asyncio

import pytest

from llmgateway.control.keys import KeyChanges, NewKey
from llmgateway.control.people import NewUser, UserChanges, user_view
from llmgateway.control.projects import NewProject, ProjectChanges
from llmgateway.domain.errors import Conflict, InvalidRequest, NotAuthenticated, NotFound
from llmgateway.domain.limits import Limits
from llmgateway.domain.ports import Change, Kind
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


async def written_later(desk: Desk, kind: Kind, id: str, **fields: object) -> None:
    """As a later version of the gateway would leave a document behind."""
    document = await desk.store.get(kind, id)
    assert document is not None
    await desk.store.replace(kind, {**document, **fields, "revision": document["revision"] + 1})


LATER = {"state": "hibernating", "roles": ["user", "auditor"], "quarantine": {"since": 3}}


async def test_what_a_later_version_wrote_lets_nobody_in_and_stays(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))
    await desk.call(issued.token.reveal())
    await written_later(desk, "users", "alice", **LATER)
    await desk.state.announce(Change("keys", issued.key.id))
    with pytest.raises(NotAuthenticated):
        await desk.call(issued.token.reveal())
    alice = await desk.control.people.change(ANN, "alice", UserChanges(name="Alice", roles=["operator"]))
    assert not alice.is_active
    with pytest.raises(Conflict, match="later version"):
        await desk.control.people.change(ANN, "alice", UserChanges(state="active"))
    kept = await desk.store.get("users", "alice")
    assert kept is not None
    assert (kept["state"], kept["roles"], kept["quarantine"]) == (
        "hibernating", ["operator", "auditor"], {"since": 3},
    )  # fmt: skip
    assert user_view(alice)["state"] == "hibernating"


async def test_keys_of_a_later_version_can_be_listed_and_revoked(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))
    await written_later(desk, "keys", issued.key.id, state="resting", purpose="robots")
    (listed,), _ = await desk.control.keys.page({"user": "alice"}, limit=9)
    assert (listed.state, listed.purpose) == ("resting", "robots")
    with pytest.raises(Conflict, match="later version"):
        await desk.control.keys.change(ANN, issued.key.id, KeyChanges(state="active"))
    renamed = await desk.control.keys.change(ANN, issued.key.id, KeyChanges(name="new"))
    assert (renamed.name, renamed.state) == ("new", "resting")
    assert (await desk.control.keys.revoke(ANN, issued.key.id)).state == "revoked"


async def test_projects_of_a_later_version(desk: Desk) -> None:
    await desk.control.projects.create(ANN, NewProject(id="p"))
    await written_later(desk, "projects", "p", state="frozen", colour="blue")
    assert (await desk.control.projects.get("p")).id == "p"
    await desk.control.projects.change(ANN, "p", ProjectChanges(name="P"))
    kept = await desk.store.get("projects", "p")
    assert kept is not None
    assert (kept["state"], kept["colour"]) == ("frozen", "blue")
