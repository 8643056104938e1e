"""What operators may do to whom, on every page that changes something of a person."""

import re
from collections.abc import AsyncIterator

import pytest

from llmgateway.control.keys import NewKey
from llmgateway.control.limits import Subject
from llmgateway.control.people import NewUser, UserChanges
from llmgateway.control.projects import NewProject
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal, browsing

LIMITS, KEYS = "/portal/operators/limits", "/portal/operators/keys"


@pytest.fixture
async def olli(ann: Browser, portal: Portal) -> AsyncIterator[Browser]:
    """An operator, who is no administrator."""
    await portal.desk.control.people.create(ANN, NewUser(id="aino"))
    async with browsing(portal) as one:
        await one.sign_up("olli")
        await portal.desk.control.people.change(ANN, "olli", UserChanges(roles=["user", "operator"]))
        yield one


async def key_of(portal: Portal, user: str) -> str:
    return (await portal.desk.control.keys.create(ANN, NewKey(user=user, name="k"))).key.id


@pytest.mark.parametrize(("user", "status"), [("aino", 303), ("olli", 403), ("ann", 403)])
async def test_s_key_08_limits_of_operators_are_not_theirs_to_change(
    olli: Browser, portal: Portal, user: str, status: int
) -> None:
    key = await key_of(portal, user)
    for path in (f"{LIMITS}/user/{user}", f"{LIMITS}/key/{key}"):
        await olli.get(path)
        assert (await olli.post(path, {"tokens_per_day": "5"})).status_code == status
    for subject in (Subject("user", user), Subject("key", key)):
        set_to = (await portal.desk.control.limits.get(subject)).limits.tokens_per_day
        assert set_to == (5 if status == 303 else None)


@pytest.mark.parametrize(("user", "status"), [("aino", 303), ("ann", 403)])
async def test_s_key_08_keys_of_administrators_are_not_theirs_to_end(
    olli: Browser, portal: Portal, user: str, status: int
) -> None:
    key = await key_of(portal, user)
    await olli.get(f"{KEYS}/{key}/state?to=revoked")
    answer = await olli.post(f"{KEYS}/{key}/state", {"state": "revoked"})
    assert answer.status_code == status
    found = await portal.desk.control.keys.get(key)
    assert (found.state == "revoked") == (status == 303)


@pytest.mark.parametrize(("user", "status"), [("aino", 303), ("olli", 403), ("ann", 403)])
async def test_s_key_08_projects_of_operators_are_not_theirs_to_choose(
    olli: Browser, portal: Portal, user: str, status: int
) -> None:
    """A project is a budget: to be taken into one is a right like others, and to be put out of one, too."""
    await portal.desk.control.projects.create(ANN, NewProject(id="rich"))
    for path, before, after in (("project-member", None, "rich"), ("project-no-member", "rich", None)):
        await portal.desk.control.people.change(ANN, user, UserChanges(project=before))
        await olli.get("/portal/operators/project/rich")
        fields = {"token": token_in(olli), "member": user}
        answer = await olli.post(f"/portal/operators/{path}/rich", fields)
        assert answer.status_code == status
        assert (await portal.desk.control.people.get(user)).project == (after if status == 303 else before)


def token_in(browser: Browser) -> str:
    found = re.search(r'name="token" value="([^"]*)"', browser.page)
    assert found is not None
    return found[1]


async def test_limits_may_wait_for_who_comes_later(olli: Browser, portal: Portal) -> None:
    path = f"{LIMITS}/project/thesis"
    await olli.get(path)
    assert (await olli.post(path, {"tokens_per_day": "5"})).status_code == 303
