"""The places of one process: the contract, and that a free one costs no turn of the event loop."""

import asyncio
from collections.abc import Sequence

import pytest

from llmgateway.domain.admission import Places
from llmgateway.domain.errors import Overloaded
from llmgateway.stores.limits.memory_places import MemoryPlaces, duration
from tests.doubles import SetClock
from tests.stores.limits.places_contract import PlacesContract, turn


class TestMemoryPlaces(PlacesContract):
    @pytest.fixture
    def fleet(self) -> Sequence[Places]:
        return [MemoryPlaces()]


def test_a_free_place_is_taken_without_waiting() -> None:
    places = MemoryPlaces()
    taking = places.take(turn("a"))
    with pytest.raises(StopIteration):
        taking.send(None)
    places.leave("a", 1)
    assert places.is_healthy()


async def test_the_expected_wait_follows_the_places_that_came_free() -> None:
    """One place every two seconds, four that wait: eight seconds."""
    clock = SetClock()
    places = MemoryPlaces(clock=clock)
    for n in range(200):
        await places.take(turn(f"c{n}"))
        clock.pass_seconds(2)
        places.leave(f"c{n}", 10)
    await places.take(turn("runs"))
    waiting = [asyncio.ensure_future(places.take(turn(f"w{n}", waiting=4))) for n in range(4)]
    await asyncio.sleep(0)
    queue = places.queue("m")
    assert queue.waiting == 4
    assert queue.seconds == pytest.approx(8, rel=0.05)
    with pytest.raises(Overloaded, match="4 calls wait, the last of them for about 8 s more") as refusal:
        await places.take(turn("late", waiting=4))
    assert refusal.value.retry_after == 8
    clock.pass_seconds(3600)
    assert places.queue("m").seconds is None  # too long ago to say anything
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert places.queue("m").waiting == 0
    assert places.queue("never heard of").waiting == 0


async def test_a_dead_worker_left_nothing_here() -> None:
    places = MemoryPlaces()
    await places.take(turn("a", most=2))
    await places.recover("another")
    await places.take(turn("b", most=2))
    waits = asyncio.ensure_future(places.take(turn("c", most=2)))
    await asyncio.sleep(0)
    assert places.queue("m").waiting == 1
    places.leave("a", 0)
    await waits


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (59.1, "60 s"), (130, "3 minutes")])
def test_durations_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said
