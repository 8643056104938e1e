"""People who stay away: warned once, suspended with all keys, let in again at the next sign-in."""

from datetime import timedelta

import pytest

from llmgateway.control.absence import Absence, due_at
from llmgateway.control.audit import Actor
from llmgateway.control.keys import Issued, KeyChanges, NewKey
from llmgateway.domain.errors import NotAllowed, NotAuthenticated, StoreUnavailable
from llmgateway.domain.identity import Identity
from llmgateway.domain.policy import Grants, KeyRules, Policy, Rule
from tests.control.desk import ANN, Desk

DOOR = Actor("nobody", "saml")
RULES = KeyRules(sign_in_within=90, warn=14)
STAFF = Rule(name="staff", every={"a": ("1",)}, grants=Grants(roles=("user",), models=("*",)))
DAY = 86_400


async def comes(desk: Desk, subject: str = "alice", value: str = "1") -> None:
    desk.configure(policy=Policy(rules=(STAFF,)))
    who = Identity(provider="idp", subject=subject, attributes={"a": (value,)})
    await desk.control.enrolment.welcome(DOOR, who)


async def key_of(desk: Desk, user: str = "alice") -> Issued:
    return await desk.control.keys.create(ANN, NewKey(user=user, name="k"))


async def look(desk: Desk, rules: KeyRules = RULES) -> tuple[int, int, int]:
    done = await Absence(desk.store, desk.state, desk.control.audit, desk.clock).look(rules)
    return done["warned"], done["suspended"], done["resumed"]


async def passes(desk: Desk, key: Issued) -> bool:
    try:
        await desk.call(key.token.reveal())
    except NotAuthenticated:
        return False
    return True


async def lines(desk: Desk, action: str) -> list[str]:
    return [line["target"] for line in (await desk.control.audit.page({"action": action}, limit=100)).data]


async def test_warned_once_then_suspended_then_back_at_the_next_sign_in(desk: Desk) -> None:
    await comes(desk)
    key, by_hand = await key_of(desk), await key_of(desk)
    await desk.control.keys.change(ANN, by_hand.key.id, KeyChanges(state="suspended"))
    assert await look(desk) == (0, 0, 0)
    desk.clock.pass_seconds(76 * DAY)
    assert [await look(desk), await look(desk)] == [(1, 0, 0), (0, 0, 0)]
    assert await passes(desk, key)
    desk.clock.pass_seconds(14 * DAY - 1)
    assert await look(desk) == (0, 0, 0)
    desk.clock.pass_seconds(1)
    assert [await look(desk), await look(desk)] == [(0, 1, 0), (0, 0, 0)]
    assert not await passes(desk, key)
    assert (await desk.control.people.get("alice")).lapsed == "absent"
    await comes(desk)
    assert await passes(desk, key)
    assert not await passes(desk, by_hand)
    assert await lines(desk, "users.sign_in_due") == await lines(desk, "users.lapse") == ["alice"]
    desk.clock.pass_seconds(80 * DAY)
    assert await look(desk) == (1, 0, 0)  # of another absence another warning
    assert (await desk.control.audit.verify()).bad is None


async def test_nobody_is_shut_out_without_a_line_that_says_so(desk: Desk) -> None:
    await comes(desk)
    key = await key_of(desk)
    desk.clock.pass_seconds(90 * DAY)
    await desk.store.insert("audit", {"id": "damaged", "revision": 0, "at": desk.clock.now()})
    with pytest.raises(StoreUnavailable):
        await look(desk)
    assert (await desk.control.people.get("alice")).lapsed is None
    assert await desk.store.delete("audit", "damaged")
    assert await look(desk) == (0, 1, 0)
    assert not await passes(desk, key)


async def test_who_has_no_keys_need_not_be_warned(desk: Desk) -> None:
    await comes(desk)
    desk.clock.pass_seconds(80 * DAY)
    assert await look(desk) == (0, 0, 0)
    await key_of(desk)
    assert await look(desk, KeyRules(sign_in_within=90, warn=0)) == (0, 0, 0)
    assert await look(desk) == (1, 0, 0)


async def test_it_concerns_nobody_else(desk: Desk) -> None:
    key = await key_of(desk, "service")
    desk.clock.pass_seconds(1000 * DAY)
    assert await look(desk) == (0, 0, 0)
    assert await passes(desk, key)


async def test_milder_rules_let_people_in_again(desk: Desk) -> None:
    await comes(desk)
    key = await key_of(desk)
    desk.clock.pass_seconds(95 * DAY)
    assert await look(desk) == (0, 1, 0)
    assert await look(desk, KeyRules(sign_in_within=100)) == (0, 0, 1)
    assert await passes(desk, key)
    assert await look(desk) == (0, 1, 0)
    assert await look(desk, KeyRules()) == (0, 0, 1)
    assert await passes(desk, key)


async def test_whom_the_policy_denies_stays_denied(desk: Desk) -> None:
    await comes(desk)
    with pytest.raises(NotAllowed):
        await comes(desk, value="2")
    desk.clock.pass_seconds(100 * DAY)
    assert [await look(desk), await look(desk, KeyRules())] == [(0, 0, 0), (0, 0, 0)]
    assert (await desk.control.people.get("alice")).lapsed == "denied"


async def test_until_when(desk: Desk) -> None:
    await comes(desk)
    alice = await desk.control.people.get("alice")
    assert due_at(alice, RULES) == desk.clock.at + timedelta(days=90)
    assert due_at(alice, KeyRules()) is None
    await key_of(desk, "service")
    assert due_at(await desk.control.people.get("service"), RULES) is None
