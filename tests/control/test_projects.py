"""Projects: their people, their own keys, and an end that no key outlives."""

from datetime import timedelta

import pytest

from llmgateway.control.keys import KeyChanges, NewKey
from llmgateway.control.people import NewUser, UserChanges
from llmgateway.control.projects import NewProject, NewServiceKey, ProjectChanges, service_user
from llmgateway.domain.errors import Conflict, InvalidRequest, NotAuthenticated, NotFound
from llmgateway.domain.limits import Limits
from tests.control.desk import ANN, Desk


async def made(desk: Desk, **fields: object) -> str:
    await desk.control.people.create(ANN, NewUser(id="alice"))
    await desk.control.projects.create(ANN, NewProject(id="thesis", **fields))  # type: ignore[arg-type]  # of many types
    return "thesis"


async def test_a_project_comes_back(desk: Desk) -> None:
    projects = desk.control.projects
    await made(desk, name="The thesis", responsible="alice")
    found = await projects.get("thesis")
    assert (found.name, found.responsible, found.expires_at) == ("The thesis", "alice", None)
    assert [one.id for one in (await projects.page(limit=9))[0]] == ["thesis"]
    assert await projects.unmade(["nothing", "thesis", "else"]) == ["nothing", "else"]
    with pytest.raises(Conflict):
        await projects.create(ANN, NewProject(id="thesis"))
    changed = await projects.change(ANN, "thesis", ProjectChanges(name="Theses", responsible=None))
    assert (changed.name, changed.responsible) == ("Theses", None)
    for wrong in (NewProject(id=""), NewProject(id="x", responsible="nobody"), NewProject(id="x/..")):
        with pytest.raises(InvalidRequest):
            await projects.create(ANN, wrong)
    with pytest.raises(InvalidRequest):
        await projects.change(ANN, "thesis", ProjectChanges(responsible="nobody"))


async def test_members_come_and_go(desk: Desk) -> None:
    projects = desk.control.projects
    await made(desk)
    await projects.create_key(ANN, "thesis", NewServiceKey(name="ci"))
    await projects.add_member(ANN, "thesis", "alice")
    assert [one.id for one in await projects.members("thesis")] == ["alice"]
    assert (await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))).key.project == "thesis"
    await projects.remove_member(ANN, "thesis", "alice")
    assert await projects.members("thesis") == []
    for work in (projects.add_member(ANN, "thesis", "nobody"), projects.add_member(ANN, "none", "alice"),
                 projects.remove_member(ANN, "thesis", "alice")):  # fmt: skip
        with pytest.raises(NotFound):
            await work


async def test_its_own_keys_are_nobodys(desk: Desk) -> None:
    projects = desk.control.projects
    await made(desk)
    first = await projects.create_key(
        ANN, "thesis", NewServiceKey(name="ci", models=["default"], limits=Limits(tokens_per_day=5))
    )
    second = await projects.create_key(ANN, "thesis", NewServiceKey(name="nightly"))
    caller = await desk.call(first.token.reveal())
    assert (caller.user, caller.project) == (service_user("thesis"), "thesis")
    assert caller.models == frozenset({"qwen3-32b"})
    await desk.control.people.change(ANN, "alice", UserChanges(state="suspended"))
    assert (await desk.call(second.token.reveal())).user == "service:thesis"


async def test_no_key_outlives_its_project(desk: Desk) -> None:
    projects, keys, now = desk.control.projects, desk.control.keys, desk.clock.now()
    week, month, year = (now + timedelta(days=n) for n in (7, 30, 365))
    await made(desk)
    own = await projects.create_key(ANN, "thesis", NewServiceKey(name="for ever"))
    short = await keys.create(ANN, NewKey(user="alice", name="short", project="thesis", expires_at=week))
    other = await keys.create(ANN, NewKey(user="alice", name="other"))

    async def ends() -> list[object]:
        return [(await keys.get(one.key.id)).expires_at for one in (own, short, other)]

    await projects.change(ANN, "thesis", ProjectChanges(expires_at=month))
    assert await ends() == [month, week, None]
    assert (await projects.create_key(ANN, "thesis", NewServiceKey(name="new"))).key.expires_at == month
    assert (await keys.change(ANN, own.key.id, KeyChanges(expires_at=year))).expires_at == month
    await projects.change(ANN, "thesis", ProjectChanges(expires_at=year))
    assert await ends() == [year, week, None], "what was cut gets the new end"
    await desk.call(own.token.reveal())
    await projects.end(ANN, "thesis")
    for one in (own, short):
        with pytest.raises(NotAuthenticated):
            await desk.call(one.token.reveal())
    await desk.call(other.token.reveal())
    with pytest.raises(Conflict):
        await projects.create_key(ANN, "thesis", NewServiceKey(name="late"))
    await projects.change(ANN, "thesis", ProjectChanges(expires_at=None))
    assert await ends() == [None, None, None]
    assert (await desk.control.audit.verify()).bad is None


async def test_only_an_empty_one_is_thrown_away(desk: Desk) -> None:
    projects = desk.control.projects
    await made(desk)
    await projects.add_member(ANN, "thesis", "alice")
    with pytest.raises(Conflict):
        await projects.delete(ANN, "thesis")
    await projects.remove_member(ANN, "thesis", "alice")
    await projects.delete(ANN, "thesis")
    with pytest.raises(NotFound):
        await projects.get("thesis")
