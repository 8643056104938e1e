"""Limits of every scope: listed with how they stand, put, and put back."""

import pytest

from llmgateway.control.keys import NewKey
from llmgateway.control.limits import Subject
from llmgateway.control.people import NewUser
from llmgateway.domain.book import LimitBook
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.limits import Limits, Scope, Standing
from llmgateway.portal.form import Form
from llmgateway.portal.operators.limits import limits_in
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal

LIMITS = "/portal/operators/limits"
FEW = Limits(tokens_per_day=1000, cost_per_month=2_500_000)


async def test_all_that_is_set_and_how_it_stands(ann: Browser, portal: Portal) -> None:
    await ann.get(LIMITS)
    assert "No limits are set" in ann.page
    portal.desk.configure(limits=LimitBook(default=FEW, models={"org/embed": FEW}))
    await portal.desk.control.limits.put(ANN, Subject("project", "thesis"), FEW)
    portal.limits = [Standing(Scope("project", "thesis", FEW), "tokens_per_day", 1000, 990, 7200.0)]
    await ann.get(LIMITS)
    for text in (
        "Everybody",
        "Tokens per day: 1,000 · Cost per month: €2.50",
        ">990<",
        "in 2 hours",
        "org/embed",
    ):
        assert text in ann.page, text
    assert {(scope.kind, scope.id) for scope in portal.asked_scopes} == {
        ("model", "org/embed"), ("project", "thesis")}  # fmt: skip
    await ann.get(f"{LIMITS}?scope=project")
    assert "org/embed" not in ann.page
    assert "thesis" in ann.page
    portal.limits = None
    await ann.get(LIMITS)
    assert "How they stand cannot be told right now." in ann.page


@pytest.mark.parametrize("scope", ["user", "project", "model", "key", "default"])
async def test_every_scope_is_changed_and_put_back(ann: Browser, portal: Portal, scope: str) -> None:
    control = portal.desk.control
    await control.people.create(ANN, NewUser(id="aino"))
    key = (await control.keys.create(ANN, NewKey(user="aino", name="k"))).key.id
    id = {"user": "aino", "project": "thesis", "model": "org/embed", "key": key, "default": "default"}[scope]
    answer = await ann.get(f"{LIMITS}/find?scope={scope}&id={id}")
    path = answer.headers["location"]
    assert path == f"{LIMITS}/{scope}/{id}"
    assert (await ann.get(path)).status_code == 200
    fields = {"tokens_per_day": "1 000", "cost_per_month": "2,5", "concurrent_requests": "0"}
    assert (await ann.post(path, fields)).headers["location"] == f"{path}?said=limits"
    subject = Subject(scope, id)  # type: ignore[arg-type]
    expected = Limits(tokens_per_day=1000, cost_per_month=2_500_000, concurrent_requests=0)
    assert (await control.limits.get(subject)).limits == expected
    await ann.get(path)
    assert 'name="cost_per_month" type="text" value="2.5"' in ann.page
    await ann.post(f"/portal/operators/limit-reset/{scope}/{id}")
    assert (await control.limits.get(subject)).limits == Limits()
    lines = (await control.audit.page({"result": "ok"}, limit=2, after=None)).data
    assert len(lines) == 2
    assert {line["who"] for line in lines} == {"user ann"}


async def test_what_is_wrong_is_said_at_its_field(ann: Browser) -> None:
    path = f"{LIMITS}/user/aino"
    for fields in ({"tokens_per_day": "many", "cost_per_month": ""}, {"cost_per_month": "-1"},
                   {"cost_per_month": "1.2345678"}, {"tokens_per_day": "-5"}):  # fmt: skip
        await ann.get(path)
        assert (await ann.post(path, fields)).status_code == 422, fields
        assert 'aria-invalid="true"' in ann.page
    for gone in (f"{LIMITS}/team/x", f"{LIMITS}/key/nokey"):
        assert (await ann.get(gone)).status_code == 404
    for wrong in ("?scope=team&id=x", "?scope=user&id="):
        assert (await ann.get(f"{LIMITS}/find{wrong}")).headers["location"] == LIMITS


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("", None),
        ("0", 0),
        ("25", 25_000_000),
        ("12.50", 12_500_000),
        ("0,000001", 1),
        ("1 000", 1_000_000_000),
    ],
)
def test_money_as_people_write_it(written: str, micros: int | None) -> None:
    assert limits_in(Form([("cost_per_month", written)])).cost_per_month == micros


@pytest.mark.parametrize("written", ["x", "1.2.3", "1e3", ".5", "٣", "1.٣", "9999999999"])
def test_what_is_no_money(written: str) -> None:
    with pytest.raises(InvalidRequest):
        limits_in(Form([("cost_per_month", written)]))
