"""The audit log: a chain that several processes write, and in which nothing can be changed unseen."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmgateway.control.audit import FIRST_PREVIOUS, Actor, Audit, hash_of
from llmgateway.control.keys import KeyChanges, NewKey
from llmgateway.control.people import UserChanges
from llmgateway.domain.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from llmgateway.stores.mongo import open_mongo
from llmgateway.stores.sqlite import open_sqlite
from tests.control.desk import ANN, Desk
from tests.doubles import SetClock

ROOT = Path(__file__).parents[2]
WRITE = """
import asyncio, sys
from pathlib import Path
from llmgateway.control.audit import Actor, Audit
from llmgateway.domain.ports import SystemClock
from llmgateway.stores.sqlite import open_sqlite
async def main():
    async with open_sqlite(Path(sys.argv[1]), 20) as store:
        audit = Audit(store, SystemClock())
        actor = Actor(sys.argv[2], "cli")
        lines = (audit.write(actor, "test", str(n), result="ok", details={}) for n in range(25))
        await asyncio.gather(*lines)
asyncio.run(main())
"""


async def lines(desk: Desk) -> list[dict[str, Any]]:
    return (await desk.control.audit.page({}, limit=1000)).data[::-1]


async def test_every_change_has_its_line(desk: Desk) -> None:
    keys, people = desk.control.keys, desk.control.people
    key = (await keys.create(ANN, NewKey(user="alice", name="k"))).key
    await keys.change(ANN, key.id, KeyChanges(name="new"))
    await keys.rotate(ANN, key.id)
    await keys.revoke(ANN, key.id)
    await people.change(ANN, "alice", UserChanges(state="suspended"))
    await desk.control.models.create(ANN, {"id": "m", "targets": [{"provider": "echo"}]})
    await desk.control.models.change(ANN, "m", {"context": 5})
    await desk.control.models.delete(ANN, "m")
    assert [(line["action"], line["target"], line["result"]) for line in await lines(desk)] == [
        ("users.create", "alice", "ok"),
        ("keys.create", key.id, "ok"),
        ("keys.change", key.id, "ok"),
        ("keys.rotate", key.id, "ok"),
        ("keys.revoke", key.id, "ok"),
        ("users.change", "alice", "ok"),
        ("models.create", "m", "ok"),
        ("models.change", "m", "ok"),
        ("models.delete", "m", "ok"),
    ]
    assert (await lines(desk))[2]["details"] == {"name": "new"}
    verdict = await desk.control.audit.verify()
    assert (verdict.lines, verdict.bad) == (9, None)
    assert verdict.head == (await lines(desk))[-1]["hash"]


async def test_what_stands_in_a_line(desk: Desk) -> None:
    await desk.control.people.ensure(Actor("user ann", "admin 10.0.0.1", "req-9"), "alice")
    (line,) = await lines(desk)
    line.pop("revision")
    digest = line.pop("hash")
    assert line == {
        "id": "0000000000000001",
        "at": desk.clock.now(),
        "who": "user ann",
        "action": "users.create",
        "target": "alice",
        "result": "ok",
        "request_id": "req-9",
        "source": "admin 10.0.0.1",
        "details": {"name": None, "email": None, "roles": ["user"], "project": None, "limits": {}},
        "previous": FIRST_PREVIOUS,
    }
    assert digest == hash_of(line)


async def test_no_secret_stands_in_any_line(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))
    again = await desk.control.keys.rotate(ANN, issued.key.id)
    entry = {"id": "m", "targets": [{"url": "http://10.0.0.9/v1", "credential": "upstream-secret"}]}
    await desk.control.models.create(ANN, entry)
    await desk.control.models.change(ANN, "m", {"targets": entry["targets"], "context": 3})
    written = repr(await lines(desk))
    for secret in ("upstream-secret", issued.key.digest, again.key.digest):
        assert secret not in written
    for token in (issued.token, again.token):
        assert token.reveal().split("_")[2] not in written


async def test_refusals_have_lines_with_their_code(desk: Desk) -> None:
    keys = desk.control.keys
    key = (await keys.create(ANN, NewKey(user="alice", name="k"))).key
    await keys.revoke(ANN, key.id)
    with pytest.raises(Conflict):
        await keys.change(ANN, key.id, KeyChanges(state="active"))
    with pytest.raises(InvalidRequest):
        await keys.create(ANN, NewKey(user="alice", name="k", models=["nobody"]))
    with pytest.raises(NotFound):
        await keys.revoke(ANN, "unknown")
    assert [line["result"] for line in await lines(desk)] == [
        "ok",
        "ok",
        "ok",
        "conflict",
        "model_not_found",
        "not_found",
    ]


async def test_nothing_changes_without_a_line(desk: Desk) -> None:
    key = (await desk.control.keys.create(ANN, NewKey(user="alice", name="k"))).key
    await desk.store.insert("audit", {"id": "x", "revision": 0, "hash": "0"})  # no chain goes on from here
    with pytest.raises(StoreUnavailable):
        await desk.control.keys.revoke(ANN, key.id)
    assert (await desk.control.keys.get(key.id)).state == "active"


async def test_lines_of_one_process_do_not_collide(desk: Desk) -> None:
    write = desk.control.audit.write
    await asyncio.gather(*(write(ANN, "test", str(n), result="ok", details={}) for n in range(100)))
    verdict = await desk.control.audit.verify()
    assert (verdict.lines, verdict.bad) == (100, None)
    assert {line["target"] for line in await lines(desk)} == {str(n) for n in range(100)}


async def test_processes_share_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    async with open_sqlite(path, 20) as store:
        await store.ping()
        writers = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", WRITE, str(path), f"writer {n}", cwd=ROOT
            )
            for n in range(3)
        ]
        audit = Audit(store, SetClock())
        await asyncio.gather(*(audit.write(ANN, "test", str(n), result="ok", details={}) for n in range(25)))
        async with asyncio.timeout(60):
            assert [await writer.wait() for writer in writers] == [0, 0, 0]
        verdict = await audit.verify()
        assert (verdict.lines, verdict.bad) == (100, None)


Tamper = Callable[[Desk], Awaitable[object]]


async def edit(desk: Desk, number: int, **changes: Any) -> None:
    line = await desk.store.get("audit", f"{number:016}") or {}
    await desk.store.replace("audit", {**line, **changes, "revision": line["revision"] + 1})


async def rewritten(desk: Desk) -> None:
    """Cleverer: the hash is made anew, so the next line no longer follows."""
    line = {**(await desk.store.get("audit", f"{3:016}") or {}), "who": "nobody"}
    await edit(desk, 3, who="nobody", hash=hash_of(line))


@pytest.mark.parametrize(
    ("tamper", "bad"),
    [
        (lambda desk: edit(desk, 3, who="somebody else"), 3),
        (lambda desk: edit(desk, 3, details={"name": "x"}), 3),
        (lambda desk: edit(desk, 3, at="yesterday"), 3),
        (lambda desk: edit(desk, 3, hash="0" * 64), 3),
        (rewritten, 4),
        (lambda desk: desk.store.delete("audit", f"{3:016}"), 4),
        (lambda desk: desk.store.delete("audit", f"{1:016}"), 2),
    ],
)
async def test_tampering_is_found_at_its_line(desk: Desk, tamper: Tamper, bad: int) -> None:
    for n in range(5):
        await desk.control.audit.write(ANN, "test", str(n), result="ok", details={"n": n})
    assert (await desk.control.audit.verify()).bad is None
    await tamper(desk)
    verdict = await desk.control.audit.verify()
    assert verdict.bad == f"{bad:016}"
    assert verdict.reason


async def test_the_log_gets_every_head(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="llmgateway.control.audit"):
        await desk.control.people.ensure(ANN, "alice")
    (record,) = [one for one in caplog.records if one.message == "audit"]
    assert record.__dict__["fields"]["hash"] == (await desk.control.audit.verify()).head


@pytest.fixture
async def mongo_audit(mongo_url: str) -> AsyncIterator[tuple[Audit, Audit]]:
    async with open_mongo(mongo_url, 5) as one, open_mongo(mongo_url, 5) as other:
        yield Audit(one, SetClock()), Audit(other, SetClock())


@pytest.mark.service
async def test_the_chain_on_mongodb(mongo_audit: tuple[Audit, Audit]) -> None:
    """Large numbers come back as a kind of their own, and still have the same hash."""
    details = {"limits": {"cost_per_month": 2**50}, "price": 0.2, "none": None, "list": ("a", 1)}
    await asyncio.gather(
        *(
            audit.write(ANN, "test", str(n), result="ok", details=details)
            for n in range(10)
            for audit in mongo_audit
        )
    )
    verdict = await mongo_audit[0].verify()
    assert (verdict.lines, verdict.bad) == (20, None)


async def grown(audit: Audit, clock: SetClock, lines: int) -> None:
    for number in range(lines):
        await audit.write(ANN, "keys.create", f"k{number}", result="ok", details={})
        clock.pass_seconds(86_400)


async def test_old_lines_go_and_the_chain_still_holds(desk: Desk) -> None:
    audit = desk.control.audit
    await grown(audit, desk.clock, 10)
    assert await audit.trim(ANN, desk.clock.at - timedelta(days=4)) == 6
    verdict = await audit.verify()
    assert (verdict.bad, verdict.lines) == (None, 5)
    assert await audit.trim(ANN, desk.clock.at - timedelta(days=4)) == 0
    await grown(audit, desk.clock, 3)
    assert await audit.trim(ANN, desk.clock.at - timedelta(days=1)) == 7
    assert (await audit.verify()).bad is None


async def test_the_last_line_stays_however_old_it_is(desk: Desk) -> None:
    audit = desk.control.audit
    await grown(audit, desk.clock, 2)
    assert await audit.trim(ANN, desk.clock.at + timedelta(days=9)) == 1
    assert (await audit.verify()).bad is None


async def test_lines_that_somebody_else_has_thrown_away_are_missed(desk: Desk) -> None:
    audit = desk.control.audit
    await grown(audit, desk.clock, 6)
    await audit.trim(ANN, desk.clock.at - timedelta(days=4))
    first = (await desk.store.find("audit", {}, limit=1)).data[0]
    await desk.store.delete("audit", first["id"])
    verdict = await audit.verify()
    assert verdict.bad is not None
    assert "no line says" in (verdict.reason or "")
