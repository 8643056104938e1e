"""Terms of use: accepted by version, once, and anew when the version changes."""

import asyncio

import pytest

from llmgateway.domain.errors import Conflict, InvalidRequest
from llmgateway.domain.terms import Terms
from tests.control.desk import ANN, Desk

FIRST, SECOND = Terms(version="1", text="Be kind."), Terms(version="2", text="Be kinder.")


async def test_each_version_is_accepted_anew(desk: Desk) -> None:
    agreements = desk.control.agreements
    assert not await agreements.is_owed("alice")
    with pytest.raises(InvalidRequest):
        await agreements.accept(ANN, "alice", "1")
    desk.configure(terms=FIRST)
    assert await agreements.is_owed("alice")
    await agreements.accept(ANN, "alice", "1")
    assert not await agreements.is_owed("alice")
    assert await agreements.is_owed("bob")
    desk.configure(terms=SECOND)
    assert await agreements.is_owed("alice")
    with pytest.raises(Conflict):
        await agreements.accept(ANN, "alice", "1")
    desk.clock.pass_seconds(60)
    await agreements.accept(ANN, "alice", "2")
    assert [(one.version, str(one.at)) for one in await agreements.of("alice")] == [
        ("1", "2026-11-20 12:00:00+00:00"), ("2", "2026-11-20 12:01:00+00:00")]  # fmt: skip


async def test_accepting_twice_is_once(desk: Desk) -> None:
    desk.configure(terms=FIRST)
    await asyncio.gather(*(desk.control.agreements.accept(ANN, "alice", "1") for _ in range(4)))
    await desk.control.agreements.accept(ANN, "alice", "1")
    assert {one.version for one in await desk.control.agreements.of("alice")} == {"1"}
    assert not await desk.control.agreements.is_owed("alice")
    page = await desk.control.audit.page({"action": "terms.accept", "result": "ok"}, limit=9)
    assert {(line["target"], line["details"]["version"]) for line in page.data} == {("alice", "1")}
