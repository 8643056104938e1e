"""Signing in and out with an identity provider, over several workers with one shelf on Redis."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from llmgateway.stores.redis import open_redis
from llmgateway.stores.redis_shelf import RedisShelf
from tests.control.desk import Desk
from tests.lab.identity import TestIdp
from tests.portal.federated_house import THEIR_NEXT, THEIRS, UNI, FederatedPortal, Person, Places, why_in
from tests.portal.house import Browser, browsing

pytestmark = pytest.mark.service


class Fleet:
    """Two workers, each with a connection of its own."""

    def __init__(self, one: FederatedPortal, other: FederatedPortal, idp: TestIdp, places: Places) -> None:
        self.one, self.other = one, other
        self.idp, self.places = idp, places

    async def look(self) -> None:
        self.places.documents[UNI.metadata] = self.idp.metadata()
        for portal in (self.one, self.other):
            await portal.idps.look()


@pytest.fixture
async def fleet(desk: Desk, redis_url: str) -> AsyncIterator[Fleet]:
    idp, places = TestIdp(THEIRS), Places()
    async with AsyncExitStack() as stack:
        shelves = [RedisShelf(await stack.enter_async_context(open_redis(redis_url, 1))) for _ in range(2)]
        workers = [FederatedPortal(desk, places, shelf) for shelf in shelves]
        made = Fleet(workers[0], workers[1], idp, places)
        await made.look()
        yield made


@pytest.fixture
async def alice(fleet: Fleet) -> AsyncIterator[Person]:
    """Her browser reaches the first worker."""
    async with browsing(fleet.one) as browser:
        yield Person(browser, fleet.one, fleet.idp)


@pytest.fixture
async def elsewhere(fleet: Fleet, alice: Person) -> AsyncIterator[Browser]:
    """The same browser, when a balancer sends it to the other worker."""
    async with browsing(fleet.other) as browser:
        browser.client.cookies = alice.browser.client.cookies
        yield browser


async def test_each_step_may_meet_another_worker(alice: Person, elsewhere: Browser) -> None:
    request = await alice.leaves()
    answer = await alice.brings(alice.says(request), elsewhere)
    assert (await alice.arrives(answer)).headers["location"] == "/portal"
    assert await alice.is_in()
    elsewhere.client.cookies = alice.browser.client.cookies
    assert await alice.is_in(elsewhere)


async def test_s_saml_13_a_response_is_used_once_by_all_workers(
    fleet: Fleet, alice: Person, elsewhere: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    document = alice.says(await alice.leaves())
    await alice.arrives(await alice.brings(document))
    for browser in (alice.browser, elsewhere):
        assert (await alice.brings(document, browser)).status_code == 401
        assert why_in(caplog.records) == "a request that is not known, or not any more"
    restarted = FederatedPortal(fleet.one.desk, fleet.places, fleet.other.shelf)
    await restarted.idps.look()
    async with browsing(restarted) as browser:
        assert (await alice.brings(document, browser)).status_code == 401


async def test_s_saml_13_one_assertion_in_answers_to_two_requests(
    alice: Person, elsewhere: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """The replay cache alone: both requests are open, the assertion's id is the same."""
    first, second = await alice.leaves(), await alice.leaves()
    assert (await alice.brings(alice.says(first))).status_code == 303
    alice.idp._number -= 1
    assert (await alice.brings(alice.says(second), elsewhere)).status_code == 401
    assert why_in(caplog.records) == "an assertion that was used before"


async def test_s_saml_13_many_at_the_same_moment_open_one_way_in(alice: Person, elsewhere: Browser) -> None:
    document = alice.says(await alice.leaves())
    answers = await asyncio.gather(
        *(post_only(browser, document) for _ in range(8) for browser in (alice.browser, elsewhere))
    )
    assert sorted(answers) == [303] + [401] * 15


async def test_s_saml_13_the_word_of_the_second_step_counts_once(alice: Person, elsewhere: Browser) -> None:
    answer = await alice.brings(alice.says(await alice.leaves()))
    elsewhere.client.cookies = alice.browser.client.cookies
    assert (await alice.arrives(answer)).status_code == 303
    assert (await alice.arrives(answer, elsewhere)).status_code == 403


async def test_s_saml_13_no_shelf_no_way_in(alice: Person, fleet: Fleet) -> None:
    """Refused, not waved through, when nobody can tell whether it was used."""
    document = alice.says(await alice.leaves())
    async with open_redis("redis://127.0.0.1:1/0", 0.2) as nobody:
        cut_off = FederatedPortal(fleet.one.desk, fleet.places, RedisShelf(nobody))
        await cut_off.idps.look()
        async with browsing(cut_off) as browser:
            answer = await alice.brings(document, browser)
            assert answer.status_code == 503
            assert "lgw" not in browser.client.cookies


async def test_s_saml_21_certificates_roll_over_under_a_load_of_sign_ins(fleet: Fleet) -> None:
    """Announced, signed with, the old one taken away: nobody is refused while workers learn of it one after
    the other."""
    steps = [
        ([THEIRS, THEIR_NEXT], THEIRS), ([THEIRS, THEIR_NEXT], THEIR_NEXT), ([THEIR_NEXT], THEIR_NEXT),
    ]  # fmt: skip
    came = 0
    for announced, signing in steps:
        fleet.idp.pairs = announced
        fleet.places.documents[UNI.metadata] = fleet.idp.metadata()
        for late in (fleet.one, fleet.other):
            if announced[0] is THEIRS and signing is THEIRS:
                await late.idps.look()
            came += sum(await asyncio.gather(*(sign_in(fleet, number, signing) for number in range(12))))
            await late.idps.look()
    assert came == 3 * 2 * 12


async def test_s_saml_21_a_certificate_that_nobody_announced_is_looked_for(fleet: Fleet) -> None:
    fleet.idp.pairs = [THEIR_NEXT]
    fleet.places.documents[UNI.metadata] = fleet.idp.metadata()
    assert not await sign_in(fleet, 0, THEIR_NEXT)  # looked a moment ago, not again for everybody
    fleet.one.desk.clock.pass_seconds(31)
    assert await sign_in(fleet, 0, THEIR_NEXT)


async def test_a_sign_out_at_the_provider_ends_the_sessions_of_all_workers(
    fleet: Fleet, alice: Person, elsewhere: Browser
) -> None:
    await alice.signs_in()
    query = alice.idp.sign_out(f"{fleet.one.public_url}/saml/sls", "alice")
    async with browsing(fleet.other) as provider:
        answer = await provider.get(f"/saml/sls?{query}")
    assert answer.headers["location"].startswith("https://idp.example.org/slo?SAMLResponse=")
    assert not await alice.is_in()


async def post_only(browser: Browser, document: bytes) -> int:
    fields = {"SAMLResponse": base64.b64encode(document).decode()}
    return (await browser.client.post("/saml/acs", data=fields)).status_code


async def sign_in(fleet: Fleet, number: int, signing: object) -> bool:
    portal = (fleet.one, fleet.other)[number % 2]
    async with browsing(portal) as browser:
        person = Person(browser, portal, fleet.idp)
        document = person.says(await person.leaves(), who=f"p{number}@example.org", pair=signing)
        answer = await person.brings(document)
        if answer.status_code != 303:
            return False
        await person.arrives(answer)
        return await person.is_in()
