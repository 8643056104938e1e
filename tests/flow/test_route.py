"""A name becomes a model and its targets; what is shown is what may be used."""

import pytest

from llmgateway.domain.catalog import Catalog
from llmgateway.domain.errors import ModelNotAllowed, NoSuchModel
from llmgateway.domain.keys import Principal
from llmgateway.flow.route import Route
from tests.flow.stage import PRINCIPAL, ScriptedUpstream, chat, model

NARROW = Principal("k", "bob", None, frozenset({"b"}))


def route() -> tuple[Route, ScriptedUpstream]:
    upstream = ScriptedUpstream([])
    models = [
        model("http://1:1/v1", "http://2:1/v1", id="a", aliases=("default",)),
        model("http://3:1/v1", id="b"),
    ]
    return Route(Catalog(models), upstream.order), upstream


def test_targets_come_in_the_order_in_which_they_should_be_asked() -> None:
    found, upstream = route()
    chosen, targets = found(chat(model="default"), PRINCIPAL)
    assert (chosen.id, [target.replica for target in targets]) == ("a", ["2:1", "1:1"])
    found(chat(model="b"), PRINCIPAL)
    assert upstream.ordered == 1  # one target needs no order


@pytest.mark.parametrize("name", ["", "A", "../a", "a/../b", "a\x00", "http://evil", "a" * 5000, "\uff41"])
def test_names_are_looked_up_and_nothing_else(name: str) -> None:
    with pytest.raises(NoSuchModel):
        route()[0](chat(model=name), PRINCIPAL)


def test_what_is_shown_is_what_may_be_used() -> None:
    found, _ = route()
    assert [m.id for m in found.visible(PRINCIPAL)] == ["a", "b"]
    assert [m.id for m in found.visible(NARROW)] == ["b"]
    assert found.find("b", NARROW).id == "b"
    for name in ("a", "default"):
        with pytest.raises(ModelNotAllowed):
            found(chat(model=name), NARROW)


def test_a_changed_catalogue_is_in_force_at_once() -> None:
    found, _ = route()
    found.catalog = Catalog([model(id="c")])
    assert found(chat(model="c"), PRINCIPAL)[0].id == "c"
    with pytest.raises(NoSuchModel):
        found(chat(model="a"), PRINCIPAL)
