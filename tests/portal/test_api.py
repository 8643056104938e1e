"""The API's reference: for everybody, also while nobody can be recognised."""

import pytest
from typing_extensions import override

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.control.desk import Desk
from tests.portal.house import Browser, Portal, browsing, plain_user

KEY_URL = 'data-key-url="/portal/playground/key"'


async def test_who_is_signed_in_tries_calls_with_a_key_of_the_page(alice: Browser) -> None:
    answer = await alice.get("/docs")
    assert answer.status_code == 200
    assert KEY_URL in alice.page
    assert 'data-model="qwen3-32b"' in alice.page
    assert "http://127.0.0.1:8080/v1" in alice.page
    assert 'aria-current="page"' in alice.page


async def test_only_administrators_are_told_of_their_session(portal: Portal, browser: Browser) -> None:
    await browser.sign_up("ann")
    await browser.get("/docs")
    assert "go with your session" in browser.page
    async with browsing(portal) as another:
        await plain_user(portal, another, "bob")
        await another.get("/docs")
    assert KEY_URL in another.page
    assert "go with your session" not in another.page


async def test_who_is_not_may_enter_a_key_or_sign_in(browser: Browser) -> None:
    answer = await browser.get("/docs")
    assert answer.status_code == 200
    assert "data-key-url" not in browser.page
    assert "data-model" not in browser.page
    assert 'href="/portal/sign-in?next=api"' in browser.page
    assert "read the OpenAPI document" in browser.page


async def test_a_sign_in_leads_back(portal: Portal, alice: Browser) -> None:
    async with browsing(portal) as browser:
        answer = await browser.sign_in("alice", next="api")
        assert answer.headers["location"] == "/docs"


@pytest.mark.parametrize("path", ["/portal/api", "/request-viewer"])
async def test_it_is_one_page_whatever_it_was_called(alice: Browser, path: str) -> None:
    answer = await alice.get(path)
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_by_another_name_of_the_gateway_it_knows_nobody(desk: Desk) -> None:
    async with browsing(Portal(desk, "https://llm.example.org")) as browser:
        await browser.sign_up("alice")
        await browser.get("/docs")
        assert KEY_URL in browser.page
        cookies = "; ".join(f"{one.name}={one.value}" for one in browser.client.cookies.jar)
        for method in ("GET", "POST"):
            headers = {"host": "10.0.0.7:8080", "cookie": cookies}
            answer = await browser.client.request(method, "/docs", headers=headers)
            assert answer.status_code == (200 if method == "GET" else 405)
            assert KEY_URL not in answer.text
            assert "csrf-token" not in answer.text


class Away(SqliteShelf):
    """A shelf that is gone after a while."""

    is_away = False

    @override
    async def get(self, kind: str, id: str) -> bytes | None:
        if self.is_away:
            raise StoreUnavailable("Redis is not available.")
        return await super().get(kind, id)


async def test_it_is_there_while_sessions_are_not(desk: Desk) -> None:
    shelf = Away(desk.store.file, desk.clock)
    async with browsing(Portal(desk, shelf=shelf)) as browser:
        await browser.sign_up("alice")
        shelf.is_away = True
        assert (await browser.get("/portal/keys")).status_code == 503
        assert (await browser.get("/docs")).status_code == 200
        assert "data-key-url" not in browser.page
        shelf.is_away = False
        await browser.get("/docs")
        assert KEY_URL in browser.page
