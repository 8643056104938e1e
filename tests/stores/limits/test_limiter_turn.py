"""The script on Redis and the counts of one process decide alike; turns are made once."""

import random
from collections.abc import AsyncIterator

import pytest
from msgspec import UNSET

from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.stores.limits.limiter_turn import Change, Turn, Turns
from llmgateway.stores.limits.windows import Answer, Begin, Counts, Reading
from llmgateway.stores.redis import open_redis
from tests.stores.limits.limiter_contract import TODAY, TOMORROW, claim, limited, spent_by

pytestmark = pytest.mark.service

START = 1_800_000_000_000


@pytest.fixture
async def turns(redis_url: str) -> AsyncIterator[Turns]:
    async with open_redis(redis_url, 2) as redis:
        made = Turns(redis, "w1", 60)
        made.now = START
        yield made


def turn(*claims: Claim, changes: tuple[Change, ...] = (), number: int = 0, epoch: str = "",
         begins: tuple[Begin, ...] = (), deadline: int = 0) -> Turn:  # fmt: skip
    asked = [(one, begins) for one in claims]
    return Turn(changes, asked, epoch or UNSET, number, deadline or UNSET, beats=True)


def scopes(chance: random.Random) -> tuple[Scope, ...]:
    found = []
    for kind in ("user", "project", "key", "model"):
        if chance.random() < 0.7:
            most = {name: chance.randrange(1, high) for name, high in LIMITS.items() if chance.random() < 0.5}
            found.append(Scope(kind, chance.choice("ab"), Limits(**most)))
    return tuple(found)


LIMITS = {"requests_per_minute": 30, "tokens_per_minute": 4000, "tokens_per_day": 60_000,
          "tokens_per_month": 90_000, "cost_per_month": 3000, "concurrent_requests": 20}  # fmt: skip


def begins_of(chance: random.Random, answer: Answer) -> list[Begin]:
    return [
        Begin(one.index, one.day_since, one.month_since, chance.randrange(3000), chance.randrange(3000),
              chance.randrange(50), is_away=chance.random() < 0.2)
        for one in answer.unknown
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
async def test_both_algorithms_agree(turns: Turns, seed: int) -> None:
    """The same claims, ends and times through both: the same decisions and numbers, all along."""
    chance = random.Random(seed)
    now, taken, refused, number = START, 0, 0, 0
    opened: list[Claim] = []
    counts = Counts(60, lambda: now)
    known = [scopes(chance) for _ in range(12)]
    for n in range(400):
        now += chance.choice([0, 0, 1, 300, 1000, 1700, 20_000 if chance.random() < 0.1 else 5])
        turns.now = now
        if opened and chance.random() < 0.45:
            one = opened.pop(chance.randrange(len(opened)))
            tokens, cost, number = chance.randrange(400), chance.randrange(20), number + 1
            counts.settle(one.id, tokens, cost)
            await turns.send(turn(changes=(Change("settle", one, tokens, cost),), number=number))
        period = chance.choice([TODAY, TODAY, TOMORROW])
        asked = Claim(f"{n}", chance.choice(known), chance.randrange(300), chance.randrange(20), period)
        here = counts.claim(asked, now)
        assert [here] == (await turns.send(turn(asked))).answers
        while here.unknown:
            begins = tuple(begins_of(chance, here))
            here = counts.claim(asked, now, begins)
            assert [here] == (await turns.send(turn(asked, begins=begins))).answers
        taken, refused = taken + here.is_taken, refused + (not here.is_taken)
        if here.is_taken:
            opened.append(asked)
    assert min(taken, refused) > 30


async def test_a_turn_that_is_sent_twice_is_made_once(turns: Turns) -> None:
    alice = limited(tokens_per_day=1000)
    look = claim("", alice)
    await turns.send(turn(look, begins=(Begin(0),)))
    again = turn(look, changes=(Change("charge", claim("1", alice), 100, 0),), number=1)
    for _ in range(3):
        (answer,) = (await turns.send(again)).answers
        assert answer.readings[0].day_tokens == 100
    (answer,) = (
        await turns.send(turn(look, changes=(Change("charge", claim("1", alice), 100, 0),), number=2))
    ).answers
    assert answer.readings[0].day_tokens == 200


async def test_what_is_held_twice_is_held_once(turns: Turns) -> None:
    alice = limited(tokens_per_day=1000, concurrent_requests=5)
    held = Change("hold", claim("1", alice, tokens=100), 100, 0)
    for number in (1, 2):
        await turns.send(turn(changes=(held,), number=number))
    begins = (Begin(0, is_away=True),)
    (answer,) = (await turns.send(turn(claim("", alice), begins=begins))).answers
    assert (answer.readings[0].day_tokens, answer.readings[0].places) == (100, 1)
    ended = Change("settle", claim("1", alice), 30, 0)
    (answer,) = (await turns.send(turn(claim("", alice), begins=begins, changes=(ended,), number=3))).answers
    assert (answer.readings[0].day_tokens, answer.readings[0].places) == (30, 0)


async def test_what_was_charged_before_the_ledger_was_asked_is_in_its_sums(turns: Turns) -> None:
    alice = limited(tokens_per_day=1000)
    charge = Change("charge", claim("1", alice), 100, 0)
    begins = (Begin(0, day_tokens=100),)
    (answer,) = (await turns.send(turn(claim("", alice), begins=begins, changes=(charge,), number=1))).answers
    assert answer.readings[0].day_tokens == 100


async def test_nothing_is_done_in_another_epoch(turns: Turns) -> None:
    alice = limited(requests_per_minute=1)
    first = await turns.send(turn(claim("1", alice), epoch="long ago"))
    assert not first.answers
    second = await turns.send(turn(claim("1", alice), epoch=first.epoch))
    assert second.epoch == first.epoch
    assert second.answers[0].is_taken


async def test_claims_come_too_late_and_changes_do_not(turns: Turns) -> None:
    turns.now = UNSET
    alice = limited(concurrent_requests=1)
    reply = await turns.send(turn(claim("1", alice)))
    ended = (Change("settle", claim("1", alice), 0, 0),)
    late = await turns.send(turn(claim("2", alice), changes=ended, number=1, deadline=reply.now - 1))
    assert (late.is_late, late.answers) == (True, [])
    (answer,) = (await turns.send(turn(claim("3", alice), deadline=reply.now + 60_000))).answers
    assert answer.is_taken


async def test_r_fault_50_the_servers_clock_may_be_set_back(turns: Turns) -> None:
    alice = limited(requests_per_minute=2)
    for n, now in enumerate((START, START - 3_600_000)):
        turns.now = now
        assert (await turns.send(turn(claim(f"{n}", alice)))).answers[0].is_taken
    (answer,) = (await turns.send(turn(claim("3", alice)))).answers
    assert answer.readings == [Reading(2, 0, 0, 0, 0, 2, 60_000, 0, 60_000, 0)]
    turns.now = START - 3_600_000 + 60_000
    assert (await turns.send(turn(claim("4", alice)))).answers[0].is_taken


async def test_r_acc_10_recovery_in_parts(turns: Turns) -> None:
    alice = limited(tokens_per_day=10**6)
    for part in range(4):
        asked = (claim(f"{part}-{n}", alice, tokens=10) for n in range(60))
        await turns.send(turn(*asked, begins=(Begin(0),)))
    told, other = 0, Turns(turns.redis, "w2", 60)
    while found := await other.recover("w1", spent_by({"0-0": (7, 0)})):
        told += found
    assert told == 240
    (answer,) = (await other.send(turn(claim("", alice)))).answers
    assert (answer.readings[0].day_tokens, answer.readings[0].places) == (7, 0)
