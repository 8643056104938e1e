"""Catalogue entries of operators, beside those of the settings."""

import logging
from typing import Any

import pytest

from llmgateway.control.models import load_catalog, model_view
from llmgateway.domain.entries import Defaults
from llmgateway.domain.errors import Conflict, InvalidRequest, NotFound
from llmgateway.domain.ports import Change
from tests.control.desk import ANN, Desk, model

ENTRY: dict[str, Any] = {
    "id": "org/new",
    "aliases": ["newest"],
    "price": {"input": 0.2, "output": 0.8},
    "targets": [
        {
            "provider": "openai",
            "url": "http://10.0.0.9:8000/v1",
            "model": "New",
            "credential": "upstream-secret",
        }
    ],
}


async def test_a_model_is_added_beside_the_settings(desk: Desk) -> None:
    made = await desk.control.models.create(ANN, ENTRY)
    assert (made.source, made.created) == ("admin", desk.clock.now())
    assert desk.state.announced == [Change("models", "org/new")]
    catalog = await desk.control.models.catalog()
    assert [(one.id, one.source) for one in catalog] == [
        ("qwen3-32b", "settings"),
        ("org/embed", "settings"),
        ("org/new", "admin"),
    ]
    assert catalog.find("newest") == made
    assert made.targets[0].credential == "upstream-secret"
    assert made.price.input == 200_000


async def test_credentials_are_shown_to_nobody(desk: Desk) -> None:
    made = await desk.control.models.create(ANN, ENTRY)
    page, _ = await desk.control.models.page(limit=99)
    lines = (await desk.control.audit.page({}, limit=9)).data
    for seen in (model_view(made), [model_view(one) for one in page], lines):
        assert "upstream-secret" not in repr(seen)
        assert "hush-hush" not in repr(seen)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"id": "a b"}, "id"),
        ({"targets": []}, "targets"),
        ({"targets": [{"url": "ftp://x"}]}, "targets[0].url"),
        ({"secret": 1}, "secret"),
        ({"targets": [{"provider": "nobody", "url": "http://x/v1"}]}, "targets[0].provider"),
        ({"price": {"input": -1}}, "price.input"),
    ],
)
async def test_an_entry_that_cannot_be(desk: Desk, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await desk.control.models.create(ANN, {**ENTRY, **changes})
    assert refused.value.param == param


@pytest.mark.parametrize("changes", [{"id": "qwen3-32b"}, {"id": "default"}, {"aliases": ["org/embed"]}])
async def test_a_name_leads_to_one_model(desk: Desk, changes: dict[str, Any]) -> None:
    with pytest.raises(Conflict):
        await desk.control.models.create(ANN, {**ENTRY, **changes})
    await desk.control.models.create(ANN, ENTRY)
    with pytest.raises(Conflict):
        await desk.control.models.create(ANN, {**ENTRY, "aliases": []})
    with pytest.raises(Conflict):
        await desk.control.models.change(ANN, "org/new", {"aliases": ["default"]})


async def test_settings_cannot_be_changed_here(desk: Desk) -> None:
    with pytest.raises(Conflict):
        await desk.control.models.change(ANN, "qwen3-32b", {"context": 1})
    with pytest.raises(Conflict):
        await desk.control.models.delete(ANN, "qwen3-32b")
    with pytest.raises(NotFound):
        await desk.control.models.delete(ANN, "nobody")


async def test_changing_fields_and_putting_them_back(desk: Desk) -> None:
    await desk.control.models.create(ANN, ENTRY)
    changed = await desk.control.models.change(ANN, "org/new", {"context": 4096, "max_choices": 2})
    assert (changed.context, changed.max_choices, changed.aliases) == (4096, 2, ("newest",))
    back = await desk.control.models.change(
        ANN, "org/new", {"context": None, "aliases": None, "id": "org/new"}
    )
    assert (back.context, back.max_choices, back.aliases) == (None, 2, ())
    for wrong in ({"id": "other"}, {"targets": None}, {"max_output": 0}, {"credential": "x"}):
        with pytest.raises(InvalidRequest):
            await desk.control.models.change(ANN, "org/new", wrong)
    masked = model_view(back)["targets"]
    with pytest.raises(InvalidRequest):  # what a list showed is not a credential
        await desk.control.models.change(ANN, "org/new", {"targets": masked})


async def test_deleting(desk: Desk) -> None:
    await desk.control.models.create(ANN, ENTRY)
    desk.state.announced.clear()
    await desk.control.models.delete(ANN, "org/new")
    assert desk.state.announced == [Change("models", "org/new")]
    with pytest.raises(NotFound):
        await desk.control.models.get("org/new")


async def test_settings_go_before_what_operators_added(desk: Desk) -> None:
    await desk.control.models.create(ANN, ENTRY)
    desk.configure(base_models=(model("org/new"),))
    assert [one.source for one in await desk.control.models.catalog()] == ["settings"]
    await desk.control.models.delete(ANN, "org/new")  # the hidden one can still be taken out


async def test_an_entry_that_cannot_be_any_more_is_left_out(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.control.models.create(ANN, ENTRY)
    with caplog.at_level(logging.WARNING):
        catalog = await load_catalog(desk.store, [model("a")], Defaults(source="admin", providers=("echo",)))
    assert [one.id for one in catalog] == ["a"]
    assert "left out" in caplog.text


async def test_defaults_are_those_of_the_moment(desk: Desk) -> None:
    await desk.control.models.create(ANN, ENTRY)
    desk.configure(defaults=Defaults(deadlines=model("x").deadlines.__class__(first_byte=7)))
    made = await desk.control.models.get("org/new")
    assert (made.deadlines.first_byte, made.source) == (7, "admin")


async def test_pages(desk: Desk) -> None:
    await desk.control.models.create(ANN, ENTRY)
    first, after = await desk.control.models.page(limit=2)
    rest, end = await desk.control.models.page(limit=2, after=after)
    assert [one.id for one in (*first, *rest)] == ["org/embed", "org/new", "qwen3-32b"]
    assert end is None
