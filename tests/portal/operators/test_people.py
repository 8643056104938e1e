"""All people: searched, narrowed down, paged, and added by hand."""

import pytest

from llmgateway.control.people import NewUser, UserChanges
from llmgateway.control.projects import NewProject, NewServiceKey
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal
from tests.portal.test_overview import used

PEOPLE = "/portal/operators/people"


async def test_people_are_found_by_what_is_known_of_them(ann: Browser, portal: Portal) -> None:
    people = portal.desk.control.people
    new = NewUser(id="aino", name="Aino Korhonen", email="ak@example.edu", project="thesis")
    await people.create(ANN, new)
    await people.create(ANN, NewUser(id="ville", roles=["user", "operator"]))
    await people.change(ANN, "ville", UserChanges(state="suspended"))
    await used(portal, "aino", "qwen3-32b")
    for query, shown in (
        ("", {"ann", "aino", "ville"}), ("?q=korhonen", {"aino"}), ("?q=AK%40example", {"aino"}),
        ("?state=suspended", {"ville"}), ("?role=operator", {"ville"}), ("?role=admin", {"ann"}),
        ("?project=thesis", {"aino"}), ("?q=nobody", set()), ("?q=aino&state=suspended", set()),
    ):  # fmt: skip
        await ann.get(f"{PEOPLE}{query}")
        found = {id for id in ("ann", "aino", "ville") if f"/portal/operators/person/{id}" in ann.page}
        assert found == shown, query
    assert "Nobody is found" in ann.page
    await ann.get(PEOPLE)
    assert ">123<" in ann.page


async def test_whom_keys_of_projects_belong_to_is_nobody(ann: Browser, portal: Portal) -> None:
    await portal.desk.control.projects.create(ANN, NewProject(id="thesis"))
    await portal.desk.control.projects.create_key(ANN, "thesis", NewServiceKey(name="ci"))
    await ann.get(PEOPLE)
    assert "service:thesis" not in ann.page


async def test_a_long_list_is_paged(ann: Browser, portal: Portal) -> None:
    for n in range(60):
        await portal.desk.control.people.create(ANN, NewUser(id=f"user-{n:02}"))
    await ann.get(PEOPLE)
    assert "user-48" in ann.page
    assert "user-55" not in ann.page
    assert "Next page" in ann.page
    await ann.get(f"{PEOPLE}?after=user-48")
    assert "user-59" in ann.page
    assert "Back to the beginning" in ann.page


async def test_somebody_is_added(ann: Browser, portal: Portal) -> None:
    await ann.get(f"{PEOPLE}/new")
    fields = {"id": "aino", "name": "Aino", "email": "", "project": "", "roles": "admin"}
    answer = await ann.post(PEOPLE, fields)
    assert answer.headers["location"] == "/portal/operators/person/aino?said=created"
    user = await portal.desk.control.people.get("aino")
    assert (user.name, user.roles) == ("Aino", ("user",)), "a role is not the form's to give"


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"id": ""}, 422), ({"id": "ann"}, 409), ({"id": "x", "email": "nowhere"}, 422), ({"id": "a/.."}, 422)],
)
async def test_who_cannot_be_added(ann: Browser, fields: dict[str, str], status: int) -> None:
    await ann.get(f"{PEOPLE}/new")
    answer = await ann.post(PEOPLE, fields)
    assert answer.status_code == status
    assert 'class="wrong"' in ann.page
