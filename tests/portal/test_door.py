"""The way in: strangers, forms of other sites, foreign names, errors as pages, and stores that are away."""

from collections.abc import Sequence

import pytest

from llmgateway.control.people import UserChanges
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.portal.door import Place
from llmgateway.portal.routes import PLACES
from llmgateway.portal.sessions import CSRF_HEADER
from llmgateway.portal.visit import Answer, Desk, Visit
from tests.control.desk import ANN
from tests.portal.house import HOME, Browser, Portal, browsing

SAME = {"sec-fetch-site": "same-origin"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
CLOSED = [place for place in PLACES if place.needs != "nobody"]
POSTS = [place for place in PLACES if place.post and not place.is_from_elsewhere]


def some(path: str) -> str:
    return path.replace("{id}", "abc").replace("{id:path}", "abc").replace("{scope}", "user")


@pytest.mark.parametrize("place", CLOSED, ids=lambda place: place.name)
async def test_strangers_are_sent_to_the_sign_in(browser: Browser, place: Place) -> None:
    for method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
        answer = await browser.client.request(method, some(place.path), headers=SAME)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/portal/sign-in")


CROSS_SITE: Sequence[dict[str, str]] = (
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:3000"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:3000"},
    {},
)


@pytest.mark.parametrize("place", POSTS, ids=lambda place: place.name)
async def test_s_csrf_01_forms_of_other_sites_do_nothing(
    alice: Browser, place: Place, portal: Portal
) -> None:
    """Even with the right token, which they cannot know."""
    await alice.get("/portal/account")
    token = alice.hidden("/portal/account")["token"]
    before = await portal.desk.store.find("audit", {}, limit=1, newest_first=True)
    for headers in CROSS_SITE:
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"):
            answer = await alice.client.post(
                some(place.path), content=f"token={token}&name=x", headers={**headers, "content-type": kind}
            )
            assert answer.status_code == 403
    assert await portal.desk.store.find("audit", {}, limit=1, newest_first=True) == before
    assert (await alice.get("/portal")).status_code == 200


@pytest.mark.parametrize("place", POSTS, ids=lambda place: place.name)
async def test_s_csrf_01_our_own_forms_need_the_sessions_token(
    alice: Browser, portal: Portal, place: Place
) -> None:
    await portal.desk.control.people.change(ANN, "alice", UserChanges(roles=["user", "admin"]))
    for content in ("", "token=", "token=guess"):
        answer = await alice.client.post(some(place.path), content=content, headers={**SAME, **FORM})
        assert answer.status_code == 403
    answer = await alice.client.post(some(place.path), headers={**SAME, CSRF_HEADER: "guess"})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")
    assert (await alice.get("/portal")).status_code == 200


async def test_another_sites_token_is_not_this_sessions(alice: Browser, portal: Portal) -> None:
    async with browsing(portal) as bob:
        await bob.sign_up("bob")
        await bob.get("/portal/account")
        token = bob.hidden("/portal/account")["token"]
    assert (await alice.post("/portal/account", {"name": "x", "token": token})).status_code == 403


async def test_s_cors_01_no_origin_is_told_that_it_may_read(alice: Browser) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:3000", HOME, f"{HOME}.evil.example"):
        answer = await alice.get("/portal", origin=origin)
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_foreign_name_that_leads_here_shows_nothing(alice: Browser) -> None:
    answer = await alice.get("/portal", host="rebound.example")
    assert answer.status_code == 421
    assert "This gateway is known by another address: http://127.0.0.1:8080" in alice.page
    assert "alice" not in alice.page
    answer = await alice.client.post(
        "/portal/sign-up", data={"login": "x"},
        headers={"host": "rebound.example", "origin": "http://rebound.example", **SAME},
    )  # fmt: skip
    assert answer.status_code == 421


@pytest.mark.parametrize(
    "path", ["/portal/nothing", "/portal/keys/x/y", "/portal/models/none", "/portal/keys/abc"]
)
async def test_what_is_not_there(alice: Browser, path: str) -> None:
    answer = await alice.get(path)
    assert answer.status_code == 404
    assert "There is nothing here" in alice.page
    assert answer.headers["cache-control"] == "no-store"


async def test_methods_that_a_place_does_not_know(alice: Browser) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert (await alice.client.request(method, "/portal/usage", headers=SAME)).status_code == 405
    assert (await alice.client.head("/portal/usage")).status_code == 200
    await alice.get("/portal")
    assert (await alice.post("/portal/usage", {})).status_code == 405


async def test_bodies_that_are_no_forms(alice: Browser) -> None:
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        answer = await alice.client.post(
            "/portal/account", content="{}", headers={**SAME, "content-type": kind}
        )
        assert answer.status_code == 415
    large = {**SAME, **FORM}
    assert (
        await alice.client.post("/portal/account", content="a=" + "b" * 70_000, headers=large)
    ).status_code == 413


async def test_places_of_operators_are_not_there_for_others(alice: Browser, portal: Portal) -> None:
    async def show(desk: Desk, visit: Visit) -> Answer:
        raise StoreUnavailable("Redis is not available.", retry_after=1)

    portal.open_up(Place(name="secret", path="/portal/secret", get=show, needs="admin"))
    async with browsing(portal) as browser:
        await browser.get("/portal/sign-in")
        await browser.sign_in()
        assert (await browser.get("/portal/secret")).status_code == 404
        await portal.desk.control.people.change(ANN, "alice", UserChanges(roles=["user", "admin"]))
        answer = await browser.get("/portal/secret")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "This does not work right now" in answer.text


async def test_a_page_that_fails_says_so_and_no_more(alice: Browser, portal: Portal) -> None:
    async def show(desk: Desk, visit: Visit) -> Answer:
        raise ZeroDivisionError("secret inside")

    portal.open_up(Place(name="broken", path="/portal/broken", get=show, needs="nobody"))
    async with browsing(portal) as browser:
        answer = await browser.get("/portal/broken")
    assert answer.status_code == 500
    assert "operators can find out why" in answer.text
    assert answer.headers["x-request-id"] in answer.text
    assert "secret inside" not in answer.text
