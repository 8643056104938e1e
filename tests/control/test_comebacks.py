"""Whoever ends an account and comes back in the same month goes on with the same budgets and limits."""

import hashlib
from datetime import timedelta

import pytest

from llmgateway.control.comebacks import Comebacks
from llmgateway.control.people import NewUser, UserChanges
from llmgateway.control.used import used_by, used_by_all
from llmgateway.domain.book import LimitBook
from llmgateway.domain.call import Record, Tokens
from llmgateway.domain.errors import OverLimit
from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.domain.people import GONE
from llmgateway.domain.periods import Calendar
from llmgateway.jobs.compare import Comparison
from llmgateway.stores.limits.memory_limiter import MemoryLimiter
from tests.control.desk import ANN, Desk
from tests.control.test_enrol import ALICE, Door

CALENDAR = Calendar("UTC")


class Limited:
    """A desk whose calls are limited by what the ledger says."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.calls = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """As after a restart."""
        known_as = self.desk.control.comebacks.known_as
        self.limiter = MemoryLimiter(
            used_by(self.desk.store, lambda model: (model,), known_as), clock=self.desk.clock
        )
        used = used_by_all(self.desk.store, lambda model: (model,), known_as)
        self.comparison = Comparison(self.limiter.sums, used, lambda: CALENDAR, self.desk.clock, pause=0.001)

    async def lets_in(self, user_id: str, tokens: int) -> bool:
        now, user = self.desk.clock.now(), await self.desk.control.people.get(user_id)
        (key, *_), _ = await self.desk.control.keys.page({"user": user_id, "state": "active"}, limit=1)
        scope = Scope("user", user_id, LimitBook().user_limits(user_id, user.limits))
        self.calls += 1
        id = f"call{self.calls}"
        try:
            await self.limiter.reserve(Claim(id, (scope,), tokens, 0, CALENDAR.period_of(now)))
        except OverLimit:
            return False
        self.limiter.settle(id, tokens, 0)
        used = Record(
            id=id, request_id="r", at=now, ended_at=now, key_id=key.id, user=user_id, price_id="p", model="m",
            endpoint="/v1/chat/completions", outcome="completed", tokens=Tokens(tokens, 0),
        )  # fmt: skip
        await self.desk.store.append([used])
        return True

    async def compares(self) -> int:
        self.desk.clock.pass_seconds(1)
        return (await self.comparison.work())["healed"]


async def test_a_budget_does_not_begin_anew_with_the_account(desk: Desk) -> None:
    """Neither where it is counted, nor where the count is compared with the ledger, nor after a restart."""
    door, limited = Door(desk), Limited(desk)
    await door.comes("employee")  # the policy gives 100 tokens a day
    await door.key()
    assert await limited.lets_in(ALICE, 30)
    for turn in range(2):
        await desk.erasure.forget(ANN, ALICE)
        await door.comes("employee")
        await door.key()
        assert await limited.compares() == 0
        limited.begin_anew()
        assert not await limited.lets_in(ALICE, 71 - 30 * turn)
        assert await limited.lets_in(ALICE, 30)
    assert not await limited.lets_in(ALICE, 30)
    assert await limited.compares() == 0


async def test_it_does_with_the_month_and_then_nothing_is_kept(desk: Desk) -> None:
    door, limited = Door(desk), Limited(desk)
    await door.comes("employee")
    await door.key()
    assert await limited.lets_in(ALICE, 100)
    await desk.control.people.change(ANN, ALICE, UserChanges(limits=Limits(tokens_per_day=1)))
    await desk.erasure.forget(ANN, ALICE)
    (kept,) = (await desk.store.find("comebacks", {}, limit=9)).data
    assert kept["until"] == CALENDAR.period_of(desk.clock.now()).month_end
    desk.clock.move(timedelta(days=20))
    assert await desk.control.comebacks.held(ALICE) == {}
    assert await desk.control.comebacks.known_as([ALICE]) == {}
    assert await desk.control.comebacks.known_as([ALICE, "bob"]) == {}
    await desk.erasure.look()
    assert (await desk.store.find("comebacks", {}, limit=9)).data == []
    assert (await door.comes("employee")).limits == Limits(tokens_per_day=100)


HELD_BACK = (UserChanges(limits=Limits(tokens_per_day=1)), UserChanges(models=["org/embed"]))


@pytest.mark.parametrize("changes", HELD_BACK, ids=["limits", "models"])
async def test_what_an_operator_set_stays_set(desk: Desk, changes: UserChanges) -> None:
    door = Door(desk)
    await door.comes("employee")
    before = await desk.control.people.change(ANN, ALICE, changes)
    assert len(before.by_hand) == 1
    for _ in range(2):
        await desk.erasure.forget(ANN, ALICE)
        after = await door.comes("employee")
        assert (after.limits, after.models, after.by_hand) == (before.limits, before.models, before.by_hand)


async def test_what_the_policy_gave_is_given_anew(desk: Desk) -> None:
    door = Door(desk)
    before = await door.comes("employee")
    await desk.erasure.forget(ANN, ALICE)
    after = await door.comes("employee")
    assert (after.limits, after.models, after.by_hand) == (before.limits, before.models, ())


async def test_local_accounts_are_held_back_too_unless_somebody_says_otherwise(desk: Desk) -> None:
    people, tight = desk.control.people, Limits(tokens_per_day=5)
    await people.create(ANN, NewUser(id="bob", limits=tight))
    await desk.erasure.forget(ANN, "bob")
    assert (await people.ensure(ANN, "bob")).limits == tight
    assert (await people.get("bob")).limits == tight
    await desk.erasure.forget(ANN, "bob")
    loose = Limits(tokens_per_day=500)
    assert (await people.create(ANN, NewUser(id="bob", limits=loose))).limits == loose
    assert (await people.create(ANN, NewUser(id="eve"))).limits == Limits()


async def test_whose_it_is_only_the_pepper_tells(desk: Desk) -> None:
    await desk.control.people.create(ANN, NewUser(id="bob", name="Bob B", email="b@example.org"))
    await desk.erasure.forget(ANN, "bob")
    (kept,) = (await desk.store.find("comebacks", {}, limit=9)).data
    assert set(kept) == {"id", "revision", "until", "names", "held"}
    assert "bob" not in repr(kept).lower()
    assert kept["id"] != hashlib.sha256(b"bob").hexdigest()
    (name,) = kept["names"]
    assert name.startswith(GONE)
    assert await desk.control.comebacks.known_as(["bob", "eve"]) == {"bob": [name]}
    for pepper in (b"another" * 8, None):
        other = Comebacks(desk.store, desk.clock, pepper, lambda: desk.configuration)
        assert await other.known_as(["bob"]) == {}
        assert await other.held("bob") == {}
