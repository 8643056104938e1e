"""A local sign-up and a sign-in from an identity provider under one name: whatever the order, one wins."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmgateway.control.accounts import FIRST, AccountRules, Accounts, NewAccount
from llmgateway.control.audit import Actor
from llmgateway.control.ground import Configuration, Ground
from llmgateway.control.names import CUT_OFF, has_account
from llmgateway.control.people import NewUser
from llmgateway.control.services import Control
from llmgateway.domain.entries import Defaults
from llmgateway.domain.errors import Conflict, GatewayError, NotAuthenticated
from llmgateway.domain.identity import Identity
from llmgateway.domain.policy import Grants, Policy, Rule
from llmgateway.domain.ports import Document, Documents, Kind, Page, State, Store
from llmgateway.stores.memory import MemoryState
from llmgateway.stores.mongo import open_mongo
from llmgateway.stores.sqlite import open_sqlite
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.control.desk import ANN, PEPPER, Desk
from tests.control.test_accounts import ADMIN_KEY, PASSWORD, QUICK
from tests.doubles import SetClock

IDP = "https://idp.example.org/"
POLICY = Policy(rules=(Rule(name="all", grants=Grants(roles=("user",))),))
DOOR, HERE = Actor("nobody", "portal 10.0.0.9"), "10.0.0.9"


class Turns:
    """A real store whose callers wait for their turn, which chance gives to one after the other."""

    def __init__(self, store: Documents, chance: random.Random) -> None:
        self._store = store
        self._chance = chance

    async def _wait(self) -> None:
        for _ in range(self._chance.choice((0, 0, 1, 2, 4, 8))):
            await asyncio.sleep(0)
        if self._chance.random() < 0.15:
            await asyncio.sleep(0.001)

    async def get(self, kind: Kind, id: str) -> Document | None:
        await self._wait()
        found = await self._store.get(kind, id)
        await self._wait()
        return found

    async def insert(self, kind: Kind, document: Document) -> None:
        await self._wait()
        await self._store.insert(kind, document)

    async def replace(self, kind: Kind, document: Document) -> None:
        await self._wait()
        await self._store.replace(kind, document)

    async def delete(self, kind: Kind, id: str) -> bool:
        await self._wait()
        return await self._store.delete(kind, id)

    async def find(self, kind: Kind, where: Mapping[str, str | None], **more: Any) -> Page:
        return await self._store.find(kind, where, **more)


class Both:
    """The two doors of a process, over stores that all processes share."""

    def __init__(
        self, store: Any, shelf: SqliteShelf, *, is_private: bool = False, has_provider: bool = False
    ) -> None:
        self.store, clock = store, SetClock()
        configuration = Configuration(base_models=(), defaults=Defaults(source="admin"), policy=POLICY)
        state: State = MemoryState()
        self.control = Control.over(store, state, clock, pepper=PEPPER, configured=lambda: configuration)
        ground = Ground(store=store, state=state, clock=clock, audit=self.control.audit,
                        configured=lambda: configuration)  # fmt: skip
        self.accounts = Accounts(
            ground, self.control.people, shelf, admin_key=ADMIN_KEY, hasher=QUICK,
            rules=lambda: AccountRules(is_private=is_private, has_provider=has_provider),
        )  # fmt: skip

    async def signs_up(self, login: str, later: float = 0.0) -> bool:
        await asyncio.sleep(later)
        new = NewAccount(login=login, password=PASSWORD, email="alice@example.org")
        return await succeeds(self.accounts.sign_up(DOOR, new, login))

    async def arrives(self, login: str, later: float = 0.0) -> bool:
        await asyncio.sleep(later)
        who = Identity(provider=IDP, subject=login, email="alice@example.org")
        return await succeeds(self.control.enrolment.welcome(DOOR, who))

    async def is_given_a_password(self, login: str) -> bool:
        return await succeeds(self.accounts.set_password(ANN, login, PASSWORD))

    async def tries(self, login: str) -> bool:
        """Whoever signs up tries at every moment whether the password does already."""
        found = [await succeeds(self.accounts.sign_in(DOOR, login, PASSWORD, login)) for _ in range(4)]
        return any(found)


async def succeeds(work: Any) -> bool:
    try:
        await work
    except GatewayError:
        return False
    return True


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.service)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        async with open_sqlite(tmp_path / "gateway.db") as sqlite:
            yield sqlite
    else:
        async with open_mongo(request.getfixturevalue("mongo_url"), 5) as mongo:
            yield mongo


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[SqliteShelf]:
    async with open_sqlite(tmp_path / "shelf.db") as sqlite:
        yield SqliteShelf(sqlite.file, SetClock())


async def in_order(store: Documents, login: str, *, has_arrived: bool, has_account: bool) -> None:
    """Whatever the order was: a name is one person's, by one door."""
    user, account = await store.get("users", login), await store.get("accounts", login)
    assert (account is not None) == has_account
    assert not (has_arrived and has_account)
    assert (user is not None and user["provider"] is not None) == has_arrived


@pytest.mark.parametrize("is_private", [False, True], ids=["plain", "first"])
async def test_of_a_sign_up_and_an_arrival_one_wins(
    store: Store, shelf: SqliteShelf, is_private: bool
) -> None:
    """`first`: the sign-up that may take over a user who is there already."""
    chance, won = random.Random(20), {"account": 0, "provider": 0}
    for n in range(12 if store.name == "mongodb" else 30):
        login = f"alice{n}"
        both = Both(Turns(store, chance), shelf, is_private=is_private)
        works = [
            both.signs_up(login, chance.choice((0, 0, 0, 0.2))),
            both.arrives(login, chance.choice((0, 0.005, 0.02))),
            both.tries(login),
        ]
        signed_up, arrived, got_in = await asyncio.gather(*works)
        assert signed_up != arrived, n
        assert not (got_in and arrived), n
        await in_order(store, login, has_arrived=arrived, has_account=signed_up)
        assert await both.tries(login) == signed_up
        assert await both.arrives(login) == arrived
        won["account" if signed_up else "provider"] += 1
        if is_private:
            await store.delete("accounts", "#first")
    assert all(won.values()), "chance has tried both"


async def test_of_a_password_by_an_operator_and_an_arrival_one_wins(store: Store, shelf: SqliteShelf) -> None:
    chance = random.Random(5)
    for n in range(8 if store.name == "mongodb" else 25):
        login = f"prepared{n}"
        both = Both(Turns(store, chance), shelf)
        await both.control.people.create(ANN, NewUser(id=login))
        works = [both.is_given_a_password(login), both.arrives(login), both.tries(login)]
        given, arrived, got_in = await asyncio.gather(*works)
        assert given != arrived, n
        assert not (got_in and arrived), n
        await in_order(store, login, has_arrived=arrived, has_account=given)


async def test_the_same_mail_is_not_the_same_person(store: Store, shelf: SqliteShelf) -> None:
    """A mail address is said of somebody, and opens nothing."""
    both = Both(store, shelf)
    assert all(await asyncio.gather(both.signs_up("alice"), both.arrives("alice@example.org")))
    users = [await store.get("users", id) for id in ("alice", "alice@example.org")]
    assert [user and user["provider"] for user in users] == [None, IDP]
    assert [user and user["email"] for user in users] == ["alice@example.org"] * 2


async def test_what_a_sign_up_left_that_was_cut_off_is_nobody_s(desk: Desk) -> None:
    made: Document = {"id": "alice", "revision": 0, "created_at": desk.clock.at, "password": "x"}
    await desk.store.insert("accounts", made)
    assert await has_account(desk.store, desk.clock, "alice")
    desk.clock.move(CUT_OFF + timedelta(seconds=1))
    assert not await has_account(desk.store, desk.clock, "alice")
    assert await desk.store.get("accounts", "alice") is None
    assert not await has_account(desk.store, desk.clock, "nobody")


async def test_nobody_is_called_like_the_mark_of_the_first_account(desk: Desk, shelf: SqliteShelf) -> None:
    """And so makes everybody forget that there was one."""
    both = Both(desk.store, shelf, is_private=True)
    assert await both.signs_up("ann")
    mark = await desk.store.get("accounts", FIRST)
    assert mark is not None
    await desk.store.replace("accounts", {**mark, "created_at": desk.clock.at - 9 * CUT_OFF, "revision": 1})
    assert not await both.arrives(FIRST)
    assert not await both.accounts.is_first()


async def test_who_signs_up_takes_no_name_of_an_organisation(desk: Desk, shelf: SqliteShelf) -> None:
    """Where people come from one: else anybody could shut somebody out before they come."""
    both = Both(desk.store, shelf, has_provider=True)
    assert not await both.signs_up("zoe@example.org")
    assert await both.signs_up("zoe")
    assert await both.arrives("zoe@example.org")


async def test_a_password_opens_no_account_of_a_provider(desk: Desk, shelf: SqliteShelf) -> None:
    """However it came to be there."""
    both = Both(desk.store, shelf)
    assert await both.arrives("alice")
    digest = QUICK.hash(PASSWORD.reveal())
    await desk.store.insert(
        "accounts", {"id": "alice", "revision": 0, "created_at": desk.clock.at, "password": digest}
    )
    with pytest.raises(NotAuthenticated):
        await both.accounts.sign_in(DOOR, "alice", PASSWORD, HERE)
    with pytest.raises(Conflict):
        await both.accounts.sign_up(DOOR, NewAccount(login="alice", password=PASSWORD), HERE)
