"""The operators' table: who may come to each place, and that every page of it is for everybody."""

import pytest

from llmgateway.control.people import UserChanges
from llmgateway.portal.door import Place
from llmgateway.portal.operators.places import LINKS, PLACES
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal

ADMINS = {
    "op-person-roles",
    "op-person-key",
    "op-person-forget",
    "op-person-password",
    "op-model-new",
    "op-model-change",
    "op-model-delete",
    "op-config",
}
PAGES = [place for place in PLACES if place.get and "{" not in place.path and "events" not in place.path]


def test_what_needs_an_administrator() -> None:
    assert {place.name for place in PLACES if place.needs == "admin"} == ADMINS
    assert {place.needs for place in PLACES} == {"operator", "admin"}
    assert {link.name for link in LINKS} <= {place.name for place in PLACES}


@pytest.mark.parametrize("place", PAGES, ids=lambda place: place.name)
async def test_s_key_11_each_page_is_there_for_its_roles_alone(
    ann: Browser, portal: Portal, place: Place
) -> None:
    for role, status in (("admin", 200), ("operator", 404 if place.needs == "admin" else 200), ("user", 404)):
        await portal.desk.control.people.change(ANN, "ann", UserChanges(roles=[role]))  # type: ignore[list-item]
        answer = await ann.get(place.path)
        expected = 303 if place.name == "op-limit-find" and status == 200 else status
        assert answer.status_code == expected, role
        if role == "user":
            assert "Operators" not in ann.page
