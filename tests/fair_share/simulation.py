"""Users who call a model server of so many places, through the real `MemoryPlaces`, for a while."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from llmgateway.domain.admission import Turn
from llmgateway.stores.limits.memory_places import MemoryPlaces
from tests.fair_share.virtual_time import run

BEGAN = datetime(2026, 11, 20, 9, tzinfo=UTC)
PROMPT_SPEED, COMPLETION_SPEED = 4000.0, 50.0  # tokens a second; each place has this speed for itself
TELL = 1.0  # seconds between two words on how far a call is


class Group(Struct, frozen=True, kw_only=True):
    """`users` with so many `streams` each: after an answer each stream thinks for about `pause` seconds, and
    asks again."""

    name: str
    users: int
    streams: int = 1
    pause: float = 0.0
    weight: float = 1.0


class Scene(Struct, frozen=True, kw_only=True):
    """`is_fair` False: first come, first served, as if all were one user."""

    groups: Sequence[Group]
    places: int
    seconds: float
    is_fair: bool = True
    seed: int = 1


class Seen(Struct, frozen=True):
    """By group: seconds until the first token of each call, and tokens served in each minute; tokens by
    user."""

    firsts: dict[str, list[float]]
    by_minute: dict[str, Counter[int]]
    by_user: Counter[str]

    def percentile(self, group: str, percent: float) -> float:
        ordered = sorted(self.firsts[group])
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class _LoopClock:
    def __init__(self) -> None:
        self.monotonic = asyncio.get_running_loop().time

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.monotonic())


class _Stage:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.clock = _LoopClock()
        self.places = MemoryPlaces(clock=self.clock)
        names = [group.name for group in scene.groups]
        self.seen = Seen({name: [] for name in names}, {name: Counter() for name in names}, Counter())
        self.calls = 0

    async def stream(self, group: Group, user: str, number: int) -> None:
        chance = random.Random(f"{self.scene.seed} {user} {number}")
        await asyncio.sleep(chance.expovariate(1 / group.pause) if group.pause else chance.random())
        while self.clock.monotonic() < self.scene.seconds:
            prompt, completion = chance.randint(50, 800), chance.lognormvariate(5, 0.7)
            await self.call(group, user, prompt, int(min(1000, max(10, completion))))
            if group.pause:
                await asyncio.sleep(chance.expovariate(1 / group.pause))

    async def call(self, group: Group, user: str, prompt: int, completion: int) -> None:
        self.calls += 1
        id, asked = f"c{self.calls}", self.clock.monotonic()
        counted_as = user if self.scene.is_fair else "everybody"
        turn = Turn(id=id, model="m", user=counted_as, most=self.scene.places, waiting=1_000_000,
                    weight=group.weight, prompt=prompt)  # fmt: skip
        await self.places.take(turn)
        await asyncio.sleep(prompt / PROMPT_SPEED + 1 / COMPLETION_SPEED)
        now = self.clock.monotonic()
        if now < self.scene.seconds:
            self.seen.firsts[group.name].append(now - asked)
        await self.answer(group, user, id, completion)

    async def answer(self, group: Group, user: str, id: str, completion: int) -> None:
        made = 1
        while made < completion:
            more = min(completion - made, int(TELL * COMPLETION_SPEED))
            await asyncio.sleep(more / COMPLETION_SPEED)
            made += more
            self.places.served(id, made)
            now = self.clock.monotonic()
            if now < self.scene.seconds:
                self.seen.by_minute[group.name][int(now // 60)] += more
                self.seen.by_user[user] += more
        self.places.leave(id, completion)


def play(scene: Scene) -> Seen:
    async def all_of_it() -> Seen:
        stage = _Stage(scene)
        await asyncio.gather(
            *(
                stage.stream(group, f"{group.name}{user}", number)
                for group in scene.groups
                for user in range(group.users)
                for number in range(group.streams)
            )
        )
        return stage.seen

    return run(all_of_it)
