"""The first page: steps for who is new, and figures for who is not."""

import random
from datetime import timedelta

from msgspec import structs

from llmgateway.control.keys import NewKey
from llmgateway.domain.call import Tokens
from llmgateway.domain.limits import Limits, Scope, Standing
from llmgateway.domain.refusals import Refusal
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal, charted
from tests.stores.samples import record


async def used(portal: Portal, user: str, model: str, days_ago: int = 0, **changes: object) -> str:
    """One request; its id."""
    at = portal.desk.clock.now() - timedelta(days=days_ago, minutes=1)
    fields = {
        "outcome": "completed",
        "status": 200,
        "tokens": Tokens(prompt=100, completion=23),
        "cost": 5_000,
    }
    one = record(random.Random(model), at, user=user, model=model, **(fields | changes))
    await portal.desk.store.append([one])
    return one.request_id


async def test_who_has_no_key_is_shown_the_first_steps(alice: Browser) -> None:
    await alice.get("/portal")
    assert "First steps" in alice.page
    assert "http://127.0.0.1:8080/v1" in alice.page


async def test_figures_of_the_month_are_ones_own(alice: Browser, portal: Portal) -> None:
    await portal.desk.control.keys.create(ANN, NewKey(user="alice", name="laptop"))
    await used(portal, "alice", "qwen3-32b", id="a")
    await used(portal, "alice", "org/embed", days_ago=3, id="b")
    await used(portal, "bob", "bobs-model", id="c")
    await alice.get("/portal")
    assert "First steps" not in alice.page
    assert "<dd>2</dd>" in alice.page
    assert "<dd>246</dd>" in alice.page
    assert "€0.0100" in alice.page
    assert "bobs-model" not in alice.page
    drawn = charted(alice.page)
    assert (drawn["qwen3-32b"]["20 Nov"], drawn["org/embed"]["17 Nov"]) == (123, 123)


async def test_limits_say_what_is_left(alice: Browser, portal: Portal) -> None:
    await alice.get("/portal")
    assert "Nothing limits what you use." in alice.page
    scope = Scope("user", "alice", Limits(tokens_per_day=1000, cost_per_month=2_000_000))
    portal.limits = [
        Standing(scope, "tokens_per_day", 1000, 900, 60.0),
        Standing(scope, "cost_per_month", 2_000_000, 500_000, 60.0),
        Standing(scope, "requests_per_minute", 0, 0, 0.0),
    ]
    await alice.get("/portal")
    assert "100 left of 1,000" in alice.page
    assert "€1.50 left of €2.00" in alice.page
    assert 'max="1000" high="800.0" optimum="0" value="900"' in alice.page


async def test_without_the_counters_the_rest_is_shown(alice: Browser, portal: Portal) -> None:
    portal.limits = None
    assert (await alice.get("/portal")).status_code == 200
    assert "How they stand cannot be told right now." in alice.page
    assert "This month" in alice.page


async def test_what_failed_lately(alice: Browser, portal: Portal) -> None:
    await alice.get("/portal")
    assert "Nothing. All is well." in alice.page
    await used(portal, "alice", "qwen3-32b", id="a", outcome="completed")
    failed = await used(portal, "alice", "broken", id="b", outcome="upstream_error", status=502)
    await alice.get("/portal")
    assert "The model server failed" in alice.page
    assert failed in alice.page


async def test_a_key_that_expires_soon_is_announced(alice: Browser, portal: Portal) -> None:
    expires_at = portal.desk.clock.now() + timedelta(days=5)
    await portal.desk.control.keys.create(ANN, NewKey(user="alice", name="old one", expires_at=expires_at))
    await alice.get("/portal")
    assert "The key “old one” expires on" in alice.page


async def test_what_was_refused_says_why_and_what_to_do(alice: Browser, portal: Portal) -> None:
    at = portal.desk.clock.now() - timedelta(minutes=3)
    spent = Refusal(
        at=at, status=429, code="insufficient_quota", message="Limit of <b> spent.", request_id="r1", key="k"
    )
    odd = structs.replace(spent, code="unknown", message="Odd.")
    portal.refusals = {"alice": [spent, odd], "bob": [spent]}
    await alice.get("/portal")
    said = ("3 minutes ago", "Limit of &lt;b&gt; spent.", "The budget is spent", "Put the request right")
    for text in said:
        assert text in alice.page, text
    portal.refusals = {}
    await alice.get("/portal")
    assert "The budget is spent" not in alice.page
    portal.limits = None
    await alice.get("/portal")
    assert "That cannot be told right now." in alice.page
