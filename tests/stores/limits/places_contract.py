"""What everyone who gives places must do; each test module runs it against one.

A subclass gives the fixture `fleet`: one or more workers that share the places.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Self

import pytest

from llmgateway.domain.admission import Places, Turn
from llmgateway.domain.errors import Overloaded
from tests.lab.waiting import eventually

PATIENCE = 5.0


def turn(id: str, user: str = "alice", *, most: int = 1, waiting: int = 100, model: str = "m",
         weight: float = 1.0, prompt: int = 1) -> Turn:  # fmt: skip
    return Turn(id=id, model=model, user=user, most=most, waiting=waiting, weight=weight, prompt=prompt)


class Crowd:
    """Callers, spread over the workers of a fleet; `order` is the order in which they got their places."""

    def __init__(self, fleet: Sequence[Places]) -> None:
        self.fleet = fleet
        self.order: list[str] = []
        self.inside: set[str] = set()
        self.most_inside = 0
        self.refused: dict[str, Overloaded] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    def places_of(self, id: str) -> Places:
        return self.fleet[sum(id.encode()) % len(self.fleet)]

    async def come(self, asked: Turn) -> None:
        """Asks, and returns when the call has its place or is in the queue."""
        self.tasks[asked.id] = asyncio.ensure_future(self._take(asked))
        await asyncio.sleep(0)
        await self.settle(self.places_of(asked.id))

    async def settle(self, places: Places) -> None:
        """What was said before to the same worker has been heard when this comes back."""
        async with asyncio.timeout(PATIENCE):
            await places.take(turn("settle", most=1000, model="of another model"))
        places.leave("settle", 0)
        await asyncio.sleep(0)

    async def _take(self, asked: Turn) -> None:
        try:
            await self.places_of(asked.id).take(asked)
        except Overloaded as refusal:
            self.refused[asked.id] = refusal
            return
        self.order.append(asked.id)
        self.inside.add(asked.id)
        self.most_inside = max(self.most_inside, len(self.inside))

    async def leave(self, id: str, tokens: int = 0) -> None:
        self.go(id, tokens)
        await self.settle(self.places_of(id))

    def go(self, id: str, tokens: int = 0) -> None:
        self.inside.discard(id)
        self.places_of(id).leave(id, tokens)

    async def give_up(self, id: str) -> None:
        self.tasks[id].cancel()
        await asyncio.gather(self.tasks[id], return_exceptions=True)

    async def next_in(self, so_far: int) -> str:
        await eventually(lambda: len(self.order) > so_far, "the next is in")
        return self.order[so_far]

    async def drain(self, tokens: int = 0) -> list[str]:
        """Everybody leaves in the order of coming; the order in which the others come in."""
        came: list[str] = []
        while self.inside:
            first = next(id for id in self.order if id in self.inside)
            so_far = len(self.order)
            is_last = all(task.done() for task in self.tasks.values())
            self.go(first, tokens)
            if not is_last:
                came.append(await self.next_in(so_far))
        return came


async def is_free(places: Places, most: int, *, model: str = "m") -> None:
    """All places, and no more than these: takes them, and gives them back."""
    ids = [f"free-{n}" for n in range(most)]
    async with asyncio.timeout(PATIENCE):
        for id in ids:
            await places.take(turn(id, "nobody", most=most, model=model))
    extra = asyncio.ensure_future(places.take(turn("free-extra", "nobody", most=most, model=model)))
    await eventually(lambda: places.queue(model).waiting == 1, "one more waits")
    assert not extra.done()
    extra.cancel()
    await asyncio.gather(extra, return_exceptions=True)
    for id in ids:
        places.leave(id, 0)


class PlacesContract:
    async def test_free_places_are_given_at_once(self, fleet: Sequence[Places]) -> None:
        for n in range(8):
            await fleet[n % len(fleet)].take(turn(f"c{n}", most=8))
        for n in range(8):
            fleet[n % len(fleet)].leave(f"c{n}", 5)
        await is_free(fleet[0], 8)

    async def test_who_comes_to_a_full_model_waits_for_a_place(self, fleet: Sequence[Places]) -> None:
        async with Crowd(fleet) as crowd:
            for id in ("a", "b", "c"):
                await crowd.come(turn(id, most=2))
            assert crowd.order == ["a", "b"]
            await crowd.leave("a")
            assert await crowd.next_in(2) == "c"

    async def test_a_model_that_gets_more_or_fewer_places(self, fleet: Sequence[Places]) -> None:
        """Who waits does not wait for the next call, nor for those who had heard of another number."""

        def resize(most: int) -> None:
            for places in fleet:
                places.resize({"m": most, "nobody asks for this": 7})

        async with Crowd(fleet) as crowd:
            ids = [f"c{n}" for n in range(8)]
            for id in ids:
                await crowd.come(turn(id, most=1))
            assert crowd.order == ids[:1]
            resize(5)
            await eventually(lambda: crowd.inside == set(ids[:5]), "four more are in")
            resize(2)
            for places in fleet:
                await crowd.settle(places)
            for id in ids[:3]:
                await crowd.leave(id)
            assert crowd.inside == {"c3", "c4"}, "two are enough"
            await crowd.leave("c3")
            assert await crowd.next_in(5) == "c5"

    async def test_the_calls_of_a_user_come_in_their_order(self, fleet: Sequence[Places]) -> None:
        async with Crowd(fleet) as crowd:
            ids = [f"c{n}" for n in range(12)]
            for id in ids:
                await crowd.come(turn(id))
            assert await crowd.drain() == ids[1:]

    async def test_who_was_served_least_is_next(self, fleet: Sequence[Places]) -> None:
        async with Crowd(fleet) as crowd:
            for id, user in (("a1", "alice"), ("a2", "alice"), ("a3", "alice"), ("b1", "bob"), ("b2", "bob")):
                await crowd.come(turn(id, user))
            assert await crowd.drain(tokens=10) == ["b1", "a2", "b2", "a3"]

    async def test_tokens_count_while_they_are_served(self, fleet: Sequence[Places]) -> None:
        """Alice's two calls run and are served much; Bob, who asks after Carol, was served more than she."""
        async with Crowd(fleet) as crowd:
            for id, user in (("a1", "alice"), ("b1", "bob"), ("c1", "carol"), ("a2", "alice"), ("b2", "bob"),
                             ("c2", "carol")):  # fmt: skip
                await crowd.come(turn(id, user, most=3))
            for id, tokens in (("a1", 500), ("b1", 100), ("c1", 10), ("b1", 300), ("a1", 400)):
                crowd.places_of(id).served(id, tokens)
                await crowd.settle(crowd.places_of(id))
            await crowd.leave("b1", 300)
            assert await crowd.next_in(3) == "c2"
            await crowd.leave("c1", 10)
            assert await crowd.next_in(4) == "b2"
            await crowd.leave("c2")
            assert await crowd.next_in(5) == "a2"

    async def test_staying_away_saves_nothing_up(self, fleet: Sequence[Places]) -> None:
        """Bob was away while Alice was served thousands of tokens: they take turns, he is not owed them."""
        async with Crowd(fleet) as crowd:
            await crowd.come(turn("b0", "bob"))
            await crowd.leave("b0", 10)
            for n in range(3):
                await crowd.come(turn(f"a{n}"))
                await crowd.leave(f"a{n}", 5000)
            await crowd.come(turn("x", "xaver"))
            for id, user in (("a3", "alice"), ("a4", "alice"), ("b1", "bob"), ("b2", "bob"), ("b3", "bob")):
                await crowd.come(turn(id, user))
            assert await crowd.drain(tokens=10) == ["a3", "b1", "a4", "b2", "b3"]

    async def test_weights_are_shares(self, fleet: Sequence[Places]) -> None:
        """Bob's weight is twice Alice's: of thirty calls that are served alike, twenty are his."""
        async with Crowd(fleet) as crowd:
            for n in range(31):
                await crowd.come(turn(f"a{n}", "alice"))
                await crowd.come(turn(f"b{n}", "bob", weight=2.0))
            came = (await crowd.drain(tokens=50))[:30]
            assert Counter(id[0] for id in came) == {"a": 10, "b": 20}

    async def test_a_full_queue_refuses_and_says_why(self, fleet: Sequence[Places]) -> None:
        async with Crowd(fleet) as crowd:
            for id in ("c0", "c1", "c2"):
                await crowd.come(turn(id, waiting=2))
            with pytest.raises(Overloaded, match="its queue is full: 2 calls wait") as refusal:
                await fleet[0].take(turn("c3", waiting=2))
            assert refusal.value.retry_after == 1
            await crowd.leave("c0", 10)
            await crowd.next_in(1)
            await crowd.come(turn("c4", waiting=2))
            with pytest.raises(Overloaded, match=r"2 calls wait, .* for about \d+ s more") as again:
                await fleet[0].take(turn("c5", waiting=2))
            assert again.value.retry_after is not None
            assert 1 <= again.value.retry_after <= 60
            assert await crowd.drain() == ["c2", "c4"]

    async def test_a_queue_full_of_one_user_takes_another(self, fleet: Sequence[Places]) -> None:
        """The greedy one's last call makes room, wherever it waits."""
        async with Crowd(fleet) as crowd:
            for n in range(5):
                await crowd.come(turn(f"g{n}", "greedy", waiting=4))
            await crowd.come(turn("a", "alice", waiting=4))
            await eventually(lambda: crowd.refused, "one was refused")
            assert list(crowd.refused) == ["g4"]
            assert await crowd.drain() == ["a", "g1", "g2", "g3"]

    async def test_no_queue_at_all(self, fleet: Sequence[Places]) -> None:
        await fleet[0].take(turn("a", waiting=0))
        with pytest.raises(Overloaded, match="0 calls wait"):
            await fleet[0].take(turn("b", "bob", waiting=0))
        fleet[0].leave("a", 1)
        await is_free(fleet[0], 1)

    async def test_who_gives_up_waits_no_more(self, fleet: Sequence[Places]) -> None:
        async with Crowd(fleet) as crowd:
            for id in ("a", "b", "c"):
                await crowd.come(turn(id))
            await crowd.give_up("b")
            assert await crowd.drain() == ["c"]
        await is_free(fleet[-1], 1)

    async def test_who_gives_up_as_it_gets_its_place_gives_it_back(self, fleet: Sequence[Places]) -> None:
        for n in range(50):
            async with Crowd(fleet) as crowd:
                for id in (f"a{n}", f"b{n}"):
                    await crowd.come(turn(id))
                crowd.go(f"a{n}")
                for _ in range(n % 7):
                    await asyncio.sleep(0)
                await crowd.give_up(f"b{n}")
                crowd.go(f"b{n}")
        await is_free(fleet[-1], 1)

    async def test_leaving_twice_is_leaving_once(self, fleet: Sequence[Places]) -> None:
        async with Crowd(fleet) as crowd:
            for id in ("a", "b", "c", "d"):
                await crowd.come(turn(id, most=2))
            for _ in range(3):
                for places in fleet:
                    places.leave("a", 10)
                    places.served("a", 1000)
                    places.leave("never", 10)
                    places.served("never", 10)
            crowd.inside.discard("a")
            assert await crowd.next_in(2) == "c"
            assert sorted(crowd.inside) == ["b", "c"]

    async def test_models_do_not_share_places(self, fleet: Sequence[Places]) -> None:
        async with Crowd(fleet) as crowd:
            await crowd.come(turn("a"))
            await crowd.come(turn("b", model="other"))
            await crowd.come(turn("c"))
            assert crowd.order == ["a", "b"]
            await crowd.leave("b")
            await crowd.leave("a")
            assert await crowd.next_in(2) == "c"

    async def test_more_places_are_given_as_soon_as_somebody_asks(self, fleet: Sequence[Places]) -> None:
        async with Crowd(fleet) as crowd:
            for id in ("a", "b", "c"):
                await crowd.come(turn(id, most=1))
            await crowd.come(turn("d", most=3))
            await eventually(lambda: sorted(crowd.order) == ["a", "b", "c"], "all but one are in")

    @pytest.mark.parametrize("user", ["", "a:b", "ä€𝄞", "{x}", "a\0b", "[(", "x" * 500])
    async def test_a_user_may_have_any_name(self, fleet: Sequence[Places], user: str) -> None:
        async with Crowd(fleet) as crowd:
            for n in range(3):
                await crowd.come(turn(f"u{n}", user))
            await crowd.come(turn("a", "a"))
            assert len(await crowd.drain(tokens=5)) == 3
        await is_free(fleet[0], 1)

    @pytest.mark.parametrize("seed", range(4))
    async def test_a_storm_of_cancelled_callers_loses_no_place(
        self, fleet: Sequence[Places], seed: int
    ) -> None:
        chance = random.Random(seed)
        most = chance.choice([1, 3, 8])
        inside, most_inside, served = set[str](), 0, 0

        async def call(id: str) -> None:
            nonlocal most_inside, served
            places = chance.choice(fleet)
            asked = turn(id, f"user{chance.randrange(6)}", most=most, waiting=1000,
                         weight=chance.choice([1.0, 2.0]), prompt=chance.randrange(100))  # fmt: skip
            await places.take(asked)
            inside.add(id)
            most_inside = max(most_inside, len(inside))
            try:
                for _ in range(chance.randrange(4)):
                    places.served(id, chance.randrange(50))
                    await asyncio.sleep(0)
                served += 1
            finally:
                inside.discard(id)
                places.leave(id, chance.randrange(100))

        tasks = [asyncio.ensure_future(call(f"s{seed}-{n}")) for n in range(300)]
        for task in chance.sample(tasks, 200):
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            if chance.random() < 0.05:
                await asyncio.sleep(0.001)
            task.cancel()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert not [task for task in tasks if not task.cancelled() and task.exception()]
        assert most_inside <= most
        assert served >= 100
        await is_free(fleet[0], most)
