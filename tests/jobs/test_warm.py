"""The shared cache of keys: filled from the store, never too old, and there when the store is not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typing_extensions import override

from llmgateway.control.keys import NewKey
from llmgateway.control.people import UserChanges
from llmgateway.domain.errors import NotAuthenticated, StoreUnavailable
from llmgateway.flow.authenticate import Authenticate
from llmgateway.jobs.warm import KeyCache
from llmgateway.stores.redis import RedisState, open_redis
from llmgateway.stores.sqlite import SqliteStore
from llmgateway.stores.warmth import RedisWarmth
from tests.control.desk import ANN, PEPPER, Desk, open_desk
from tests.doubles import SetClock
from tests.lab.servers import Valkey
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.service


class AwayStore(SqliteStore):
    """A store that answers nothing."""

    def __init__(self) -> None:
        return None

    @override
    async def get(self, kind: object, id: str) -> None:
        raise StoreUnavailable("away")


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


@pytest.fixture
async def state(own_valkey: Valkey) -> AsyncIterator[RedisState]:
    async with open_redis(own_valkey.url(), 0.5, hold=0.2) as opened:
        yield opened


@pytest.fixture
def cache(desk: Desk, state: RedisState) -> KeyCache:
    return KeyCache(desk.store, state, RedisWarmth(state))


async def issued(desk: Desk, user: str) -> str:
    made = await desk.control.keys.create(ANN, NewKey(user=user, name="laptop"))
    return made.token.reveal()


async def test_all_keys_pass_without_the_store_once_they_are_cached(
    desk: Desk, state: RedisState, cache: KeyCache
) -> None:
    tokens = [await issued(desk, f"user{n}") for n in range(7)]
    assert await cache.is_cold()
    assert await cache.fill() == {"keys": 7}
    assert not await cache.is_cold()
    alone = Authenticate(AwayStore(), state, pepper=PEPPER, clock=SetClock())
    for number, token in enumerate(tokens):
        assert (await alone(token.encode())).user == f"user{number}"


async def test_what_was_missed_is_put_right_at_the_next_round(
    desk: Desk, state: RedisState, cache: KeyCache
) -> None:
    """A key that was revoked, and a user who was suspended, while nobody could be told."""
    revoked, suspended = await issued(desk, "alice"), await issued(desk, "bob")
    await cache.fill()
    await desk.control.keys.revoke(ANN, revoked.split("_")[1])
    await desk.control.people.change(ANN, "bob", UserChanges(state="suspended"))
    await cache.fill()
    alone = Authenticate(AwayStore(), state, pepper=PEPPER, clock=SetClock())
    for token in (revoked, suspended):
        with pytest.raises(NotAuthenticated):
            await alone(token.encode())


async def test_r_fault_23_a_redis_that_comes_back_empty_fails_no_key(
    desk: Desk, state: RedisState, cache: KeyCache, own_valkey: Valkey
) -> None:
    token = (await issued(desk, "alice")).encode()
    await cache.fill()
    authenticate = Authenticate(desk.store, state, pepper=PEPPER, clock=desk.clock)
    for command in (("FLUSHALL",), ("SCRIPT", "FLUSH")):
        await state.ask(command)
        desk.clock.pass_seconds(31)  # what the process remembers is not fresh any more
        assert (await authenticate(token)).user == "alice"
    own_valkey.stop()
    for _ in range(3):
        desk.clock.pass_seconds(31)
        assert (await authenticate(token)).user == "alice"
    assert not await cache.is_cold()  # nobody can tell
    own_valkey.restart_empty()
    await eventually_answers(cache.is_cold, "it is seen to be empty")
    desk.clock.pass_seconds(31)
    assert (await authenticate(token)).user == "alice"
    assert await cache.fill() == {"keys": 1}
    assert not await cache.is_cold()
    alone = Authenticate(AwayStore(), state, pepper=PEPPER, clock=SetClock())
    assert (await alone(token)).user == "alice"
