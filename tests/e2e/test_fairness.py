"""A full model over two workers: who asks for little hardly notices who asks for much."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import chat, data_of, post
from tests.lab.exchange import Exchange
from tests.lab.gateway import Gateway, serving
from tests.lab.oracle import books_agree
from tests.lab.quiescence import Baseline, returns_to_idle
from tests.lab.reservations import nothing_is_reserved
from tests.lab.telling import Plan, told
from tests.lab.upstream import ScriptedUpstream

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

PLACES = 8
THINKING, CHUNKS, PAUSE = 0.06, 20, 0.004  # seconds to the first token; tokens; seconds between two
PROMPT, PROMPT_WEIGHT, COMPLETION_WEIGHT = 3, 1, 2  # tokens of each prompt; as the counters weigh them
CONFIG = f"""
drain_pause: 0
models:
  - id: full
    max_in_flight: {PLACES}
    max_waiting: 300
    targets: [{{url: "${{LLM_DEFAULT_URL}}/full/v1"}}]
"""
QUIET, CROWDED, BUSY = 2.0, 3.0, 3.0  # seconds
LONG, SHORT = 40, 5  # tokens of the answers of two busy users
STREAMS = 24  # of each of them: there is always one waiting


async def thoughtful(x: Exchange) -> None:
    await asyncio.sleep(THINKING)
    await told(Plan(CHUNKS if x.question.fields.get("max_tokens") is None else LONG, PAUSE))(x)


@pytest.fixture
async def fleet(upstream: ScriptedUpstream, redis_url: str, mongo_url: str) -> AsyncIterator[Gateway]:
    upstream.script("full", thoughtful)
    environment = serving(upstream.url, "ok-1")
    async with Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, config=CONFIG) as running:
        yield running


class Stage:
    """Users that ask again as soon as they are answered. `firsts` are times to the first token by user;
    `served` is what each user has got, weighed; `gap` the most that two have ever been apart."""

    def __init__(self, fleet: Gateway) -> None:
        self._fleet = fleet
        self.firsts: dict[str, list[float]] = {}
        self.served: Counter[str] = Counter()
        self.gap = 0

    async def key(self, user: str) -> str:
        self.firsts[user] = []
        return (await self._fleet.create_key(user)).secret

    async def stream(self, user: str, key: str, **more: Any) -> None:
        question = post(CHAT, chat("full", stream=True, **more), key)
        async with await self._fleet.connect() as connection:
            while True:
                asked = time.perf_counter()
                await connection.send(question)
                assert (await connection.head(60)).status == 200
                self._got(user, PROMPT * PROMPT_WEIGHT)
                is_first = True
                while event := await connection.event(60):
                    if is_first and data_of([event]):
                        self.firsts[user].append(time.perf_counter() - asked)
                        is_first = False
                    self._got(user, COMPLETION_WEIGHT * (b'"content"' in event))

    def _got(self, user: str, weight: int) -> None:
        self.served[user] += weight
        if len(self.served) > 1:
            ordered = sorted(self.served.values())
            self.gap = max(self.gap, ordered[-1] - ordered[0])

    async def play(self, streams: Iterable[tuple[str, str, dict[str, Any]]], seconds: float) -> None:
        playing = [asyncio.ensure_future(self.stream(user, key, **more)) for user, key, more in streams]
        done, _ = await asyncio.wait(playing, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
        for task in done:
            task.result()


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


async def test_r_load_11_ten_users_hardly_notice_one_with_a_hundred_streams(
    fleet: Gateway, upstream: ScriptedUpstream, redis_url: str, figure: Callable[[str], None]
) -> None:
    stage = Stage(fleet)
    ten = {f"user-{n}": await stage.key(f"user-{n}") for n in range(10)}
    greedy = await stage.key("greedy")
    few: list[tuple[str, str, dict[str, Any]]] = [(user, key, {}) for user, key in ten.items()]
    found = []
    for count, seconds in ((0, QUIET), (100, CROWDED)):
        others = [("greedy", greedy, few[0][2])] * count
        for user in ten:
            stage.firsts[user].clear()
        await stage.play([*others, *few], seconds)
        found.append(sorted(first for user in ten for first in stage.firsts[user]))
        assert len(found[-1]) > 50
    quiet, crowded = map(p95, found)
    figure(f"p95 to the first token {quiet * 1000:.0f} ms, beside the greedy one {crowded * 1000:.0f} ms")
    assert crowded <= 2 * quiet
    assert stage.firsts["greedy"], "who asks for much gets what is left"
    await returns_to_idle(fleet, Baseline({}))  # a hang-up is noticed within a tenth of a second
    await books_agree(fleet, upstream)
    await nothing_is_reserved(redis_url)


async def test_two_users_who_are_always_busy_are_served_alike(
    fleet: Gateway, figure: Callable[[str], None]
) -> None:
    """However long their answers are; the bound is that of the paper for backlogged clients."""
    stage = Stage(fleet)
    streams: list[tuple[str, str, dict[str, Any]]] = []
    for user, length in (("long", LONG), ("short", SHORT)):
        streams += [(user, await stage.key(user), {"max_tokens": length})] * STREAMS
    await stage.play(streams, BUSY)
    bound = 2 * max(PROMPT_WEIGHT * PROMPT, COMPLETION_WEIGHT * PLACES * LONG)
    figure(f"served {dict(stage.served)}, most apart {stage.gap}, bound {bound}")
    assert min(stage.served.values()) > bound, "long enough to tell"
    assert stage.gap <= bound
