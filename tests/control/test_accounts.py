"""Local accounts: making them, the first one, signing in, and what too many tries do."""

import asyncio
import contextlib
from pathlib import Path
from threading import Event

import pytest
from argon2 import PasswordHasher
from typing_extensions import override

from llmgateway.control.accounts import (
    PER_ADDRESS,
    PER_NAME,
    PER_PAIR,
    SIGN_UPS,
    AccountRules,
    Accounts,
    NewAccount,
)
from llmgateway.control.audit import Actor
from llmgateway.control.ground import Ground
from llmgateway.control.keys import NewKey
from llmgateway.control.people import NewUser
from llmgateway.control.projects import NewProject, NewServiceKey
from llmgateway.domain.errors import (
    Conflict,
    GatewayError,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    OverLimit,
    StoreUnavailable,
)
from llmgateway.domain.people import User
from llmgateway.domain.secret import Secret
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.control.desk import ANN, Desk

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ADMIN_KEY, PASSWORD = Secret("operators-credential-0123456789abcdef"), Secret("correct horse")
ACTOR, HERE = Actor("user alice", "portal 10.0.0.1"), "10.0.0.1"


class House:
    """A gateway's accounts, with rules that tests change."""

    def __init__(self, desk: Desk, hasher: PasswordHasher = QUICK, shelf: SqliteShelf | None = None) -> None:
        self.desk = desk
        self.rules = AccountRules(is_private=True)
        ground = Ground(store=desk.store, state=desk.state, clock=desk.clock, audit=desk.control.audit,
                        configured=lambda: desk.configuration)  # fmt: skip
        self.accounts = Accounts(
            ground, desk.control.people, shelf or SqliteShelf(desk.store.file, desk.clock),
            admin_key=ADMIN_KEY, rules=lambda: self.rules, hasher=hasher,
        )  # fmt: skip

    async def sign_up(self, login: str, password: str = "correct horse", **more: object) -> User:
        new = NewAccount(login=login, password=Secret(password), **more)  # type: ignore[arg-type]  # of several types
        return await self.accounts.sign_up(ACTOR, new, HERE)

    async def sign_in(self, login: str, password: Secret = PASSWORD, address: str = HERE) -> str:
        proved = await self.accounts.sign_in(ANN, login, password, address)
        assert await self.accounts.is_still(proved)
        return proved.user


@pytest.fixture
def house(desk: Desk) -> House:
    return House(desk)


async def test_tries_to_sign_in_are_in_the_audit_log(house: House, desk: Desk) -> None:
    """But no word that may be a password, typed where the name belongs."""
    await house.sign_up("alice")
    await house.sign_in("alice")
    for login in ("alice", "correct horse", "nobody-here"):
        with pytest.raises(NotAuthenticated):
            await house.sign_in(login, Secret("wrong wrong"))
    page = await desk.control.audit.page({"action": "accounts.sign_in"}, limit=10)
    told = sorted((line["target"], line["result"]) for line in page.data)
    assert told == [("alice", "ok"), ("alice", "refused"), ("nobody", "refused"), ("nobody", "refused")]


async def test_an_account_is_made_and_signs_in(house: House, desk: Desk) -> None:
    assert await house.accounts.is_first()
    user = await house.sign_up(" Alice ", name="Alice A", email="alice@example.org")
    assert (user.id, user.name, user.email) == ("alice", "Alice A", "alice@example.org")
    assert await house.sign_in("ALICE") == "alice"
    assert await house.accounts.has("alice")
    assert not await house.accounts.has("bob")
    document = await desk.store.get("accounts", "alice")
    assert document is not None
    assert document["password"].startswith("$argon2id$")
    lines = (await desk.control.audit.page({"target": "alice"}, limit=10)).data
    assert [line["action"] for line in lines] == ["accounts.sign_in", "users.create", "accounts.create"]
    assert PASSWORD.reveal() not in repr(lines)


async def test_only_the_first_becomes_an_administrator(house: House) -> None:
    assert (await house.sign_up("alice")).roles == ("user", "admin")
    assert not await house.accounts.is_first()
    assert (await house.sign_up("bob")).roles == ("user",)


async def test_of_many_at_once_one_is_the_first(house: House) -> None:
    users = await asyncio.gather(*(house.sign_up(f"user{n}") for n in range(8)))
    assert [user.roles for user in users].count(("user", "admin")) == 1


async def test_the_first_account_may_be_the_user_of_the_first_key(house: House, desk: Desk) -> None:
    await desk.control.keys.create(ANN, NewKey(user="admin", name="first"))
    await desk.control.keys.create(ANN, NewKey(user="bob", name="first"))
    user = await house.sign_up("admin", name="Ann")
    assert (user.roles, user.name) == (("user", "admin"), "Ann")
    with pytest.raises(Conflict, match="taken"):
        await house.sign_up("bob")
    with pytest.raises(NotAuthenticated):
        await house.sign_in("bob")


async def test_who_cannot_be_alone_here_shows_the_operators_key(house: House) -> None:
    house.rules = AccountRules(is_private=False)
    assert (await house.sign_up("bob")).roles == ("user",)
    with pytest.raises(InvalidRequest, match="operators' key") as refused:
        await house.sign_up("mallory", claim=Secret("guess"))
    assert refused.value.param == "claim"
    assert (await house.sign_up("alice", claim=ADMIN_KEY)).roles == ("user", "admin")
    assert (await house.sign_up("carol", claim=ADMIN_KEY)).roles == ("user",)


async def test_where_an_administrator_is_there_already_nobody_becomes_one(house: House, desk: Desk) -> None:
    await desk.control.people.create(ANN, NewUser(id="olga", roles=["admin"]))
    assert (await house.sign_up("alice")).roles == ("user",)


async def test_switched_off(house: House) -> None:
    await house.sign_up("alice")
    house.rules = AccountRules(is_private=True, sign_up=False)
    assert not await house.accounts.may_sign_up()
    with pytest.raises(InvalidRequest, match="cannot be made here"):
        await house.sign_up("bob")
    assert await house.sign_in("alice") == "alice"
    house.rules = AccountRules(is_private=True, sign_in=False)
    with pytest.raises(NotAuthenticated):
        await house.sign_in("alice")


async def test_without_sign_up_the_first_account_needs_the_operators_key(house: House) -> None:
    house.rules = AccountRules(is_private=False, sign_up=False)
    with pytest.raises(InvalidRequest, match="needs the operators' key"):
        await house.sign_up("mallory")
    await house.sign_up("alice", claim=ADMIN_KEY)
    assert not await house.accounts.may_sign_up()


@pytest.mark.parametrize(
    "login",
    [
        "",
        "a",
        "-alice",
        "\u212aelvin",
        "al ice",
        "a" * 65,
        "älice",
        "#first",
        "a/b",
        "a..",
        "alice\n\n.",
        "a\u0000b",
    ],
)
async def test_names_that_cannot_be(house: House, login: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await house.sign_up(login)
    assert refused.value.param == "login"
    with pytest.raises(NotAuthenticated):
        await house.sign_in(login)


@pytest.mark.parametrize(
    "password", ["", "short", "aaaaaaaaaaaa", "x" * 1001, "alice-alice", "\ud800 a lone one"]
)
async def test_passwords_that_cannot_be(house: House, password: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await house.sign_up("alice-alice", password)
    assert refused.value.param == "password"


async def test_a_wrong_name_is_told_as_a_wrong_password_is(house: House) -> None:
    await house.sign_up("alice")
    told = []
    for login, password in (
        ("alice", "wrong"),
        ("nobody", "wrong"),
        ("alice", ""),
        ("", ""),
        ("alice", "x" * 5000),
    ):
        with pytest.raises(NotAuthenticated) as refused:
            await house.sign_in(login, Secret(password))
        told.append(refused.value.message)
    assert set(told) == {"The user name or the password is wrong."}


async def test_tries_are_counted_before_the_password_is_looked_at(house: House) -> None:
    """Many at once are no more than one after the other, and the right one comes too late."""
    await house.sign_up("alice")

    async def attempt(n: int) -> str:
        try:
            return await house.sign_in("alice", Secret(f"wrong {n}"))
        except GatewayError as error:
            return type(error).__name__

    told = await asyncio.gather(*(attempt(n) for n in range(PER_PAIR * 2)))
    assert told.count("NotAuthenticated") == PER_PAIR
    assert told.count("OverLimit") == PER_PAIR
    with pytest.raises(OverLimit):
        await house.sign_in("alice")
    assert await house.sign_in("alice", address="10.9.9.9") == "alice"
    house.desk.clock.pass_seconds(901)
    assert await house.sign_in("alice") == "alice"


async def test_an_address_is_stopped_whatever_names_it_tries(house: House) -> None:
    for n in range(PER_ADDRESS):
        with pytest.raises(NotAuthenticated):
            await house.sign_in(f"user{n}")
    with pytest.raises(OverLimit):
        await house.sign_in("another")
    for n in range(SIGN_UPS):
        await house.sign_up(f"user{n}")
    with pytest.raises(OverLimit):
        await house.sign_up("one-more")


async def test_whoever_has_many_ipv6_addresses_has_one(house: House) -> None:
    """A provider gives each line 2**64 of them, so the network is what counts."""
    await house.sign_up("alice")
    for n in range(PER_PAIR):
        with pytest.raises(NotAuthenticated):
            await house.sign_in("alice", Secret("wrong wrong"), f"2001:db8:0:7::{n:x}")
    with pytest.raises(OverLimit):
        await house.sign_in("alice", address="2001:db8:0:7:ffff::1")
    assert await house.sign_in("alice", address="2001:db8:0:8::1") == "alice"
    assert await house.sign_in("alice", address="unknown") == "alice"
    assert await house.sign_in("alice", address="fe80::1%eth0") == "alice"


async def test_ipv4_addresses_are_not_one_network_where_they_are_written_as_ipv6(house: House) -> None:
    await house.sign_up("alice")
    for _ in range(PER_PAIR):
        with pytest.raises(NotAuthenticated):
            await house.sign_in("alice", Secret("wrong wrong"), "::ffff:10.0.0.5")
    for same in ("::ffff:10.0.0.5", "10.0.0.5"):
        with pytest.raises(OverLimit):
            await house.sign_in("alice", address=same)
    assert await house.sign_in("alice", address="::ffff:10.0.0.6") == "alice"


async def test_a_password_is_changed_by_who_knows_it(house: House) -> None:
    await house.sign_up("alice")
    change = house.accounts.change_password
    with pytest.raises(InvalidRequest) as refused:
        await change(ACTOR, "alice", Secret("wrong"), Secret("battery staple"))
    assert refused.value.param == "old"
    with pytest.raises(InvalidRequest) as refused:
        await change(ACTOR, "alice", PASSWORD, Secret("short"))
    assert refused.value.param == "new"
    await change(ACTOR, "alice", PASSWORD, Secret("battery staple"))
    assert await house.sign_in("alice", Secret("battery staple")) == "alice"
    with pytest.raises(NotAuthenticated):
        await house.sign_in("alice")
    for _ in range(PER_PAIR):
        with pytest.raises((InvalidRequest, OverLimit)):
            await change(ACTOR, "alice", PASSWORD, Secret("battery staple"))
    with pytest.raises(OverLimit):
        await change(ACTOR, "alice", Secret("battery staple"), Secret("another one"))


async def test_an_old_hash_is_made_anew_at_sign_in(house: House, desk: Desk, tmp_path: Path) -> None:
    await house.sign_up("alice")
    stronger = House(desk, PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    assert await stronger.sign_in("alice") == "alice"
    document = await desk.store.get("accounts", "alice")
    assert document is not None
    assert "t=2" in document["password"]
    assert await stronger.sign_in("alice") == "alice"


async def test_a_sign_up_that_is_refused_leaves_no_line_that_says_ok(house: House, desk: Desk) -> None:
    await house.sign_up("alice")
    await desk.control.keys.create(ANN, NewKey(user="bob", name="first"))
    for login in ("alice", "bob"):
        with pytest.raises(Conflict, match="taken"):
            await house.sign_up(login)
    page = await desk.control.audit.page({"action": "accounts.create"}, limit=10)
    told = [(line["target"], line["result"]) for line in page.data]
    assert told == [("bob", "conflict"), ("alice", "conflict"), ("alice", "ok")]


@pytest.mark.parametrize("mail", ["nowhere", "@x", "a@", "x" * 300 + "@y.z"])
async def test_s_aud_01_a_mail_that_cannot_be_leaves_no_line_that_says_ok(
    house: House, desk: Desk, mail: str
) -> None:
    """And nobody has become the first one by it."""
    with pytest.raises(InvalidRequest):
        await house.sign_up("alice", email=mail)
    page = await desk.control.audit.page({}, limit=10)
    assert [(line["action"], line["result"]) for line in page.data] == [("accounts.create", "invalid_value")]
    assert await house.accounts.is_first()
    assert not await house.accounts.has("alice")
    assert (await house.sign_up("bob", email="bob@example.org")).is_admin


@pytest.mark.parametrize("state", ["suspended", "asleep since a later version"])
async def test_s_aud_01_the_right_password_of_who_is_suspended_is_not_ok(
    house: House, desk: Desk, state: str
) -> None:
    await house.sign_up("alice")
    user = await desk.store.get("users", "alice")
    assert user is not None
    await desk.store.replace("users", {**user, "state": state, "revision": user["revision"] + 1})
    with pytest.raises(NotAllowed):
        await house.sign_in("alice")
    with pytest.raises(NotAuthenticated):
        await house.sign_in("alice", Secret("wrong wrong"))
    page = await desk.control.audit.page({"action": "accounts.sign_in"}, limit=10)
    assert [line["result"] for line in page.data] == ["refused", "suspended"]


async def test_s_aud_01_too_many_tries_are_one_line(house: House, desk: Desk) -> None:
    for _ in range(PER_PAIR + 5):
        with pytest.raises((NotAuthenticated, OverLimit)):
            await house.sign_in("alice", Secret("wrong wrong"))
    page = await desk.control.audit.page({"action": "accounts.sign_in"}, limit=100)
    told = [line["result"] for line in page.data]
    assert told == ["rate_limit_exceeded", *["refused"] * PER_PAIR]


async def test_a_password_is_made_for_who_has_none(house: House, desk: Desk) -> None:
    await desk.control.keys.create(ANN, NewKey(user="bob", name="first"))
    made = await house.accounts.set_password(ANN, "bob", None)
    assert (made.is_new, made.ended) == (True, 0)
    assert await house.sign_in("bob", made.password) == "bob"
    assert len(made.password.reveal()) == 23
    again = await house.accounts.set_password(ANN, "bob", None)
    assert not again.is_new
    assert again.password.reveal() != made.password.reveal()
    with pytest.raises(NotAuthenticated):
        await house.sign_in("bob", made.password)
    lines = (await desk.control.audit.page({"action": "accounts.password"}, limit=10)).data
    told = [(line["who"], line["target"], line["result"], line["details"]) for line in lines]
    assert told == [("operator", "bob", "ok", {"is_new": is_new}) for is_new in (False, True)]
    for one in (made, again):
        assert one.password.reveal() not in repr((one, lines, await desk.store.get("accounts", "bob")))


async def test_a_new_password_ends_all_sessions_and_what_too_many_tries_did(house: House, desk: Desk) -> None:
    await house.sign_up("alice")
    for owner, id in (("alice", "one"), ("alice", "two"), ("bob", "three")):
        await desk.shelf.put("sessions", id, b"x", 60, owner=owner)
    for n in range(PER_NAME):
        with pytest.raises(NotAuthenticated):
            await house.sign_in("alice", Secret("wrong"), f"10.0.1.{n}")
    with pytest.raises(OverLimit):
        await house.sign_in("alice")
    made = await house.accounts.set_password(ANN, "alice", Secret("battery staple"))
    assert (made.is_new, made.ended, made.password.reveal()) == (False, 2, "battery staple")
    assert not await desk.shelf.owned("sessions", "alice")
    assert await desk.shelf.get("sessions", "three") == b"x"
    assert await house.sign_in("alice", Secret("battery staple")) == "alice"


class AwayShelf(SqliteShelf):
    """Of a Redis that is down."""

    @override
    async def owned(self, shelf: str, owner: str) -> dict[str, bytes]:
        raise StoreUnavailable("Redis is not available.")


async def test_a_password_is_set_though_sessions_cannot_be_reached(house: House, desk: Desk) -> None:
    await house.sign_up("alice")
    away = House(desk, shelf=AwayShelf(desk.store.file, desk.clock))
    made = await away.accounts.set_password(ANN, "alice", None)
    assert made.ended is None
    assert await house.sign_in("alice", made.password) == "alice"


async def test_for_whom_no_password_is_set(house: House, desk: Desk) -> None:
    people, set_password = desk.control.people, house.accounts.set_password
    for id in ("aino", "Ville", "gone", "alice"):
        await people.create(ANN, NewUser(id=id))
    await desk.control.projects.create(ANN, NewProject(id="thesis"))
    await desk.control.projects.create_key(ANN, "thesis", NewServiceKey(name="ci"))
    for id, fields in (("aino", {"provider": "https://idp/"}), ("gone", {"state": "gone"})):
        stored = await desk.store.get("users", id)
        assert stored is not None
        await desk.store.replace("users", {**stored, **fields, "revision": stored["revision"] + 1})
    for id, why in (("aino", "identity provider"), ("Ville", "sign in by"), ("gone", "nobody's"),
                    ("service:thesis", "nobody's")):  # fmt: skip
        with pytest.raises(Conflict, match=why):
            await set_password(ANN, id, None)
        assert not await house.accounts.has(id)
    with pytest.raises(NotFound, match="no user 'nobody'"):
        await set_password(ANN, "nobody", None)
    with pytest.raises(InvalidRequest, match="at least 10"):
        await set_password(ANN, "alice", Secret("short"))
    house.rules = AccountRules(is_private=True, sign_in=False)
    with pytest.raises(Conflict, match="Local accounts are off"):
        await set_password(ANN, "alice", None)
    lines = (await desk.control.audit.page({"action": "accounts.password"}, limit=10)).data
    assert len(lines) == 7
    assert "ok" not in {line["result"] for line in lines}


class Slow(PasswordHasher):
    """Takes until a test lets it go on: what happens meanwhile happens in the same moment."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.begun, self.goes_on = Event(), Event()

    @override
    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self.begun.set()
        assert self.goes_on.wait(10)
        return super().hash(password, salt=salt)


@pytest.mark.parametrize("is_there", [True, False])
async def test_whose_account_ends_in_the_same_moment_has_none(desk: Desk, is_there: bool) -> None:
    if is_there:
        await House(desk).sign_up("bob")
        await desk.control.people.create(ANN, NewUser(id="olga", roles=["admin"]))
    else:
        await desk.control.people.create(ANN, NewUser(id="bob"))
    slow = Slow()

    async def end() -> None:
        await asyncio.to_thread(slow.begun.wait, 10)
        await desk.erasure.forget(ANN, "bob")
        slow.goes_on.set()

    with pytest.raises(NotFound):
        await asyncio.gather(House(desk, slow).accounts.set_password(ANN, "bob", None), end())
    assert await desk.store.get("accounts", "bob") is None


async def test_many_new_passwords_at_once_leave_one_that_works(house: House, desk: Desk) -> None:
    await desk.control.people.create(ANN, NewUser(id="bob"))
    made = await asyncio.gather(*(house.accounts.set_password(ANN, "bob", None) for _ in range(4)))
    works = 0
    for one in made:
        with contextlib.suppress(NotAuthenticated):
            works += await house.sign_in("bob", one.password) == "bob"
    assert works == 1


async def test_a_name_with_a_password_is_not_lost_as_the_first(house: House, desk: Desk) -> None:
    """Somebody else may still become the administrator."""
    await desk.control.people.create(ANN, NewUser(id="bob"))
    assert await house.accounts.is_empty()
    await house.accounts.set_password(ANN, "bob", None)
    assert await house.accounts.is_first()
    assert not await house.accounts.is_empty()
    with pytest.raises(Conflict, match="taken"):
        await house.sign_up("bob")
    assert (await house.sign_up("alice")).roles == ("user", "admin")


async def test_who_has_no_account_cannot_change_its_password(house: House) -> None:
    with pytest.raises(NotFound):
        await house.accounts.change_password(ACTOR, "nobody", PASSWORD, Secret("battery staple"))
