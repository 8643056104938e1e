"""Signing in with an identity provider: grants and withdrawals, what was set by hand, who is refused."""

import asyncio
from typing import Any

import pytest

from llmgateway.control.audit import Actor
from llmgateway.control.keys import Issued, KeyChanges, NewKey
from llmgateway.control.people import NewUser, UserChanges
from llmgateway.domain.book import LimitBook
from llmgateway.domain.errors import Conflict, InvalidRequest, NotAllowed, NotAuthenticated
from llmgateway.domain.identity import Identity
from llmgateway.domain.limits import Limits
from llmgateway.domain.people import User
from llmgateway.domain.policy import Grants, Policy, Rule
from tests.control.desk import ANN, Desk

IDP, OTHER = "https://idp.example.org/", "https://idp.example.net/"
ALICE = "alice@example.org"
DOOR = Actor("nobody", "saml 10.0.0.1", "req-2")
POLICY = Policy(
    rules=(
        Rule(
            name="staff", every={"affiliation": ("employee",)},
            grants=Grants(roles=("user",), project="campus", models=("default",),
                          limits=Limits(tokens_per_day=100)),
        ),
        Rule(
            name="admins", every={"groups": ("llm-admins",)},
            grants=Grants(roles=("user", "admin"), models=("*",)),
        ),
    )
)  # fmt: skip


class Door:
    """A desk with the policy, and people who come."""

    def __init__(self, desk: Desk) -> None:
        desk.configure(policy=POLICY)
        self.desk = desk

    async def comes(self, *affiliations: str, groups: tuple[str, ...] = (), **identity: Any) -> User:
        who = {"provider": IDP, "subject": ALICE, "name": "Alice", "email": "a@example.org"}
        attributes = {"affiliation": affiliations, "groups": groups}
        given = Identity(**{**who, "attributes": attributes, **identity})
        return await self.desk.control.enrolment.welcome(DOOR, given)

    async def is_refused(self, *affiliations: str, **identity: Any) -> str:
        with pytest.raises((NotAllowed, Conflict, InvalidRequest)) as refused:
            await self.comes(*affiliations, **identity)
        return refused.value.code

    async def key(self, **wishes: Any) -> Issued:
        return await self.desk.control.keys.create(ANN, NewKey(user=ALICE, name="k", **wishes))

    async def passes(self, key: Issued) -> bool:
        try:
            await self.desk.call(key.token.reveal())
        except NotAuthenticated:
            return False
        return True

    async def lines(self, action: str) -> list[dict[str, Any]]:
        page = await self.desk.control.audit.page({"action": action}, limit=100)
        return list(reversed(page.data))


@pytest.fixture
def door(desk: Desk) -> Door:
    return Door(desk)


async def test_the_first_sign_in_makes_the_user(door: Door) -> None:
    alice = await door.comes("member", "employee")
    assert (alice.id, alice.name, alice.email, alice.provider) == (ALICE, "Alice", "a@example.org", IDP)
    assert (alice.roles, alice.project) == (("user",), "campus")
    assert (alice.models, alice.limits) == (("qwen3-32b",), Limits(tokens_per_day=100))  # an alias's model
    assert alice.is_active
    assert alice.signed_in_at == door.desk.clock.at
    assert [grant.what for grant in alice.grants] == ["role", "project", "model", "limit"]
    assert {grant.rule for grant in alice.grants} == {"staff"}
    assert await door.desk.control.people.get(ALICE) == alice
    (line,) = await door.lines("users.sign_in")
    assert (line["who"], line["source"], line["result"]) == ("nobody", "saml 10.0.0.1", "ok")
    assert (line["details"]["rules"], line["details"]["provider"]) == (["staff"], IDP)


async def test_s_saml_22_who_is_given_no_role_is_refused_and_nothing_is_kept(door: Door) -> None:
    for affiliations in ((), ("student",), ("employee2",), ("Employee",), ("",)):
        assert await door.is_refused(*affiliations) == "not_entitled"
    assert await door.desk.store.get("users", ALICE) is None
    assert {line["result"] for line in await door.lines("users.sign_in")} == {"not_entitled"}


@pytest.mark.parametrize("subject", ["", "  ", "a" * 201, "a\nb", "x/..", "x/"])
async def test_s_saml_22_a_subject_that_names_nobody_is_refused(door: Door, subject: str) -> None:
    assert await door.is_refused("employee", subject=subject) == "invalid_value"


async def test_without_rules_nobody_is_admitted(door: Door) -> None:
    door.desk.configure(policy=Policy())
    assert await door.is_refused("employee") == "not_entitled"


async def test_every_sign_in_grants_and_withdraws(door: Door) -> None:
    await door.comes("employee")
    key = await door.key()
    assert (await door.desk.call(key.token.reveal())).models == frozenset({"qwen3-32b"})
    both = await door.comes("employee", groups=("llm-admins",))
    assert (both.roles, both.models, both.project) == (("user", "admin"), None, "campus")
    assert (await door.desk.call(key.token.reveal())).roles == ("user", "admin")
    admin = await door.comes(groups=("llm-admins",))
    assert (admin.project, admin.limits) == (None, Limits())
    staff = await door.comes("employee")
    assert (staff.roles, staff.models) == (("user",), ("qwen3-32b",))
    principal = await door.desk.call(key.token.reveal())
    assert (principal.roles, principal.user_limits) == (("user",), Limits(tokens_per_day=100))
    last = (await door.lines("users.sign_in"))[-1]
    gone: dict[str, object] = {"roles": ["user", "admin"], "project": None, "limits": {}, "models": None}
    assert last["details"]["before"] == gone


async def test_who_lost_the_entitlement_loses_all_keys_until_it_is_back(door: Door) -> None:
    await door.comes("employee")
    key, by_hand = await door.key(), await door.key()
    await door.desk.control.keys.change(ANN, by_hand.key.id, KeyChanges(state="suspended"))
    assert await door.passes(key)
    assert await door.is_refused("student") == "not_entitled"
    assert not await door.passes(key)
    alice = await door.desk.control.people.get(ALICE)
    assert (alice.lapsed, alice.state, alice.is_active, alice.roles) == ("denied", "active", False, ())
    with pytest.raises(Conflict):
        await door.key()
    assert [line["details"] for line in await door.lines("users.lapse")] == [{"why": "denied"}]
    assert (await door.comes("employee")).is_active
    assert await door.passes(key)
    assert not await door.passes(by_hand)


async def test_a_sign_in_that_changes_nothing_leaves_caches_alone(door: Door) -> None:
    await door.comes("employee")
    await door.key()
    door.desk.state.announced.clear()
    door.desk.clock.pass_seconds(3600)
    alice = await door.comes("employee", name="Alice B.")
    assert (alice.signed_in_at, alice.name) == (door.desk.clock.at, "Alice B.")
    assert door.desk.state.announced == []


async def test_what_an_operator_set_by_hand_stays_until_it_is_given_back(door: Door) -> None:
    await door.comes("employee")
    people = door.desk.control.people
    hand = UserChanges(roles=["user", "operator"], limits=Limits(tokens_per_day=7), name="Ali")
    assert (await people.change(ANN, ALICE, hand)).by_hand == ("roles", "limits")
    alice = await door.comes(groups=("llm-admins",))
    assert (alice.roles, alice.limits) == (("user", "operator"), Limits(tokens_per_day=7))
    assert (alice.project, alice.models, alice.name) == (None, None, "Alice")
    back = await people.change(ANN, ALICE, UserChanges(roles=None))
    assert (back.roles, back.by_hand) == (("user", "admin"), ("limits",))
    assert (await door.comes("employee")).roles == ("user",)
    free = await people.change(ANN, ALICE, UserChanges(models=["*"], limits=None))
    assert (free.models, free.limits, free.by_hand) == (None, Limits(tokens_per_day=100), ("models",))
    assert (await door.comes("employee")).models is None
    assert await door.is_refused("student") == "not_entitled"  # that is no matter of grants


async def test_what_was_prepared_by_hand_counts_as_such(door: Door) -> None:
    await door.desk.control.people.create(ANN, NewUser(id=ALICE, roles=["user", "admin"]))
    alice = await door.comes("employee")
    assert (alice.roles, alice.by_hand, alice.project) == (("user", "admin"), ("roles",), "campus")


async def test_limits_that_the_settings_give_a_person_go_before_a_rules(door: Door) -> None:
    door.desk.configure(limits=LimitBook(users={ALICE: Limits(tokens_per_day=3)}))
    assert (await door.comes("employee")).limits == Limits()


async def test_who_is_suspended_by_hand_stays_out(door: Door) -> None:
    await door.comes("employee")
    await door.desk.control.people.change(ANN, ALICE, UserChanges(state="suspended"))
    assert await door.is_refused("employee", groups=("llm-admins",)) == "suspended"
    assert [line["result"] for line in await door.lines("users.sign_in")] == ["ok", "suspended"]
    alice = await door.desk.control.people.get(ALICE)
    assert (alice.state, alice.roles) == ("suspended", ("user", "admin"))


async def test_nobody_gets_in_as_somebody_of_another_provider(door: Door) -> None:
    await door.comes("employee")
    assert await door.is_refused("employee", groups=("llm-admins",), provider=OTHER) == "name_taken"
    assert (await door.desk.control.people.get(ALICE)).roles == ("user",)
    await door.desk.control.people.change(ANN, ALICE, UserChanges(provider=None))
    assert (await door.comes("employee", provider=OTHER)).provider == OTHER


async def test_of_two_who_come_at_once_with_one_name_one_gets_in(door: Door) -> None:
    """Each of them had found nobody of that name."""

    async def comes(provider: str) -> str:
        try:
            return (await door.comes("employee", provider=provider)).provider or ""
        except Conflict as error:
            return error.code

    told = await asyncio.gather(comes(IDP), comes(OTHER))
    user = await door.desk.control.people.get(ALICE)
    assert sorted(told) == sorted([str(user.provider), "name_taken"])


async def test_nobody_gets_in_as_somebody_with_a_local_account(door: Door) -> None:
    account = {"id": ALICE, "revision": 0, "password": "x", "created_at": door.desk.clock.at}
    await door.desk.store.insert("accounts", account)
    assert await door.is_refused("employee") == "name_taken"


async def test_who_is_denied_takes_nothing_from_somebody_of_another_provider(door: Door) -> None:
    await door.comes("employee")
    key = await door.key()
    assert await door.is_refused("guest", provider=OTHER) == "name_taken"
    assert await door.passes(key)


@pytest.mark.parametrize("name", ["service:thesis", "gone:0123456789ab"])
async def test_nobody_gets_in_as_a_project_or_an_ended_account(door: Door, name: str) -> None:
    assert await door.is_refused("employee", subject=name) == "name_taken"


async def test_a_form_that_says_again_what_is_so_takes_nothing_over(door: Door) -> None:
    await door.comes("employee")
    same = UserChanges(roles=["user"], project="campus", limits=Limits(tokens_per_day=100))
    assert (await door.desk.control.people.change(ANN, ALICE, same)).by_hand == ()


async def test_whom_a_rule_puts_into_a_project_no_hand_takes_out(door: Door) -> None:
    await door.comes("employee")
    with pytest.raises(Conflict, match="a rule has to change"):
        await door.desk.control.projects.remove_member(ANN, "campus", ALICE)


async def test_whom_an_operator_takes_over_is_let_in_by_the_policy_no_more_and_no_less(door: Door) -> None:
    await door.comes("employee")
    key = await door.key()
    await door.is_refused("student")
    taken = await door.desk.control.people.change(ANN, ALICE, UserChanges(provider=None, roles=["user"]))
    assert (taken.lapsed, taken.provider) == (None, None)
    assert await door.passes(key)


async def test_many_first_sign_ins_at_once_make_one_user(door: Door) -> None:
    found = await asyncio.gather(*(door.comes("employee") for _ in range(8)))
    assert {user.id for user in found} == {ALICE}
    assert (await door.desk.control.audit.verify()).bad is None


async def test_names_that_cannot_be_shown_are_cleaned(door: Door) -> None:
    alice = await door.comes("employee", name=" A\x00l\u202eice " + "x" * 200, email="\n")
    assert alice.name is not None
    assert (alice.name[:5], len(alice.name), alice.email) == ("Alice", 100, None)


async def test_what_a_later_version_says_against_somebody_a_sign_in_does_not_lift(door: Door) -> None:
    await door.comes("employee")
    for changes in ({"lapsed": "expelled"}, {"lapsed": None, "state": "hibernating"}):
        stored = await door.desk.store.get("users", ALICE)
        assert stored is not None
        await door.desk.store.replace("users", {**stored, **changes, "revision": stored["revision"] + 1})
        assert await door.is_refused("employee") == "suspended"
        kept = await door.desk.store.get("users", ALICE)
        assert kept is not None
        assert {name: kept[name] for name in changes} == changes
