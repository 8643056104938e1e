"""All keys: found, changed, suspended, revoked, rotated."""

from datetime import timedelta

import pytest

from llmgateway.control.keys import Issued, NewKey
from llmgateway.control.people import UserChanges
from llmgateway.control.projects import NewProject, NewServiceKey
from llmgateway.domain.errors import NotAuthenticated
from llmgateway.domain.keys import mint
from llmgateway.portal.operators.keys import id_in
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal

KEYS = "/portal/operators/keys"


@pytest.fixture
async def issued(portal: Portal) -> Issued:
    return await portal.desk.control.keys.create(ANN, NewKey(user="aino", name="laptop", project="thesis"))


async def test_keys_are_found(ann: Browser, portal: Portal, issued: Issued) -> None:
    other = await portal.desk.control.keys.create(ANN, NewKey(user="ville", name="course"))
    await portal.desk.control.keys.revoke(ANN, other.key.id)
    for query, names in (
        ("", {"laptop", "course"}), ("?q=lap", {"laptop"}), ("?q=ville", {"course"}),
        (f"?q=lgw_{issued.key.id}_", {"laptop"}), (f"?q={other.key.hint}", {"course"}),
        ("?user=aino", {"laptop"}), ("?project=thesis", {"laptop"}), ("?state=revoked", {"course"}),
        ("?q=nothing", set()),
    ):  # fmt: skip
        await ann.get(f"{KEYS}{query}")
        assert {name for name in ("laptop", "course") if f">{name}</a>" in ann.page} == names, query
    assert "No key is found" in ann.page


def test_of_a_pasted_key_only_the_id_is_looked_for() -> None:
    id, token = mint()
    assert id_in(token) == id
    assert id_in("laptop_2") == "laptop_2"


async def test_a_key_is_changed(ann: Browser, portal: Portal, issued: Issued) -> None:
    path = f"{KEYS}/{issued.key.id}"
    await ann.get(path)
    fields = {"name": "new", "scope": "some", "models": ["qwen3-32b"], "expires": "2026-12-31"}
    assert (await ann.post(path, fields)).headers["location"] == f"{path}?said=changed"
    key = await portal.desk.control.keys.get(issued.key.id)
    assert (key.name, key.models) == ("new", ("qwen3-32b",))
    assert str(key.expires_at) == "2026-12-31 22:00:00+00:00", "the last day is part of it, in Helsinki"
    await ann.get(path)
    assert 'value="2026-12-31"' in ann.page
    await ann.post(path, {"name": "new", "scope": "all", "expires": ""})
    key = await portal.desk.control.keys.get(issued.key.id)
    assert (key.models, key.expires_at) == (None, None)
    for wrong in ({"name": ""}, {"name": "x", "expires": "soon"}, {"name": "x", "expires": "2020-01-01"},
                  {"name": "x", "scope": "some"}):  # fmt: skip
        await ann.get(path)
        assert (await ann.post(path, wrong)).status_code == 422, wrong


async def test_one_that_is_over_may_be_renamed(ann: Browser, portal: Portal, issued: Issued) -> None:
    path = f"{KEYS}/{issued.key.id}"
    await ann.get(path)
    await ann.post(path, {"name": "laptop", "expires": "2026-11-21"})
    portal.desk.clock.move(timedelta(days=3))
    await ann.sign_in("ann")
    await ann.get(path)
    assert "Expired" in ann.page
    assert (await ann.post(path, {"name": "old", "expires": "2026-11-21"})).status_code == 303


async def test_a_key_is_suspended_and_revoked(ann: Browser, portal: Portal, issued: Issued) -> None:
    path, token = f"{KEYS}/{issued.key.id}", issued.token.reveal()
    await ann.get(f"{path}/state")
    assert "Suspend “laptop”?" in ann.page
    await ann.post(f"{path}/state", {"state": "suspended"})
    with pytest.raises(NotAuthenticated):
        await portal.desk.call(token)
    await ann.get(path)
    await ann.post(f"{path}/state", {"state": "active"})
    await portal.desk.call(token)
    await ann.get(f"{path}/state?to=revoked")
    assert "Revoke “laptop”?" in ann.page
    await ann.post(f"{path}/state", {"state": "revoked"})
    with pytest.raises(NotAuthenticated):
        await portal.desk.call(token)
    sent = {"state": "active", "token": ann.hidden("/portal/look").get("token", "")}
    await ann.get(path)
    assert f"{path}/rotate" not in ann.page
    await ann.get("/portal/account")
    sent["token"] = ann.hidden("/portal/account")["token"]
    assert (await ann.post(f"{path}/state", sent)).status_code == 409


async def test_a_new_secret_is_an_administrators_to_see(ann: Browser, portal: Portal, issued: Issued) -> None:
    path = f"{KEYS}/{issued.key.id}"
    await ann.get(path)
    answer = await ann.post(f"{path}/rotate", {"overlap": "0"})
    assert answer.status_code == 201
    with pytest.raises(NotAuthenticated):
        await portal.desk.call(issued.token.reveal())
    await portal.desk.control.projects.create(ANN, NewProject(id="lab"))
    service = await portal.desk.control.projects.create_key(ANN, "lab", NewServiceKey(name="ci"))
    await portal.desk.control.people.change(ANN, "ann", UserChanges(roles=["operator"]))
    await ann.get(f"{KEYS}/{service.key.id}")
    assert (await ann.post(f"{KEYS}/{service.key.id}/rotate")).status_code == 201
    await ann.get("/portal/account")
    sent = {"token": ann.hidden("/portal/account")["token"]}
    assert (await ann.post(f"{path}/rotate", sent)).status_code == 403
