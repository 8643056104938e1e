"""Signing up, in and out in the browser's words, and the look of pages."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from typing_extensions import override

from llmgateway.control.accounts import PER_PAIR, AccountRules
from llmgateway.control.people import NewUser, UserChanges
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.control.desk import ANN, Desk
from tests.portal.house import ADMIN_KEY, PASSWORD, Browser, Portal, browsing
from tests.portal.redirects import corpus


async def test_a_new_gateway_leads_to_its_first_account(browser: Browser) -> None:
    """From the root to the overview, by what each answer says."""
    path, seen = "/", []
    while (answer := await browser.get(path)).is_redirect:
        path = answer.headers["location"]
        seen.append(path)
    assert seen == ["/portal", "/portal/sign-in", "/portal/sign-up"]
    assert "The first account is the administrator" in browser.page
    answer = await browser.post(
        "/portal/sign-up", {"login": "Alice", "password": "correct horse", "name": "Ann"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal?said=welcome")
    await browser.get("/portal?said=welcome")
    assert "Your account is ready." in browser.page
    assert "Hello, Ann" in browser.page


async def test_who_got_a_password_before_anybody_signed_up_gets_in(browser: Browser, portal: Portal) -> None:
    await portal.desk.control.people.create(ANN, NewUser(id="bob"))
    made = await portal.portal_desk().accounts.set_password(ANN, "bob", None)
    assert (await browser.get("/portal/sign-in")).status_code == 200
    assert (await browser.sign_in("bob", made.password.reveal())).status_code == 303
    assert (await browser.get("/portal")).status_code == 200


async def test_what_is_wrong_stands_at_its_field(browser: Browser) -> None:
    answer = await browser.post("/portal/sign-up", {"login": "alice", "password": "short", "name": "A <b>"})
    assert answer.status_code == 422
    assert 'aria-invalid="true" aria-describedby="e-password h-password"' in browser.page
    assert "A password has at least 10 characters." in browser.page
    assert 'value="A &lt;b&gt;"' in browser.page
    assert "short" not in browser.page
    answer = await browser.post("/portal/sign-up", {"login": "a b", "password": "correct horse"})
    assert 'id="e-login"' in browser.page


async def test_signing_out_and_in_again(alice: Browser, portal: Portal) -> None:
    await alice.get("/portal")
    old = dict(alice.client.cookies)
    answer = await alice.post("/portal/sign-out")
    assert answer.headers["location"] == "/portal/sign-in?said=signed-out"
    (line,) = (await portal.desk.control.audit.page({"action": "sessions.end"}, limit=10)).data
    assert (line["target"], line["details"]) == ("alice", {"how": "local"})
    assert (await alice.get("/portal")).headers["location"] == "/portal/sign-in"
    async with browsing(portal) as thief:
        thief.client.cookies.update(old)
        assert (await thief.get("/portal")).is_redirect
    assert (await alice.sign_in(password="wrong wrong")).status_code == 401
    assert "The user name or the password is wrong." in alice.page
    answer = await alice.sign_in(next="usage")
    assert answer.headers["location"] == "/portal/usage"
    assert (await alice.get("/portal/sign-in")).headers["location"] == "/portal"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/portal/usage",
        "key",
        "nothing",
        "\\\\e",
        "sign-out",
        "%2f%2fevil",
    ],
)
async def test_s_redir_01_the_way_back_is_a_name_from_a_list(alice: Browser, target: str) -> None:
    await alice.get("/portal")
    await alice.post("/portal/sign-out")
    assert (await alice.sign_in(next=target)).headers["location"] == "/portal"
    assert (await alice.get(f"/portal/sign-in?next={target}")).headers["location"] == "/portal"
    answer = await alice.post("/portal/look", {"theme": "dark", "next": target, "token": "x"})
    assert answer.status_code == 403


async def test_who_was_on_the_way_somewhere_gets_there(alice: Browser) -> None:
    await alice.get("/portal")
    await alice.post("/portal/sign-out")
    assert (await alice.get("/portal/usage")).headers["location"] == "/portal/sign-in?next=usage"
    await alice.get("/portal/sign-in?next=usage")
    assert (await alice.sign_in()).headers["location"] == "/portal/usage"


async def test_too_many_tries_are_refused_in_words(alice: Browser) -> None:
    await alice.get("/portal")
    await alice.post("/portal/sign-out")
    for _ in range(PER_PAIR):
        await alice.sign_in(password="wrong wrong")
    answer = await alice.sign_in()
    assert answer.status_code == 429
    assert "Too many tries" in alice.page


async def test_who_is_suspended_is_told_so_and_not_let_in(alice: Browser, portal: Portal) -> None:
    await alice.get("/portal")
    await portal.desk.control.people.change(ANN, "alice", UserChanges(state="suspended"))
    assert (await alice.get("/portal")).is_redirect
    answer = await alice.sign_in()
    assert answer.status_code == 403
    assert "suspended" in alice.page
    assert (await alice.get("/portal")).is_redirect


async def test_where_others_can_reach_it_the_first_account_shows_the_operators_key(
    browser: Browser, portal: Portal
) -> None:
    portal.rules = AccountRules(is_private=False)
    await browser.get("/portal/sign-up")
    assert 'name="claim"' in browser.page
    answer = await browser.post(
        "/portal/sign-up", {"login": "bob", "password": "correct horse", "claim": "guess"}
    )
    assert answer.status_code == 422
    assert 'id="e-claim"' in browser.page
    await browser.sign_up("alice", claim=ADMIN_KEY.reveal())
    assert "admin" in (await portal.desk.control.people.get("alice")).roles


async def test_what_is_switched_off_is_not_offered(browser: Browser, portal: Portal) -> None:
    portal.rules = AccountRules(is_private=False, sign_in=False, sign_up=False)
    await browser.get("/portal/sign-in")
    assert "Nobody can sign in here" in browser.page
    assert (await browser.get("/portal/sign-up")).headers["location"] == "/portal/sign-in"
    portal.sign_in_url = "/saml/login"
    await browser.get("/portal/sign-in")
    assert 'href="/saml/login"' in browser.page
    assert 'name="password"' not in browser.page


async def test_language_and_colours_are_chosen_without_a_script(alice: Browser) -> None:
    await alice.get("/portal/usage")
    assert '<html lang="en" data-theme="auto">' in alice.page
    answer = await alice.post("/portal/look", {"language": "fi"})
    assert answer.headers["location"] == "/portal/usage"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    await alice.get("/portal/usage")
    await alice.post("/portal/look", {"theme": "dark"})
    await alice.get("/portal/usage")
    assert '<html lang="fi" data-theme="dark">' in alice.page
    assert "Käyttö" in alice.page
    await alice.post("/portal/look", {"theme": "pink", "language": "xx"})
    await alice.get("/portal/usage")
    assert '<html lang="fi" data-theme="dark">' in alice.page


async def test_the_browsers_language_is_taken_until_one_is_chosen(portal: Portal) -> None:
    async with browsing(portal, accept_language="sv, fi;q=0.8, en;q=0.5") as browser:
        await browser.get("/portal/sign-up")
        assert '<html lang="fi"' in browser.page
        await browser.post("/portal/sign-up", {"login": "alice", "password": "lyhyt"})
        assert "Salasanassa on vähintään 10 merkkiä." in browser.page


HOME_PATHS = {"/portal", "/portal/keys", "/portal/overview"}


async def test_w4_no_wish_leads_elsewhere(alice: Browser) -> None:
    """Hundreds of disguises, wherever a visitor's own word says where to go on."""
    wishes = list(corpus())
    assert len(set(wishes)) > 559
    await alice.get("/portal/account")
    token = alice.hidden("/portal/account")["token"]
    for wish in wishes:
        answers = [
            await alice.client.get("/portal/sign-in", params={"next": wish}),
            await alice.post("/portal/look", {"token": token, "theme": "dark", "next": wish}),
        ]
        for answer in answers:
            assert answer.status_code == 303, wish
            place = answer.headers["location"]
            assert place in HOME_PATHS or wish.strip() in ("sign-up", "sign-in"), (wish, place)
    for wish in wishes[:: len(wishes) // 12]:
        await alice.post("/portal/sign-out", {"token": token})
        signed_in = await alice.sign_in(next=wish)
        assert signed_in.headers["location"] in HOME_PATHS, wish
        await alice.get("/portal/account")
        token = alice.hidden("/portal/account")["token"]


class LateShelf(SqliteShelf):
    """Something else happens just before a session is stored."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    @override
    async def put(self, shelf: str, id: str, value: bytes, seconds: float, **more: Any) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if shelf == "sessions" and meanwhile is not None:
            await meanwhile()
        await super().put(shelf, id, value, seconds, **more)


@pytest.mark.parametrize("by", ["an operator", "the person"])
async def test_s_ses_03_a_new_password_ends_a_sign_in_that_is_under_way(desk: Desk, by: str) -> None:
    """With the old one: all that it was looked at before, and no session was there yet to be ended."""
    shelf = LateShelf(desk.store.file, desk.clock)
    portal = Portal(desk, shelf=shelf)
    async with browsing(portal) as alice, browsing(portal) as thief:
        await alice.sign_up("alice")
        accounts = portal.portal_desk().accounts

        async def change() -> None:
            if by == "an operator":
                await accounts.set_password(ANN, "alice", None)
                return
            await alice.get("/portal/account")
            await alice.post("/portal/account/password", {"old": PASSWORD, "new": "battery staple"})

        shelf.meanwhile = change
        answer = await thief.sign_in("alice")
        assert answer.headers["location"] == "/portal/sign-in?said=over"
        assert "set-cookie" not in answer.headers
        assert (await thief.get("/portal/account")).is_redirect
        sessions = await portal.sessions.of_user("alice")
        assert len(sessions) == (0 if by == "an operator" else 1)
