"""Two gateways of two workers with limits of a minute, and a Redis that goes, hangs, or loses all."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import chat, fetch, post
from tests.lab.gateway import Gateway, serving
from tests.lab.servers import Valkey
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

# A worker whose calls to Redis time out on a busy machine is one that is cut off while others are not.
pytestmark = [pytest.mark.e2e, pytest.mark.alone]

LIMIT = 30
MODEL = "ok-1"
HOWS = ("killed", "frozen", "restarted empty")


async def are_well(fleet: Sequence[Gateway]) -> bool:
    """All workers: whoever is asked answers for itself."""
    health = [(await gateway.get("/health")).json for gateway in fleet for _ in range(6)]
    return all(one["degraded"] == [] for one in health)


class Person:
    """Asks both gateways over new connections, so any worker may be the one that answers."""

    def __init__(self, fleet: Sequence[Gateway], key: str) -> None:
        self._fleet = fleet
        self._question = post(CHAT, chat(MODEL), key)
        self.served = 0

    async def asks(self, count: int, of: Sequence[int] = (0, 1)) -> None:
        urls = [self._fleet[of[n % len(of)]].url for n in range(count)]
        answers = await asyncio.gather(*(fetch(url, self._question) for url in urls))
        assert {answer.status for answer in answers} <= {200, 429}
        self.served += sum(answer.status == 200 for answer in answers)


async def test_r_fault_20_21_23_two_gateways_give_no_more_than_the_limit(
    upstream: ScriptedUpstream, own_valkey: Valkey, mongo_url: str
) -> None:
    """Each time to somebody who has asked one gateway alone, somebody who has had all, and a newcomer."""
    environment, config = serving(upstream.url, MODEL), "drain_pause: 0\nstores: {redis_timeout: 0.5}\n"
    async with AsyncExitStack() as stack:
        fleet = []
        for _ in range(2):
            gateway = Gateway.fleet(
                environment, redis_url=own_valkey.url(), mongo_url=mongo_url, config=config
            )
            fleet.append(await stack.enter_async_context(gateway))
        for how in HOWS:
            await eventually_answers(lambda: are_well(fleet), "all is well", 20)
            people = []
            for n in range(3):
                limits = {"requests_per_minute": LIMIT}
                made = await fleet[0].create_key(f"{how} {n}", limits=limits)
                people.append(Person(fleet, made.secret))
            one_sided, full, newcomer = people
            await one_sided.asks(LIMIT // 2, of=(0,))
            await full.asks(2 * LIMIT)
            away, back = {
                "killed": (own_valkey.kill, own_valkey.start), "frozen": (own_valkey.freeze, own_valkey.thaw),
                "restarted empty": (own_valkey.restart_empty, lambda: None),
            }[how]  # fmt: skip
            away()
            for _ in range(2):
                await asyncio.gather(*(person.asks(2 * LIMIT) for person in people))
            assert full.served == LIMIT, how
            assert one_sided.served <= LIMIT, how
            assert 0 < newcomer.served <= LIMIT, how
            back()
            await asyncio.gather(*(person.asks(2 * LIMIT) for person in people))
            await eventually_answers(lambda: are_well(fleet), "all is well", 20)
            await asyncio.gather(*(person.asks(2 * LIMIT) for person in people))
            assert max(person.served for person in people) <= LIMIT, how
            assert min(person.served for person in people) > LIMIT // 2, how
