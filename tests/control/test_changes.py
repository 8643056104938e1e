"""Changes against revisions, and their announcement."""

import logging

import pytest
from typing_extensions import override

from llmgateway.control.changes import announce, each, revise
from llmgateway.domain.errors import Conflict, NotFound
from llmgateway.domain.ports import Change, Document, Kind
from llmgateway.stores.sqlite import SqliteStore
from tests.control.desk import ANN, Desk


class Contended(SqliteStore):
    """Somebody else is always quicker."""

    @override
    async def replace(self, kind: Kind, document: Document) -> None:
        raise Conflict("It has changed meanwhile.")


async def test_only_news_are_written(desk: Desk) -> None:
    await desk.store.insert("users", {"id": "a", "revision": 0, "name": "x", "colour": "red"})
    async with desk.control.audit.change(ANN, "test", "a") as entry:
        assert (await revise(desk.store, "users", entry, lambda _: {"name": "x"}, {}))[1] is False
        document, is_news = await revise(desk.store, "users", entry, lambda _: {"name": "y"}, {})
    assert is_news
    assert document == {"id": "a", "revision": 1, "name": "y", "colour": "red"}
    assert await desk.store.get("users", "a") == document
    assert len((await desk.control.audit.page({}, limit=9)).data) == 1


async def test_who_is_never_quick_enough_gives_up(desk: Desk) -> None:
    await desk.store.insert("users", {"id": "a", "revision": 0, "name": "x"})
    contended = Contended(desk.store.file)
    with pytest.raises(Conflict):
        async with desk.control.audit.change(ANN, "test", "a") as entry:
            await revise(contended, "users", entry, lambda _: {"name": "y"}, {})
    results = [line["result"] for line in (await desk.control.audit.page({}, limit=9)).data]
    assert results == ["conflict", "ok"]  # newest first


async def test_nothing_is_made_by_a_change(desk: Desk) -> None:
    with pytest.raises(NotFound):
        async with desk.control.audit.change(ANN, "test", "nobody") as entry:
            await revise(desk.store, "users", entry, lambda _: {"name": "y"}, {})


async def test_all_pages_are_read(desk: Desk) -> None:
    ids = [f"{n:04}" for n in range(1005)]
    for name in ids:
        await desk.store.insert("models", {"id": name, "revision": 0})
    assert [document["id"] async for document in each(desk.store, "models", {})] == ids


async def test_what_cannot_be_announced_is_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.state.is_down = True
    with caplog.at_level(logging.WARNING):
        await announce(desk.state, [Change("keys", "a"), Change("keys", "b")])
    assert "could not be announced" in caplog.text
    assert len(caplog.messages) == 1
    assert desk.state.announced == []
