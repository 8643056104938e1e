"""Accounts that end: nothing names the person any more, sums are the same, and nobody comes in by it."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest
from typing_extensions import override

from llmgateway.control.absence import Absence
from llmgateway.control.accounts import FIRST
from llmgateway.control.audit import Actor
from llmgateway.control.erasure import BECOMES, SHELVES, Erasure
from llmgateway.control.ground import Ground
from llmgateway.control.keys import Issued, KeyChanges, NewKey
from llmgateway.control.people import NewUser, UserChanges
from llmgateway.control.projects import NewProject, NewServiceKey, service_user
from llmgateway.domain.errors import Conflict, InvalidRequest, NotAuthenticated, NotFound, StoreUnavailable
from llmgateway.domain.identity import Identity
from llmgateway.domain.limits import Limits
from llmgateway.domain.people import GONE, User
from llmgateway.domain.policy import Grants, KeyRules, Policy, Rule
from llmgateway.domain.ports import Document, Kind, RecordQuery, UsageQuery
from llmgateway.domain.terms import Terms
from llmgateway.jobs import refusals
from llmgateway.portal import federation, sessions
from llmgateway.stores.sqlite import SqliteStore
from tests.control.desk import ANN, PEPPER, Desk
from tests.control.test_accounts import House
from tests.stores.samples import record

ALICE = Actor("user alice", "portal 10.0.0.1", "req-2")
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "audit")
BY_ALL = UsageQuery(by=("key", "model", "project", "day"))
STAFF = Rule(name="staff", every={"a": ("1",)}, grants=Grants(roles=("user",), models=("*",)))


async def used(desk: Desk, issued: Issued, count: int = 5, seed: int = 1) -> None:
    chance = random.Random(seed)
    made = [
        record(chance, desk.clock.at - timedelta(hours=7 * n), user=issued.key.user, key_id=issued.key.id)
        for n in range(count)
    ]
    await desk.store.append(made)


async def alices(desk: Desk, **more: Any) -> Issued:
    """Somebody with all that a person may have here."""
    await desk.control.people.create(
        ANN,
        NewUser(
            id="alice", name="Alice Q", email="alice@example.org", limits=Limits(tokens_per_day=5), **more
        ),
    )
    issued = await desk.control.keys.create(ANN, NewKey(user="alice", name="Alice's laptop"))
    await used(desk, issued)
    return issued


async def everything(desk: Desk) -> str:
    """All that is stored but for the audit log, as text."""
    documents = [one for kind in KINDS for one in (await desk.store.find(kind, {}, limit=1000)).data]
    lines = await desk.store.records(RecordQuery(limit=1000))
    rows = await desk.store.usage(UsageQuery(by=("user", "key", "day")))
    return repr([documents, lines, [row.group for row in rows]])


async def stone(desk: Desk) -> Document:
    (one,) = (await desk.store.find("users", {"state": "gone"}, limit=9)).data
    return one


async def test_nothing_names_the_person_and_all_sums_are_the_same(desk: Desk) -> None:
    desk.configure(terms=Terms(version="1", text="Be kind."))
    issued = await alices(desk)
    house = House(desk)
    house.rules = msgspec.structs.replace(house.rules, is_private=False)
    await desk.store.insert("accounts", {"id": "alice", "revision": 0, "password": "$argon2id$"})
    await desk.control.agreements.accept(ALICE, "alice", "1")
    await desk.control.projects.create(ANN, NewProject(id="lab", responsible="alice"))
    await desk.control.projects.add_member(ANN, "lab", "alice")
    for shelf in SHELVES:
        await desk.shelf.put(shelf, "one", b"of alice's", 60, owner="alice")
    other = await desk.control.keys.create(ANN, NewKey(user="bob", name="k"))
    await used(desk, other, seed=2)
    before = await desk.store.usage(BY_ALL)
    await desk.store.roll_up()
    assert "alice" in await everything(desk)

    await desk.erasure.forget(ALICE, "alice", typed="alice")

    told = await everything(desk)
    assert "alice" not in told.lower()
    assert await desk.store.usage(BY_ALL) == before
    left = await stone(desk)
    assert left["id"].startswith(GONE)
    assert {row.group["user"]: row.requests for row in await desk.store.usage(UsageQuery(by=("user",)))} == {
        "bob": 5, left["id"]: 5,
    }  # fmt: skip
    user = msgspec.convert(left, User)
    bare = User(id=left["id"], created_at=desk.clock.at, state="gone")
    assert user == bare
    key = await desk.control.keys.get(issued.key.id)
    assert (key.state, key.user, key.name, key.hint) == ("revoked", left["id"], "gone", "")
    assert [one.version for one in await desk.control.agreements.of(left["id"])] == ["1"]
    assert (await desk.control.projects.get("lab")).responsible is None
    assert await desk.control.projects.members("lab") == []
    for shelf in SHELVES:
        assert await desk.shelf.owned(shelf, "alice") == {}
    with pytest.raises(NotFound):
        await desk.control.people.get("alice")
    now = desk.clock.at + timedelta(days=1)
    assert await desk.store.differing(now - timedelta(days=9), now) == []


async def test_keys_are_refused_at_once_and_for_good(desk: Desk) -> None:
    issued = await alices(desk)
    await desk.call(issued.token.reveal())
    await desk.erasure.forget(ANN, "alice")
    with pytest.raises(NotAuthenticated):
        await desk.call(issued.token.reveal())
    gone = (await stone(desk))["id"]
    with pytest.raises(Conflict):
        await desk.control.keys.change(ANN, issued.key.id, KeyChanges(state="active"))
    for change in (UserChanges(state="active"), UserChanges(name="A"), UserChanges(roles=["admin"])):
        with pytest.raises(Conflict):
            await desk.control.people.change(ANN, gone, change)
    with pytest.raises(Conflict):
        await desk.control.keys.create(ANN, NewKey(user=gone, name="k"))
    with pytest.raises(Conflict):
        await desk.erasure.forget(ANN, gone)
    with pytest.raises(InvalidRequest):
        await desk.control.people.create(ANN, NewUser(id=f"{GONE}abc"))


async def test_one_line_says_who_did_it_and_the_chain_is_whole(desk: Desk) -> None:
    await alices(desk)
    before = await desk.control.audit.verify()
    with pytest.raises(InvalidRequest):
        await desk.erasure.forget(ALICE, "alice", typed="Alice")
    await desk.erasure.forget(ALICE, "alice", typed="alice")
    lines = (await desk.control.audit.page({"action": "users.forget"}, limit=9)).data
    assert [(one["who"], one["target"], one["result"], one["details"]) for one in lines] == [
        ("user alice", "alice", "ok", {}),
        ("user alice", "alice", "invalid_value", {}),
    ]
    verdict = await desk.control.audit.verify()
    assert (verdict.bad, verdict.lines) == (None, before.lines + 2)
    assert (await stone(desk))["id"] not in repr((await desk.control.audit.page({}, limit=99)).data)


async def test_the_last_administrator_stays(desk: Desk) -> None:
    house = House(desk)
    await house.sign_up("ann")
    with pytest.raises(Conflict, match="only administrator"):
        await desk.erasure.forget(ANN, "ann", typed="ann")
    assert (await desk.control.people.get("ann")).state == "active"
    await desk.control.people.create(ANN, NewUser(id="olga", roles=["admin"]))
    await desk.control.people.change(ANN, "olga", UserChanges(state="suspended"))
    with pytest.raises(Conflict):
        await desk.erasure.forget(ANN, "ann")
    await desk.control.people.change(ANN, "olga", UserChanges(state="active"))
    await desk.erasure.forget(ANN, "ann")
    first = await desk.store.get("accounts", FIRST)
    assert first is not None
    assert first["user"] == (await stone(desk))["id"]
    assert (await house.sign_up("ann")).roles == ("user",)  # nobody becomes an administrator by that
    assert await house.sign_in("ann") == "ann"


async def test_two_administrators_who_go_in_the_same_moment_do_not_both(desk: Desk) -> None:
    for name in ("ann", "olga"):
        await desk.control.people.create(ANN, NewUser(id=name, roles=["user", "admin"]))
    ends = await asyncio.gather(
        *(desk.erasure.forget(ANN, name) for name in ("ann", "olga")), return_exceptions=True
    )
    assert any(isinstance(end, Conflict) for end in ends)
    people, _ = await desk.control.people.page({"state": "active"}, limit=9)
    assert any(user.is_admin for user in people)


async def test_who_comes_again_is_somebody_new(desk: Desk) -> None:
    desk.configure(policy=Policy(rules=(STAFF,)))
    who = Identity(provider="idp", subject="alice", name="Alice Q", attributes={"a": ("1",)})
    await desk.control.enrolment.welcome(ALICE, who)
    old = await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))
    await used(desk, old)
    await desk.erasure.forget(ALICE, "alice")
    gone = (await stone(desk))["id"]
    again = await desk.control.enrolment.welcome(ALICE, who)
    assert (again.id, again.state, again.created_at) == ("alice", "active", desk.clock.at)
    new = await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))
    await used(desk, new, 2, seed=3)
    await used(desk, old, 3, seed=4)  # what a journal has shipped only now, under the name of then
    assert (await desk.erasure.look())["reassigned"] > 0
    assert await desk.erasure.look() == {"finished": 0, "reassigned": 0}
    rows = await desk.store.usage(UsageQuery(by=("user", "key")))
    assert {(row.group["user"], row.group["key"]): row.requests for row in rows} == {
        ("alice", new.key.id): 2, (gone, old.key.id): 8,
    }  # fmt: skip
    imposter = msgspec.structs.replace(who, subject=gone)
    with pytest.raises(Conflict):
        await desk.control.enrolment.welcome(ALICE, imposter)
    await desk.erasure.forget(ALICE, "alice")  # a second time: another pseudonym, and none of the first's
    rows = await desk.store.usage(UsageQuery(by=("user",)))
    assert sorted(row.requests for row in rows) == [2, 8]
    assert "alice" not in {row.group["user"] for row in rows}


async def test_late_records_of_long_ago_are_looked_for_once_a_day(desk: Desk) -> None:
    issued = await alices(desk)
    await desk.erasure.forget(ANN, "alice")
    desk.clock.pass_seconds(3 * 86_400)
    await used(desk, issued, 1, seed=9)
    assert (await desk.erasure.look())["reassigned"] == 0
    assert (await desk.erasure.look(None))["reassigned"] == 1
    assert "alice" not in (await everything(desk)).lower()


async def test_what_was_cut_off_is_gone_on_with(desk: Desk) -> None:
    issued = await alices(desk)
    document = await desk.store.get("users", "alice")
    assert document is not None
    going = {"state": "gone", BECOMES: f"{GONE}1", "gone_since": desk.clock.at, "revision": 1}
    await desk.store.replace("users", document | going)
    with pytest.raises(NotAuthenticated):
        await desk.call(issued.token.reveal())
    with pytest.raises(Conflict):
        await desk.erasure.forget(ANN, "alice")
    assert (await desk.erasure.look())["finished"] == 0  # somebody may be at it
    desk.clock.pass_seconds(121)
    assert (await desk.erasure.look())["finished"] == 1
    assert "alice" not in (await everything(desk)).lower()
    assert (await stone(desk))["id"] == f"{GONE}1"


class Unsteady(SqliteStore):
    """The same file, but one question in turn is not answered."""

    def __init__(self, store: SqliteStore, answers: int) -> None:
        super().__init__(store.file)
        self.answers = answers

    def _count(self) -> None:
        self.answers -= 1
        if self.answers == -1:
            raise StoreUnavailable("The file is locked.")

    @override
    async def get(self, kind: Kind, id: str) -> Document | None:
        self._count()
        return await super().get(kind, id)

    @override
    async def insert(self, kind: Kind, document: Document) -> None:
        self._count()
        await super().insert(kind, document)

    @override
    async def replace(self, kind: Kind, document: Document) -> None:
        self._count()
        await super().replace(kind, document)

    @override
    async def delete(self, kind: Kind, id: str) -> bool:
        self._count()
        return await super().delete(kind, id)

    @override
    async def reassign(self, keys: Sequence[str], user: str) -> int:
        self._count()
        return await super().reassign(keys, user)


async def test_wherever_it_is_cut_off_the_end_is_the_same(desk: Desk) -> None:
    ended = 0
    for number in range(20):
        name = f"person{number:02}"
        issued = await desk.control.keys.create(ANN, NewKey(user=name, name=name))
        await desk.store.insert("accounts", {"id": name, "revision": 0, "password": name})
        await used(desk, issued, 2, seed=number)
        store = Unsteady(desk.store, number)
        ground = Ground(store=store, state=desk.state, clock=desk.clock, audit=desk.control.audit,
                        configured=lambda: desk.configuration, pepper=PEPPER)  # fmt: skip
        with contextlib.suppress(StoreUnavailable):
            await Erasure(ground, store, desk.shelf).forget(ANN, name)
        document = await desk.store.get("users", name)
        desk.clock.pass_seconds(121)
        await desk.erasure.look()
        if document is not None and document["state"] == "active":  # nothing was begun
            assert (await desk.call(issued.token.reveal())).user == name
            continue
        ended += 1
        assert name not in await everything(desk)
    assert ended >= 17
    rows = await desk.store.usage(UsageQuery(by=("user",)))
    assert [row.requests for row in rows] == [2] * 20


async def test_projects_keys_belong_to_nobody_who_could_end(desk: Desk) -> None:
    await desk.control.projects.create(ANN, NewProject(id="lab"))
    await desk.control.projects.create_key(ANN, "lab", NewServiceKey(name="k"))
    with pytest.raises(Conflict):
        await desk.erasure.forget(ANN, service_user("lab"))
    with pytest.raises(NotFound):
        await desk.erasure.forget(ANN, "nobody")


async def test_who_is_gone_is_not_missed(desk: Desk) -> None:
    await alices(desk)
    await desk.erasure.forget(ANN, "alice")
    desk.clock.pass_seconds(400 * 86_400)
    absence = Absence(desk.store, desk.state, desk.control.audit, desk.clock)
    assert await absence.look(KeyRules(sign_in_within=1)) == {"warned": 0, "suspended": 0, "resumed": 0}


def test_the_shelves_are_those_that_users_own() -> None:
    assert {sessions.SHELF, refusals.SHELF, federation.NAMED} == set(SHELVES)
