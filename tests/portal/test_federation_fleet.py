"""Signing in over SAML with several workers whose one shelf is a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from llmgateway.domain.ports import Shelf
from llmgateway.domain.saml import KeyPair
from llmgateway.stores.redis import open_redis
from llmgateway.stores.redis_shelf import RedisShelf
from tests.control.desk import Desk
from tests.portal.house import HOME, Browser, browsing
from tests.portal.test_federation import THEIR_NEXT, THEIRS, Organisation, Worker, bring, leave, sign_in

pytestmark = pytest.mark.service
NOBODY_LISTENS = "redis://127.0.0.1:1/0"


class Fleet:
    """Two workers, each with a connection of its own, and browsers of one person at both."""

    def __init__(self, workers: list[Worker], browsers: list[Browser]) -> None:
        self.one, self.other = workers
        self.at_one, self.at_other = browsers
        self.organisation = self.one.organisation

    async def answered(self) -> bytes:
        """A good response to somebody who left at the first worker; the other knows the same browser."""
        request = await leave(self.at_one)
        self.at_other.client.cookies = self.at_one.client.cookies
        return self.organisation.idp.response(self.one.sp, request)


async def opened(desk: Desk, organisation: Organisation, shelf: Shelf) -> Worker:
    worker = Worker(desk, organisation, shelf)
    await worker.idps.look()
    return worker


@pytest.fixture
async def fleet(desk: Desk, redis_url: str) -> AsyncIterator[Fleet]:
    desk.clock.at = datetime.now(UTC)
    organisation = Organisation()
    async with AsyncExitStack() as stack:
        shelves = [RedisShelf(await stack.enter_async_context(open_redis(redis_url, 5))) for _ in range(2)]
        workers = [await opened(desk, organisation, shelf) for shelf in shelves]
        browsers = [await stack.enter_async_context(browsing(worker)) for worker in workers]
        yield Fleet(workers, browsers)


async def test_each_step_may_meet_another_worker(fleet: Fleet) -> None:
    answer = await bring(fleet.at_other, await fleet.answered())
    assert (await fleet.at_one.get(answer.headers["location"])).headers["location"] == "/portal"
    fleet.at_other.client.cookies = fleet.at_one.client.cookies
    assert (await fleet.at_other.get("/portal")).status_code == 200


async def test_s_saml_13_of_many_at_the_same_moment_one_is_believed(fleet: Fleet) -> None:
    document = await fleet.answered()
    browsers = [fleet.at_one, fleet.at_other] * 8
    answers = await asyncio.gather(*(bring(browser, document) for browser in browsers))
    assert sorted(answer.status_code for answer in answers) == [303] + [401] * 15


async def test_s_saml_13_the_same_assertion_at_another_worker(fleet: Fleet) -> None:
    """Both requests are open: what refuses is that its id was used."""
    first, second = await leave(fleet.at_one), await leave(fleet.at_one)
    idp = fleet.organisation.idp
    assert (await bring(fleet.at_one, idp.response(fleet.one.sp, first))).status_code == 303
    idp._number -= 1
    assert (await bring(fleet.at_other, idp.response(fleet.other.sp, second))).status_code == 401


async def test_s_saml_13_a_worker_that_starts_again_remembers(fleet: Fleet) -> None:
    document = await fleet.answered()
    assert (await bring(fleet.at_one, document)).status_code == 303
    again = await opened(fleet.one.desk, fleet.organisation, fleet.other.shelf)
    async with browsing(again) as browser:
        assert (await bring(browser, document)).status_code == 401


async def test_s_saml_13_the_second_step_is_made_once_by_all(fleet: Fleet) -> None:
    answer = await bring(fleet.at_one, await fleet.answered())
    assert (await fleet.at_one.get(answer.headers["location"])).status_code == 303
    assert (await fleet.at_other.get(answer.headers["location"])).status_code == 403


async def test_s_saml_13_without_a_shelf_nobody_comes_in(fleet: Fleet) -> None:
    """Refused, not let through, when nobody can tell whether it was used."""
    document = await fleet.answered()
    async with open_redis(NOBODY_LISTENS, 0.2) as away:
        cut_off = await opened(fleet.one.desk, fleet.organisation, RedisShelf(away))
        async with browsing(cut_off) as browser:
            answer = await bring(browser, document)
    assert (answer.status_code, "location" in answer.headers) == (503, False)
    assert fleet.organisation.welcomed == []


async def test_s_saml_21_certificates_roll_over_under_a_load_of_sign_ins(fleet: Fleet) -> None:
    """Workers learn of each step one after the other, and everybody comes in at both, all the time."""
    steps = [([THEIRS, THEIR_NEXT], THEIRS), ([THEIRS, THEIR_NEXT], THEIR_NEXT), ([THEIR_NEXT], THEIR_NEXT)]
    for announced, signs in steps:
        fleet.organisation.idp.pairs = announced
        for late in (fleet.one, fleet.other):
            if signs is not THEIRS:  # what is announced is only used when everybody knows
                await crowd(fleet, signs)
            await late.idps.look()
            await crowd(fleet, signs)
    assert len(fleet.organisation.welcomed) == 10 * 12


async def test_a_sign_out_at_the_provider_ends_sessions_of_every_worker(fleet: Fleet) -> None:
    await sign_in(fleet.at_one, fleet.one)
    assert (await fleet.at_one.get("/portal")).status_code == 200
    query = fleet.organisation.idp.sign_out(f"{HOME}/saml/sls", "alice")
    async with browsing(fleet.other) as provider:
        answer = await provider.get(f"/saml/sls?{query}")
    assert answer.headers["location"].startswith("https://idp.example.org/slo?SAMLResponse=")
    assert (await fleet.at_one.get("/portal")).status_code == 303


async def crowd(fleet: Fleet, signs: KeyPair) -> None:
    """Twelve people at the same time."""

    async def come(worker: Worker) -> None:
        async with browsing(worker) as browser:
            assert (await sign_in(browser, worker, pair=signs)).headers["location"] == "/portal"

    await asyncio.gather(*(come(worker) for worker in (fleet.one, fleet.other) for _ in range(6)))
