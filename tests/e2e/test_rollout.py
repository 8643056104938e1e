"""Gateways that are replaced one after the other while people work, behind a load balancer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.balancer import Haproxy
from tests.lab.client import chat, fetch, post
from tests.lab.gateway import Gateway, serving
from tests.lab.oracle import books_agree, outcomes
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually, eventually_answers

pytestmark = pytest.mark.e2e

PLAIN, SHORT, LONG = "ok-3", "ok-20x20ms", "ok-100x20ms"
ASKING = {PLAIN: 4, SHORT: 4, LONG: 3}  # people at each
PAUSE = 1.0  # seconds that the balancer has to notice
ROUNDS = [2, pytest.param(20, marks=pytest.mark.soak)]


@asynccontextmanager
async def work(url: str, key: str) -> AsyncIterator[Counter[str]]:
    """People who ask all the time; how their calls ended, by what they saw."""
    seen: Counter[str] = Counter()
    is_over = asyncio.Event()

    async def one(model: str) -> None:
        while not is_over.is_set():
            try:
                answer = await fetch(url, post(CHAT, chat(model, stream=model != PLAIN), key))
            except (OSError, EOFError) as error:
                seen[f"failed: {type(error).__name__}"] += 1
                continue
            is_whole = model == PLAIN or answer.body.endswith(b"data: [DONE]\n\n")
            if answer.status == 200:
                seen["whole" if is_whole else "cut"] += 1
            else:
                seen[f"{answer.status}: {answer.body[-200:]!r}"] += 1

    people = [asyncio.ensure_future(one(model)) for model, count in ASKING.items() for _ in range(count)]
    yield seen
    is_over.set()
    await asyncio.gather(*people)


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_r_fault_48_gateways_are_replaced_under_load_and_nobody_notices(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str, rounds: int, figure: Callable[[str], None]
) -> None:
    environment = serving(upstream.url, PLAIN, SHORT, LONG)
    config = f"drain_pause: {PAUSE}\ndrain: 30\n"
    first, second = (
        Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, config=config) for _ in range(2)
    )
    async with first, second:
        with Haproxy(first.port, second.port) as balancer:
            key = (await first.create_key()).secret

            async def sees_both() -> bool:
                return await balancer.up() == 2

            await eventually_answers(sees_both, "the balancer has seen both")
            async with work(balancer.url, key) as seen:
                for number in range(rounds):
                    replaced = (first, second)[number % 2]
                    assert await replaced.stop(40) == 0, replaced.output()
                    await replaced.start()
                    await eventually_answers(sees_both, "the balancer has seen it, too", 10)
                    await goes_on(seen)
            assert set(seen) == {"whole"}, seen
            records = await books_agree(first, upstream)
    figure(f"{rounds} replacements: {seen['whole']} calls, 0 failed, 0 cut, {len(records)} in the ledger")
    assert set(outcomes(records)) == {"completed"}


async def goes_on(seen: Counter[str]) -> None:
    before = seen.total()
    await eventually(lambda: seen.total() > before + 20, "people go on", 10)
