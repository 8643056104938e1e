"""What the gateway adds under load. The client runs beside the upstream on one core, so what is compared is
the same client with the gateway in between and without."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import Request, chat, fetch, post
from tests.lab.gateway import Gateway, serving
from tests.lab.oracle import books_agree
from tests.lab.quiescence import baseline_of, returns_to_idle
from tests.lab.upstream import ScriptedUpstream

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

MODEL, THINKING = "ok-1x50ms", 0.05
RATE = 200  # calls a second
SECONDS = [2, pytest.param(60, marks=pytest.mark.soak)]
ADDED_MEDIAN, ADDED_P99 = 0.003, 0.015  # seconds
LIMIT = 60  # calls a minute
FLOOD = 50  # times the limit
OTHERS, CALLS = 10, 12


@pytest.fixture
async def gateway(upstream: ScriptedUpstream) -> AsyncIterator[Gateway]:
    config = f"drain_pause: 0\nlimits: {{default: {{requests_per_minute: {LIMIT}}}}}\n"
    async with Gateway.embedded(serving(upstream.url, MODEL, "ok-1"), config=config) as running:
        yield running


async def at_rate(url: str, question: Request, rate: int, seconds: float) -> list[tuple[int, float]]:
    """Status and time of each of so many calls a second, each begun when its time has come."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(number: int) -> tuple[int, float]:
        due = began + number / rate
        await asyncio.sleep(max(0, due - loop.time()))
        answer = await fetch(url, question)
        return answer.status, loop.time() - due

    return list(await asyncio.gather(*(one(number) for number in range(int(rate * seconds)))))


def at(took: list[float], share: float) -> float:
    return sorted(took)[int(len(took) * share)]


@pytest.mark.parametrize("seconds", SECONDS)
async def test_r_load_01_what_two_hundred_calls_a_second_cost(
    upstream: ScriptedUpstream, seconds: int, figure: Callable[[str], None]
) -> None:
    async with Gateway.embedded(serving(upstream.url, MODEL), config="drain_pause: 0\n") as gateway:
        key = (await gateway.create_key()).secret
        question = post(CHAT, chat(MODEL), key)
        await at_rate(gateway.url, question, RATE, 0.5)
        idle = await baseline_of(gateway)
        alone: list[tuple[int, float]] = []
        through: list[tuple[int, float]] = []
        for _ in range(seconds):  # in turns: the machine is as busy for the one as for the other
            alone += await at_rate(f"{upstream.url}/{MODEL}", post(CHAT, chat(MODEL)), RATE, 1)
            through += await at_rate(gateway.url, question, RATE, 1)
        assert {status for status, _ in (*alone, *through)} == {200}
        median, p99 = (
            at([took for _, took in through], share) - at([took for _, took in alone], share)
            for share in (0.5, 0.99)
        )
        figure(f"added median {median * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms, 0 errors in {len(through)}")
        assert median <= ADDED_MEDIAN
        if seconds > 10:  # a few slow ones are the machine's
            assert p99 <= ADDED_P99
        await returns_to_idle(gateway, idle, spare=RATE)


async def test_r_load_11_a_flood_beyond_its_limit_is_refused_and_others_hardly_notice(
    gateway: Gateway, upstream: ScriptedUpstream, figure: Callable[[str], None]
) -> None:
    keys = [(await gateway.create_key(f"user-{n}")).secret for n in range(OTHERS)]
    flooding = post(CHAT, chat("ok-1"), (await gateway.create_key("flood")).secret)

    async def other(key: str, pause: float) -> list[float]:
        took = []
        async with await gateway.connect() as connection:
            for _ in range(CALLS):
                await asyncio.sleep(pause)
                began = time.perf_counter()
                assert (await connection.ask(post(CHAT, chat("ok-1"), key))).status == 200
                took.append(time.perf_counter() - began)
        return took

    async def all_others() -> list[float]:
        took = await asyncio.gather(*(other(key, 0.1 + n / 100) for n, key in enumerate(keys)))
        return [one for each in took for one in each]

    quiet = at(await all_others(), 0.99)
    flood = asyncio.ensure_future(at_rate(gateway.url, flooding, LIMIT * FLOOD // 60, 2.5))
    crowded = at(await all_others(), 0.99)
    statuses = [status for status, _ in await flood]
    figure(f"others' p99 {quiet * 1000:.1f} ms, beside the flood {crowded * 1000:.1f} ms")
    assert statuses.count(200) == LIMIT
    assert set(statuses) == {200, 429}
    assert crowded <= max(2 * quiet, 0.01)
    await books_agree(gateway, upstream)
