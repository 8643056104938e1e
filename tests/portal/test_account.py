"""A person's own page: profile, password, sessions, data."""

from llmgateway.control.keys import NewKey
from llmgateway.domain.ports import UsageQuery
from tests.control.desk import ANN
from tests.portal.house import PASSWORD, Browser, Portal, browsing
from tests.portal.test_overview import used


async def test_s_key_09_people_change_their_name_and_nothing_else(alice: Browser, portal: Portal) -> None:
    before = await portal.desk.control.people.get("alice")
    await alice.get("/portal/account")
    fields = {"name": " Alice A ", "roles": "admin", "role": "admin", "id": "bob", "email": "x@example.org",
              "state": "active", "limits": "{}", "project": "secret", "revision": "9"}  # fmt: skip
    answer = await alice.post("/portal/account", fields)
    assert answer.headers["location"] == "/portal/account?said=changed"
    after = await portal.desk.control.people.get("alice")
    assert after.name == "Alice A"
    assert (after.roles, after.email, after.project, after.limits) == (
        before.roles, before.email, before.project, before.limits,
    )  # fmt: skip
    await alice.get("/portal/account")
    answer = await alice.post("/portal/account", {"name": "x" * 200})
    assert answer.status_code == 422
    assert 'id="e-name"' in alice.page


async def test_a_changed_password_ends_all_other_sessions(alice: Browser, portal: Portal) -> None:
    async with browsing(portal) as other:
        await other.get("/portal/sign-in")
        await other.sign_in()
        assert (await other.get("/portal")).status_code == 200
        await alice.get("/portal/account")
        wrong = await alice.post("/portal/account/password", {"old": "wrong", "new": "battery staple"})
        assert wrong.status_code == 422
        assert 'id="e-old"' in alice.page
        await alice.post("/portal/account/password", {"old": PASSWORD, "new": "battery staple"})
        assert (await other.get("/portal")).is_redirect
        assert (await alice.get("/portal")).status_code == 200
        await other.get("/portal/sign-in")
        assert (await other.sign_in()).status_code == 401
        assert (await other.sign_in(password="battery staple")).is_redirect


async def test_s_ses_03_sessions_are_seen_and_ended(alice: Browser, portal: Portal) -> None:
    async with browsing(portal, user_agent="Mozilla/5.0 (X11; Linux) Firefox/140.0") as other:
        await other.get("/portal/sign-in")
        await other.sign_in()
        await alice.get("/portal/account")
        assert "Firefox, Linux" in alice.page
        (theirs,) = [one for one in await portal.sessions.of_user("alice") if "Firefox" in one.agent]
        await alice.post("/portal/account/sessions", {"session": theirs.handle})
        answer = await other.get("/portal/keys")
        assert answer.headers["location"] == "/portal/sign-in?next=keys&said=over"
        await other.get(answer.headers["location"])
        assert "Your session is over. Sign in again to go on." in other.page
        await other.sign_in()
        await alice.get("/portal/account")
        await alice.post("/portal/account/sessions/others")
        assert (await other.get("/portal")).is_redirect
    (mine,) = await portal.sessions.of_user("alice")
    await alice.get("/portal/account")
    assert (await alice.post("/portal/account/sessions", {"session": "0" * 16})).status_code == 404
    await alice.get("/portal/account")
    await alice.post("/portal/account/sessions", {"session": mine.handle})
    assert (await alice.get("/portal")).is_redirect
    lines = (await portal.desk.control.audit.page({"action": "sessions.end"}, limit=9)).data
    told = [(line["result"], line["details"].get("which") or line["details"].get("how")) for line in lines]
    assert told == [("ok", "local"), ("not_found", None), ("ok", "others"), ("ok", "another")]


async def test_the_export_holds_all_that_is_kept_and_no_secret(alice: Browser, portal: Portal) -> None:
    issued = await portal.desk.control.keys.create(ANN, NewKey(user="alice", name="laptop"))
    await used(portal, "alice", "qwen3-32b", id="a")
    await used(portal, "bob", "bobs-model", id="b")
    answer = await alice.get("/portal/account/export.json")
    told = answer.json()
    assert told["user"]["id"] == "alice"
    assert [key["name"] for key in told["keys"]] == ["laptop"]
    assert [row["model"] for row in told["usage"]] == ["qwen3-32b"]
    assert len(told["newest_requests"]) == 1
    assert len(told["sessions"]) == 1
    (session,) = await portal.sessions.of_user("alice")
    for secret in (
        issued.token.reveal(),
        issued.key.digest,
        session.id,
        session.csrf,
        "argon2",
        "bobs-model",
    ):
        assert secret not in answer.text


FORGET = "/portal/account/forget"


async def test_people_end_their_own_account(alice: Browser, portal: Portal) -> None:
    await portal.desk.control.keys.create(ANN, NewKey(user="alice", name="laptop"))
    await used(portal, "alice", "qwen3-32b", id="a")
    await alice.get("/portal/account")
    assert f'href="{FORGET}"' in alice.page
    async with browsing(portal) as other:
        await other.get("/portal/sign-in")
        await other.sign_in()
        assert (await alice.get(FORGET)).status_code == 200
        assert "pseudonym" in alice.page
        for wrong in ("", "bob", "Alice"):
            answer = await alice.post(FORGET, {"typed": wrong})
            assert answer.status_code == 422
            assert 'id="e-typed"' in alice.page
        answer = await alice.post(FORGET, {"typed": " alice "})
        assert answer.headers["location"] == "/portal/sign-in?said=forgotten"
        for browser in (alice, other):
            assert (await browser.get("/portal")).is_redirect
    await alice.get("/portal/sign-in?said=forgotten")
    assert "The account is ended." in alice.page
    assert (await alice.sign_in()).status_code == 401
    rows = await portal.desk.store.usage(UsageQuery(by=("user",)))
    assert [(row.requests, str(row.group["user"])[:5]) for row in rows] == [(1, "gone:")]
    await alice.get("/portal/sign-up")
    await alice.sign_up()  # the name is free again, for somebody new
    assert (await alice.get("/portal/account/export.json")).json()["usage"] == []


async def test_the_only_administrator_is_told_why_not(ann: Browser, portal: Portal) -> None:
    await ann.get(FORGET)
    answer = await ann.post(FORGET, {"typed": "ann"})
    assert answer.status_code == 409
    assert "make somebody else one first" in ann.page
    assert (await ann.get("/portal")).status_code == 200


async def test_an_account_is_ended_by_its_own_page_only(alice: Browser, portal: Portal) -> None:
    await alice.get("/portal/account")
    sent = {"typed": "alice", "token": "guessed"}
    assert (await alice.post(FORGET, sent)).status_code == 403
    await alice.get(FORGET)
    headers = {"sec-fetch-site": "cross-site"}
    answer = await alice.client.post(FORGET, data={**alice.hidden(FORGET), "typed": "alice"}, headers=headers)
    assert answer.status_code == 403
    assert (await portal.desk.control.people.get("alice")).state == "active"
