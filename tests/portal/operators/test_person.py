"""One person: looked at, changed, shut out; and who may do that to whom."""

import pytest

from llmgateway.control.keys import NewKey
from llmgateway.control.people import NewUser, UserChanges
from llmgateway.domain.errors import NotAuthenticated
from llmgateway.domain.limits import Limits, Scope, Standing
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal, browsing
from tests.portal.test_overview import used

AINO = "/portal/operators/person/aino"


@pytest.fixture(autouse=True)
async def aino(portal: Portal) -> None:
    await portal.desk.control.people.create(ANN, NewUser(id="aino", name="Aino", project="thesis"))


@pytest.fixture
async def olli(ann: Browser, portal: Portal) -> Browser:
    """An operator, who is no administrator."""
    await ann.post("/portal/sign-out", {"token": await token(ann)})
    await ann.sign_up("olli")
    await portal.desk.control.people.change(ANN, "olli", UserChanges(roles=["user", "operator"]))
    return ann


async def token(browser: Browser) -> str:
    await browser.get("/portal/account")
    return browser.hidden("/portal/account")["token"]


async def test_what_is_known_of_a_person(ann: Browser, portal: Portal) -> None:
    issued = await portal.desk.control.keys.create(
        ANN, NewKey(user="aino", name="laptop", limits=Limits(tokens_per_day=5))
    )
    failed = await used(portal, "aino", "qwen3-32b", outcome="timeout", status=504)
    scope = Scope("key", issued.key.id, Limits(tokens_per_day=5))
    portal.limits = [Standing(scope, "tokens_per_day", 5, 2, 7200.0)]
    await ann.get(AINO)
    for text in ("laptop", failed, "Too slow", "3 left of 5", "key “laptop”", "2 used; anew in 2 hours"):
        assert text in ann.page, text
    assert issued.token.reveal() not in ann.page
    assert {scope.kind for scope in portal.asked_scopes} == {"key"}
    assert (await ann.get("/portal/operators/person/nobody")).status_code == 404


async def test_a_profile_is_changed(ann: Browser, portal: Portal) -> None:
    await ann.get(AINO)
    fields = {"name": "Aino K", "email": "a@example.edu", "project": "", "roles": "admin"}
    answer = await ann.post(AINO, fields)
    assert answer.headers["location"] == f"{AINO}?said=changed"
    user = await portal.desk.control.people.get("aino")
    assert (user.name, user.email, user.project, user.roles) == ("Aino K", "a@example.edu", None, ("user",))
    await ann.get(AINO)
    assert (await ann.post(AINO, {"name": "Aino", "email": "nowhere"})).status_code == 422


async def test_roles_are_an_administrators_to_give(ann: Browser, portal: Portal) -> None:
    path = "/portal/operators/person-roles/aino"
    await ann.get(AINO)
    await ann.post(path, {"roles": ["user", "operator", "root"]})
    assert (await portal.desk.control.people.get("aino")).roles == ("user", "operator")
    await ann.get(AINO)
    assert (await ann.post(path, {})).status_code == 422
    await ann.get(AINO)
    own = "/portal/operators/person-roles/ann"
    refused = await ann.post(own, {"roles": "user", "token": await token(ann)})
    assert refused.status_code == 403
    assert "admin" in (await portal.desk.control.people.get("ann")).roles


async def test_who_is_suspended_is_out_at_once(ann: Browser, portal: Portal) -> None:
    issued = await portal.desk.control.keys.create(ANN, NewKey(user="aino", name="laptop"))
    path = "/portal/operators/person-state/aino"
    await ann.get(path)
    assert "Suspend “Aino”?" in ann.page
    assert (await ann.post(path, {"state": "suspended"})).headers["location"] == f"{AINO}?said=suspended"
    with pytest.raises(NotAuthenticated):
        await portal.desk.call(issued.token.reveal())
    await ann.get(AINO)
    await ann.post(path, {"state": "active"})
    await portal.desk.call(issued.token.reveal())
    refused = await ann.post("/portal/operators/person-state/ann", {"token": await token(ann)})
    assert refused.status_code == 403, "nobody shuts themselves out"


async def test_sessions_are_ended(ann: Browser, portal: Portal) -> None:
    async with browsing(portal) as aino:
        await portal.desk.control.people.change(ANN, "aino", UserChanges(project=None))
        await aino.sign_up("matti")
        assert (await aino.get("/portal")).status_code == 200
        await ann.get("/portal/operators/person/matti")
        assert "in 1 browser<" in ann.page
        path = "/portal/operators/person-sessions/matti"
        assert (await ann.post(path)).headers["location"].endswith("said=sessions")
        assert (await aino.get("/portal")).status_code == 303
    (line,) = (await portal.desk.control.audit.page({"action": "sessions.end"}, limit=2)).data
    assert (line["who"], line["target"], line["details"]) == ("user ann", "matti", {"which": "all"})


async def test_a_key_for_somebody_is_shown_once(ann: Browser, portal: Portal) -> None:
    path = "/portal/operators/person-key/aino"
    await ann.get(AINO)
    fields = {**ann.hidden(path), "key_name": "gift", "life": "30"}
    answer = await ann.post(path, fields)
    assert answer.status_code == 201
    (key,) = (await portal.desk.control.keys.page({"user": "aino"}, limit=9))[0]
    assert (key.name, key.project, key.expires_at is not None) == ("gift", "thesis", True)
    assert f"lgw_{key.id}_" in ann.page
    assert (await ann.post(path, fields)).headers["location"].endswith("said=already")
    await ann.get(AINO)
    assert (await ann.post(path, {"key_name": " "})).status_code == 422


@pytest.mark.parametrize("path", ["person-roles/aino", "person-key/aino", "models/new", "config"])
async def test_s_key_08_an_operator_is_no_administrator(olli: Browser, path: str, portal: Portal) -> None:
    sent = {"token": await token(olli), "roles": "admin", "key_name": "x"}
    assert (await olli.post(f"/portal/operators/{path}", sent)).status_code == 404
    assert (await portal.desk.control.people.get("aino")).roles == ("user",)


@pytest.mark.parametrize("place", ["person", "person-state", "person-sessions"])
@pytest.mark.parametrize("user", ["ann", "olli"])
async def test_s_key_08_an_operator_changes_no_operator(olli: Browser, place: str, user: str) -> None:
    sent = {"token": await token(olli), "state": "suspended", "name": "x"}
    assert (await olli.post(f"/portal/operators/{place}/{user}", sent)).status_code == 403
    assert (await olli.get(f"/portal/operators/person/{user}")).status_code == 200
    assert "Only an administrator" in olli.page
    assert (await olli.post(f"/portal/operators/{place}/aino", sent)).status_code == 303


async def test_what_the_policy_says_of_a_person(ann: Browser, portal: Portal) -> None:
    store = portal.desk.store
    for lapsed, badge, why in (
        ("denied", "Not entitled", "No rule lets this person in"),
        ("absent", "Long absent", "until they sign in again"),
    ):
        stored = await store.get("users", "aino")
        assert stored is not None
        known = {"provider": "https://idp/", "signed_in_at": portal.desk.clock.at, "by_hand": ["roles"]}
        await store.replace("users", stored | known | {"lapsed": lapsed, "revision": stored["revision"] + 1})
        await ann.get(AINO)
        for text in (badge, why, "https://idp/", "all but what an operator set: roles"):
            assert text in ann.page, text
        await ann.get("/portal/operators/people")
        assert badge in ann.page


FORGET = "/portal/operators/person-forget/aino"


async def test_an_administrator_ends_an_account(ann: Browser, portal: Portal) -> None:
    issued = await portal.desk.control.keys.create(ANN, NewKey(user="aino", name="laptop"))
    await ann.get(AINO)
    assert f'href="{FORGET}"' in ann.page
    await ann.get(FORGET)
    assert (await ann.post(FORGET, {"typed": "Aino"})).status_code == 422
    answer = await ann.post(FORGET, {"typed": "aino"})
    assert answer.headers["location"] == "/portal/operators/people?said=forgotten"
    with pytest.raises(NotAuthenticated):
        await portal.desk.call(issued.token.reveal())
    assert (await ann.get(AINO)).status_code == 404
    await ann.get("/portal/operators/people")
    assert "gone:" not in ann.page  # only for who asks
    await ann.get("/portal/operators/people?state=gone")
    assert "gone:" in ann.page
    assert "Aino" not in ann.page
    ((gone,), _) = await portal.desk.control.people.page({"state": "gone"}, limit=9)
    await ann.get(f"/portal/operators/person/{gone.id}")
    assert "This account was ended." in ann.page
    assert "/person-forget/" not in ann.page
    refused = await ann.post(
        f"/portal/operators/person-forget/{gone.id}", {"token": await token(ann), "typed": gone.id}
    )
    assert refused.status_code == 409
    mine = {"token": await token(ann), "typed": "ann"}
    assert (await ann.post("/portal/operators/person-forget/ann", mine)).status_code == 403


async def test_an_operator_ends_nobodys_account(olli: Browser) -> None:
    await olli.get(AINO)
    assert "/person-forget/" not in olli.page
    assert (await olli.get(FORGET)).status_code == 404
    assert (await olli.post(FORGET, {"token": await token(olli), "typed": "aino"})).status_code == 404


PASSWORD = "/portal/operators/person-password/aino"


async def test_a_new_password_is_shown_once(ann: Browser, portal: Portal) -> None:
    await ann.get(AINO)
    assert "has no password yet" in ann.page
    fields = ann.hidden(PASSWORD)
    assert (await ann.post(PASSWORD, fields)).status_code == 201
    made = secret_in(ann.page)
    assert "change it on their account page" in ann.page
    assert (await ann.post(PASSWORD, fields)).headers["location"] == f"{AINO}?said=already"
    async with browsing(portal) as aino:
        assert (await aino.sign_in("aino", made)).status_code == 303
        assert (await aino.get("/portal")).status_code == 200
        await ann.get(AINO)
        assert "forgotten theirs" in ann.page
        assert made not in ann.page
        await ann.post(PASSWORD)
        assert secret_in(ann.page) != made
        assert (await aino.get("/portal")).status_code == 303, "signed out everywhere"
        assert (await aino.sign_in("aino", made)).status_code == 401
    lines = (await portal.desk.control.audit.page({"action": "accounts.password"}, limit=9)).data
    told = {(line["who"], line["target"], line["result"]) for line in lines}
    assert (len(lines), told) == (2, {("user ann", "aino", "ok")})
    await ann.get(AINO, accept_language="fi")
    assert "Uusi salasana" in ann.page


async def test_nobody_makes_their_own_password_without_the_old_one(ann: Browser) -> None:
    own = PASSWORD.replace("aino", "ann")
    await ann.get("/portal/operators/person/ann")
    assert own not in ann.page
    assert (await ann.post(own, {"token": await token(ann)})).status_code == 403


async def test_for_whom_there_is_no_new_password(ann: Browser, portal: Portal) -> None:
    stored = await portal.desk.store.get("users", "aino")
    assert stored is not None
    await portal.desk.store.replace("users", stored | {"provider": "https://idp/", "revision": 1})
    await ann.get(AINO)
    assert PASSWORD not in ann.page
    refused = await ann.post(PASSWORD, {"token": await token(ann), "once": "1"})
    assert refused.status_code == 409
    assert "identity provider and has no password here" in ann.page


async def test_s_key_08_only_administrators_make_passwords(olli: Browser) -> None:
    """Whoever knows somebody's password may be that person."""
    sent = {"token": await token(olli), "once": "1"}
    for user in ("ann", "olli", "aino"):
        assert (await olli.post(PASSWORD.replace("aino", user), sent)).status_code == 404
    await olli.get(AINO)
    assert PASSWORD not in olli.page


def secret_in(page: str) -> str:
    return page.partition('<code id="secret">')[2].partition("<")[0]
