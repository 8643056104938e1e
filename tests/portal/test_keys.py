"""Keys as their owners handle them: made once, shown once, theirs alone."""

import asyncio
import re
from datetime import timedelta

import pytest

from llmgateway.control.keys import KeyChanges, NewKey
from llmgateway.control.people import NewUser
from llmgateway.domain.errors import NotAuthenticated
from llmgateway.domain.keys import Key
from llmgateway.domain.policy import KeyRules, Policy
from llmgateway.portal.keys import MOST
from llmgateway.portal.routes import PLACES
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal

NEW = {"name": "thesis", "scope": "all", "life": "90"}
ODD = "<script>alert(1)</script>\"'&"


async def make(browser: Browser, **fields: object) -> str:
    """The key's clear text."""
    await browser.get("/portal/keys/new")
    answer = await browser.post("/portal/keys", {**NEW, **fields})
    assert answer.status_code == 201, answer.text
    found = re.search(r'<code id="secret">(lgw_\w+)</code>', browser.page)
    assert found is not None
    return found[1]


async def keys_of(portal: Portal, user: str = "alice") -> list[Key]:
    return list((await portal.desk.control.keys.page({"user": user}, limit=100))[0])


async def test_a_keys_life_in_the_browser(alice: Browser, portal: Portal) -> None:
    await alice.get("/portal/keys")
    assert "You have no key yet" in alice.page
    token = await make(alice)
    assert (await portal.desk.call(token)).user == "alice"
    (key,) = await keys_of(portal)
    assert key.expires_at is not None
    assert key.expires_at - key.created_at == timedelta(days=90)
    for path in ("/portal/keys", f"/portal/keys/{key.id}", "/portal"):
        await alice.get(path)
        assert token not in alice.page
        assert key.digest not in alice.page
    await alice.get(f"/portal/keys/{key.id}")
    await alice.post(f"/portal/keys/{key.id}", {"name": "laptop"})
    await alice.get(f"/portal/keys/{key.id}?said=changed")
    assert "<h1>laptop</h1>" in alice.page
    answer = await alice.post(f"/portal/keys/{key.id}/rotate", {"overlap": "1"})
    assert answer.status_code == 201
    renewed = re.search(r'<code id="secret">(lgw_\w+)</code>', alice.page)
    assert renewed is not None
    assert (await portal.desk.call(renewed[1])).key_id == key.id
    assert (await portal.desk.call(token)).key_id == key.id
    await alice.get(f"/portal/keys/{key.id}/revoke")
    assert "Revoke “laptop”?" in alice.page
    answer = await alice.post(f"/portal/keys/{key.id}/revoke")
    assert answer.headers["location"] == "/portal/keys?said=revoked"
    for one in (token, renewed[1]):
        with pytest.raises(NotAuthenticated):
            await portal.desk.call(one)
    await alice.get("/portal/keys")
    assert "Revoked and expired keys (1)" in alice.page


async def test_models_life_and_limits(alice: Browser, portal: Portal) -> None:
    await make(
        alice, scope="some", models=["qwen3-32b"], life="", tokens_per_day="10 000", requests_per_minute="5"
    )
    (key,) = await keys_of(portal)
    assert (key.models, key.expires_at) == (("qwen3-32b",), None)
    assert (key.limits.tokens_per_day, key.limits.requests_per_minute) == (10_000, 5)
    await alice.get(f"/portal/keys/{key.id}")
    assert "10,000" in alice.page


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"scope": "some"}, "models"),
        ({"scope": "some", "models": "no-such-model"}, "models"),
        ({"tokens_per_day": "-1"}, "tokens_per_day"),
        ({"tokens_per_day": "1.5"}, "tokens_per_day"),
        ({"requests_per_minute": "9" * 20}, "requests_per_minute"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_lost(
    alice: Browser, portal: Portal, fields: dict[str, str], param: str
) -> None:
    await alice.get("/portal/keys/new")
    answer = await alice.post("/portal/keys", {**NEW, **fields})
    assert answer.status_code == 422
    assert (f'id="e-{param}"' in alice.page) or param == "models"
    assert 'class="wrong"' in alice.page
    if param != "name":
        assert 'value="thesis"' in alice.page
    assert not await keys_of(portal)


async def test_reloading_the_answer_makes_no_second_key(alice: Browser, portal: Portal) -> None:
    await alice.get("/portal/keys/new")
    fields = {**NEW, **alice.hidden("/portal/keys")}
    assert (await alice.post("/portal/keys", fields)).status_code == 201
    answer = await alice.post("/portal/keys", fields)
    assert answer.headers["location"] == "/portal/keys?said=already"
    assert len(await keys_of(portal)) == 1


async def test_a_person_has_so_many_keys_and_windows_do_not_race(alice: Browser, portal: Portal) -> None:
    for n in range(MOST - 1):
        await portal.desk.control.keys.create(ANN, NewKey(user="alice", name=str(n)))
    await alice.get("/portal/keys/new")
    fields = {**NEW, **alice.hidden("/portal/keys")}
    answers = await asyncio.gather(
        *(alice.post("/portal/keys", {**fields, "once": f"window-{n}"}) for n in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert len(await keys_of(portal)) == MOST
    answer = await alice.post("/portal/keys", {**fields, "once": "later"})
    assert answer.status_code == 409
    assert "as many keys as one person may have" in alice.page


async def test_s_key_08_a_key_is_never_more_than_its_owner(alice: Browser, portal: Portal) -> None:
    """What the form does not have is not taken from it."""
    await make(alice, user="bob", project="secret", roles="admin", state="active", purpose="playground",
               limits="{}", expires_at="2999-01-01")  # fmt: skip
    (key,) = await keys_of(portal)
    assert (key.user, key.project, key.purpose) == ("alice", None, "programs")
    assert key.expires_at is not None
    assert await keys_of(portal, "bob") == []


async def test_s_key_09_owners_change_the_name_of_a_key_and_nothing_else(
    alice: Browser, portal: Portal
) -> None:
    await make(alice)
    (key,) = await keys_of(portal)
    await portal.desk.control.keys.change(ANN, key.id, KeyChanges(state="suspended"))
    await alice.get(f"/portal/keys/{key.id}")
    fields = {"name": "new", "state": "active", "user": "bob", "tokens_per_day": "", "models": "", "life": ""}
    await alice.post(f"/portal/keys/{key.id}", fields)
    (after,) = await keys_of(portal)
    assert (after.name, after.state, after.user, after.limits, after.expires_at) == (
        "new", "suspended", "alice", key.limits, key.expires_at,
    )  # fmt: skip


PLACES_OF_A_KEY = [place for place in PLACES if "{id}" in place.path]


@pytest.mark.parametrize("place", PLACES_OF_A_KEY, ids=lambda place: place.name)
async def test_s_key_10_a_key_of_somebody_else_is_not_there(
    alice: Browser, portal: Portal, place: object
) -> None:
    await portal.desk.control.people.create(ANN, NewUser(id="bob"))
    issued = await portal.desk.control.keys.create(ANN, NewKey(user="bob", name="bobs"))
    await alice.get("/portal/account")
    token = alice.hidden("/portal/account")["token"]
    answers = []
    for id in (issued.key.id, "unknown"):
        path = place.path.replace("{id}", id)  # type: ignore[attr-defined]
        found = [await alice.get(path)] if place.get else []  # type: ignore[attr-defined]
        if place.post:  # type: ignore[attr-defined]
            found.append(await alice.post(path, {"token": token, "name": "mine now"}))
        answers.append([answer.status_code for answer in found])
        assert all("bobs" not in answer.text for answer in found)
    assert answers[0] == answers[1] == [404] * len(answers[0])
    assert (await portal.desk.call(issued.token.reveal())).user == "bob"
    assert (await portal.desk.control.keys.get(issued.key.id)).name == "bobs"


async def test_s_csp_02_names_are_text_wherever_they_stand(alice: Browser, portal: Portal) -> None:
    await make(alice, name=ODD)
    (key,) = await keys_of(portal)
    paths = (
        f"/portal/keys/{key.id}",
        "/portal/keys",
        f"/portal/keys/{key.id}/revoke",
        "/portal/usage",
        "/portal",
    )
    for path in paths:
        await alice.get(path)
        assert "<script>alert" not in alice.page
        assert "alert(1)" in alice.page or path == "/portal"


async def test_until_when_somebody_has_to_sign_in_again_is_told(alice: Browser, portal: Portal) -> None:
    await make(alice)
    portal.desk.configure(policy=Policy(keys=KeyRules(sign_in_within=90)))
    await alice.get("/portal/keys")
    assert "Sign in again by" not in alice.page  # nobody but the gateway knows her
    stored = await portal.desk.store.get("users", "alice")
    assert stored is not None
    identity = {"provider": "idp", "signed_in_at": portal.desk.clock.at, "models": ["org/embed"]}
    await portal.desk.store.replace("users", {**stored, **identity, "revision": stored["revision"] + 1})
    await alice.get("/portal/keys")
    assert "Sign in again by 18 Feb 2027" in alice.page
    await alice.get("/portal/keys/new")
    assert "org/embed" in alice.page
    assert "qwen3-32b" not in alice.page  # not hers to allow a key


async def test_whom_the_policy_shut_out_is_out_of_the_portal(alice: Browser, portal: Portal) -> None:
    stored = await portal.desk.store.get("users", "alice")
    assert stored is not None
    lapse = {"lapsed": "denied", "revision": stored["revision"] + 1}
    await portal.desk.store.replace("users", stored | lapse)
    assert (await alice.get("/portal/keys")).status_code == 303
