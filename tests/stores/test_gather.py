"""Gathering: one batch for all who ask in one turn of the loop; callers may leave at any time."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.stores.alongside import alongside
from llmgateway.stores.gather import LARGEST_BATCH, Gatherer
from tests.lab.waiting import eventually

LANES = 2
Doubling = Gatherer[int, int]


class Carrier:
    """Doubles numbers, when it is let; a negative one is refused, and 0 breaks the connection."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def carry(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(numbers))
        await self.may_answer.wait()
        if 0 in numbers:
            raise StoreUnavailable("broken")
        return [2 * number if number > 0 else ValueError(number) for number in numbers]


@pytest.fixture
async def carrier() -> Carrier:
    return Carrier()


@pytest.fixture
async def gatherer(carrier: Carrier) -> AsyncIterator[Doubling]:
    gatherer: Doubling = Gatherer(carrier.carry)
    async with alongside(*[gatherer.lane] * LANES):
        await asyncio.sleep(0)
        yield gatherer
        gatherer.close()


async def test_what_is_asked_in_one_turn_goes_as_one_batch(gatherer: Doubling, carrier: Carrier) -> None:
    assert await asyncio.gather(*map(gatherer.ask, range(1, 101))) == list(range(2, 202, 2))
    assert carrier.batches == [list(range(1, 101))]


async def test_batches_are_bounded_and_all_lanes_carry(gatherer: Doubling, carrier: Carrier) -> None:
    carrier.may_answer.clear()
    asked = [gatherer.ask(number) for number in range(1, 3 * LARGEST_BATCH)]
    await eventually(lambda: len(carrier.batches) == LANES, "every lane is under way")
    carrier.may_answer.set()
    assert await asyncio.gather(*asked) == list(range(2, 6 * LARGEST_BATCH, 2))
    assert max(map(len, carrier.batches)) == LARGEST_BATCH


async def test_who_leaves_before_the_batch_is_not_carried(gatherer: Doubling, carrier: Carrier) -> None:
    first, second = gatherer.ask(1), gatherer.ask(2)
    first.cancel()
    assert await second == 4
    assert carrier.batches == [[2]]


async def test_who_leaves_during_the_batch_shifts_nothing(gatherer: Doubling, carrier: Carrier) -> None:
    carrier.may_answer.clear()
    asked = [gatherer.ask(number) for number in (1, 2, 3)]
    await eventually(lambda: carrier.batches, "the batch is under way")
    asked[1].cancel()
    carrier.may_answer.set()
    assert (await asked[0], await asked[2]) == (2, 6)


async def test_a_refusal_is_its_askers_own(gatherer: Doubling) -> None:
    good, bad = gatherer.ask(1), gatherer.ask(-1)
    assert await good == 2
    with pytest.raises(ValueError, match="-1"):
        await bad


async def test_a_broken_batch_fails_each_with_an_error_of_its_own(gatherer: Doubling) -> None:
    errors = await asyncio.gather(gatherer.ask(0), gatherer.ask(1), return_exceptions=True)
    assert [str(error) for error in errors] == ["broken", "broken"]
    assert errors[0] is not errors[1]
    assert await gatherer.ask(1) == 2


async def test_closing_fails_those_who_wait_and_come_later(carrier: Carrier) -> None:
    gatherer: Doubling = Gatherer(carrier.carry)
    carrier.may_answer.clear()
    async with alongside(gatherer.lane):
        under_way = gatherer.ask(1)
        await eventually(lambda: carrier.batches, "the batch is under way")
        waiting = gatherer.ask(2)
    gatherer.close()
    for one in (under_way, waiting, gatherer.ask(3)):
        with pytest.raises(StoreUnavailable):
            await one
