"""The playground's key: the person's own, for the page's script alone, and gone with the session."""

import pytest

from llmgateway.domain.errors import NotAuthenticated
from llmgateway.portal.sessions import CSRF_HEADER
from tests.portal.house import Browser, Portal

HEADERS = {"sec-fetch-site": "same-origin"}


async def key_of(browser: Browser) -> str:
    await browser.get("/portal/account")
    token = browser.hidden("/portal/account")["token"]
    answer = await browser.client.post("/portal/playground/key", headers={**HEADERS, CSRF_HEADER: token})
    assert answer.headers["cache-control"] == "no-store"
    key: str = answer.json()["key"]
    return key


async def test_the_key_is_its_persons_and_shown_in_no_list(alice: Browser, portal: Portal) -> None:
    key = await key_of(alice)
    assert (await portal.desk.call(key)).user == "alice"
    await alice.get("/portal/keys")
    assert "You have no key yet" in alice.page
    id = key.split("_")[1]
    assert (await alice.get(f"/portal/keys/{id}")).status_code == 404
    await alice.get("/portal/playground")
    assert key not in alice.page


async def test_one_key_is_renewed_and_ends_with_the_session(alice: Browser, portal: Portal) -> None:
    first, second = await key_of(alice), await key_of(alice)
    assert first.split("_")[1] == second.split("_")[1]
    for key in (first, second):  # two windows
        assert (await portal.desk.call(key)).user == "alice"
    await alice.get("/portal")
    await alice.post("/portal/sign-out")
    for key in (first, second):
        with pytest.raises(NotAuthenticated):
            await portal.desk.call(key)
    await alice.get("/portal/sign-in")
    await alice.sign_in()
    third = await key_of(alice)
    assert (await portal.desk.call(third)).user == "alice"
    portal.desk.clock.pass_seconds(3601)
    with pytest.raises(NotAuthenticated):
        await portal.desk.call(third)
    assert (await portal.desk.call(await key_of(alice))).user == "alice"


async def test_models_that_answer_come_first_and_one_may_be_chosen(alice: Browser) -> None:
    await alice.get("/portal/playground?model=org/embed")
    assert "<option selected>org/embed</option>" in alice.page
    assert "<option>qwen3-32b</option>" in alice.page
    assert "Compare two models" in alice.page
