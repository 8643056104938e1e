"""Projects: made, given people, a budget and keys, and ended."""

from datetime import timedelta

import pytest

from llmgateway.control.limits import Subject
from llmgateway.control.people import NewUser
from llmgateway.control.projects import NewProject
from llmgateway.domain.errors import NotAuthenticated
from llmgateway.domain.limits import Limits, Scope, Standing
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal
from tests.portal.test_overview import used

ROOT = "/portal/operators"
LAB = f"{ROOT}/project/lab"


@pytest.fixture
async def lab(ann: Browser, portal: Portal) -> Browser:
    await portal.desk.control.people.create(ANN, NewUser(id="aino", name="Aino"))
    await portal.desk.control.projects.create(ANN, NewProject(id="lab", name="Laboratory"))
    return ann


async def test_one_is_made(ann: Browser, portal: Portal) -> None:
    await ann.get(f"{ROOT}/projects")
    assert "There is no project yet" in ann.page
    await used(portal, "ville", "qwen3-32b", project="old-name")
    await ann.get(f"{ROOT}/projects")
    assert "Named in keys, but not made here" in ann.page
    await ann.get(f"{ROOT}/projects/new?id=old-name")
    assert 'value="old-name"' in ann.page
    fields = {"id": "old-name", "name": "The old one", "responsible": "ann", "expires": "2027-05-31"}
    answer = await ann.post(f"{ROOT}/projects", fields)
    assert answer.headers["location"] == f"{ROOT}/project/old-name?said=created"
    await ann.get(f"{ROOT}/projects")
    assert "The old one" in ann.page
    assert "Named in keys" not in ann.page
    for wrong, status in (
        ({"id": "old-name"}, 409),
        ({"id": ""}, 422),
        ({"id": "b", "responsible": "no"}, 422),
        ({"id": "b", "expires": "x"}, 422),
    ):
        await ann.get(f"{ROOT}/projects/new")
        assert (await ann.post(f"{ROOT}/projects", wrong)).status_code == status, wrong


async def test_its_page_tells_its_use_and_its_budget(lab: Browser, portal: Portal) -> None:
    await used(portal, "aino", "qwen3-32b", project="lab")
    scope = Scope("project", "lab", Limits(cost_per_month=5_000_000))
    await portal.desk.control.limits.put(ANN, Subject("project", "lab"), scope.limits)
    portal.limits = [Standing(scope, "cost_per_month", 5_000_000, 5_000, 86_400.0 * 9)]
    await lab.get(LAB)
    for text in ("€5.00 left of €5.00", "anew in 9 days", ">123<", "Nobody is a member yet."):
        assert text in lab.page, text
    assert list(portal.asked_scopes) == [scope]
    assert (await lab.get(f"{ROOT}/project/none")).status_code == 404


async def test_members_come_and_go(lab: Browser, portal: Portal) -> None:
    await lab.get(LAB)
    answer = await lab.post(f"{ROOT}/project-member/lab", {"member": "aino"})
    assert answer.headers["location"] == f"{LAB}?said=member"
    await lab.get(LAB)
    assert "Remove Aino" in lab.page
    await lab.post(f"{ROOT}/project-no-member/lab", {"member": "aino"})
    assert (await portal.desk.control.people.get("aino")).project is None
    await lab.get(LAB)
    assert (await lab.post(f"{ROOT}/project-member/lab", {"member": "nobody"})).status_code == 422


async def test_its_own_key_lives_as_long_as_the_project(lab: Browser, portal: Portal) -> None:
    await lab.get(LAB)
    path = f"{ROOT}/project-key/lab"
    fields = {**lab.hidden(path), "key_name": "ci", "models": ["qwen3-32b"], "key_expires": "2027-01-31"}
    assert (await lab.post(path, fields)).status_code == 201
    secret = lab.page.partition('id="secret">')[2].partition("<")[0]
    assert (await portal.desk.call(secret)).user == "service:lab"
    assert (await lab.post(path, fields)).headers["location"].endswith("said=already")
    await lab.get(LAB)
    await lab.post(LAB, {"name": "Lab", "responsible": "aino", "expires": "2026-12-31"})
    (key,) = (await portal.desk.control.keys.page({"project": "lab"}, limit=9))[0]
    assert str(key.expires_at) == "2026-12-31 22:00:00+00:00"
    await lab.get(f"{ROOT}/project-end/lab")
    assert "End “Lab”?" in lab.page
    await lab.post(f"{ROOT}/project-end/lab")
    portal.desk.clock.move(timedelta(seconds=1))
    with pytest.raises(NotAuthenticated):
        await portal.desk.call(secret)
    await lab.get(LAB)
    assert "This project has ended." in lab.page
    sent = {**lab.hidden(LAB), "key_name": "late", "once": "x"}
    assert (await lab.post(path, sent)).status_code == 409
    await lab.get(LAB)
    token = lab.hidden(LAB)["token"]
    assert (await lab.post(f"{ROOT}/project-delete/lab", {"token": token})).status_code == 409


async def test_only_an_empty_one_is_deleted(lab: Browser) -> None:
    await lab.get(LAB)
    answer = await lab.post(f"{ROOT}/project-delete/lab")
    assert answer.headers["location"] == f"{ROOT}/projects?said=deleted"
    assert (await lab.get(LAB)).status_code == 404


@pytest.mark.parametrize(
    "fields", [{"name": ""}, {"name": "x", "responsible": "no"}, {"name": "x", "expires": "x"}]
)
async def test_what_it_cannot_become(lab: Browser, fields: dict[str, str]) -> None:
    await lab.get(LAB)
    assert (await lab.post(LAB, fields)).status_code == 422
