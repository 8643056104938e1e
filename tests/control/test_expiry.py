"""Keys that are about to expire: warned of once, and again when the end was moved."""

from datetime import timedelta

import pytest

from llmgateway.control.expiry import WARNED, warn_of_expiry
from llmgateway.control.keys import KeyChanges, NewKey
from llmgateway.domain.errors import StoreUnavailable
from tests.control.desk import ANN, Desk


async def warned(desk: Desk) -> int:
    return await warn_of_expiry(desk.store, desk.control.audit, desk.clock, 14)


async def lines(desk: Desk) -> list[str]:
    page = await desk.control.audit.page({"action": "keys.expiring"}, limit=100)
    return [line["target"] for line in page.data]


async def test_only_keys_that_soon_end_and_only_once(desk: Desk) -> None:
    days = {"soon": 3, "later": 30, "never": None, "just": 14}
    keys = {
        name: await desk.control.keys.create(
            ANN,
            NewKey(user="alice", name=name, expires_at=None if n is None else desk.clock.at + timedelta(n)),
        )
        for name, n in days.items()
    }
    assert await warned(desk) == 2
    assert await warned(desk) == 0
    assert sorted(await lines(desk)) == sorted([keys["soon"].key.id, keys["just"].key.id])
    stored = await desk.store.get("keys", keys["soon"].key.id)
    assert stored is not None
    assert stored[WARNED] == keys["soon"].key.expires_at
    assert (await desk.call(keys["soon"].token.reveal())).user == "alice"  # it still passes
    desk.clock.pass_seconds(20 * 86_400)
    assert await warned(desk) == 1  # the one that was later; those that are over are not warned of
    assert (await desk.control.audit.verify()).bad is None


async def test_a_warning_without_a_line_is_none(desk: Desk) -> None:
    ends = desk.clock.at + timedelta(days=3)
    key = (await desk.control.keys.create(ANN, NewKey(user="alice", name="laptop", expires_at=ends))).key
    await desk.store.insert("audit", {"id": "damaged", "revision": 0, "at": desk.clock.now()})
    with pytest.raises(StoreUnavailable):
        await warned(desk)
    assert await desk.store.delete("audit", "damaged")
    assert (await warned(desk), await lines(desk)) == (1, [key.id])


async def test_an_end_that_was_moved_is_warned_of_again(desk: Desk) -> None:
    made = await desk.control.keys.create(
        ANN, NewKey(user="alice", name="laptop", expires_at=desk.clock.at + timedelta(days=3))
    )
    assert await warned(desk) == 1
    await desk.control.keys.change(
        ANN, made.key.id, KeyChanges(expires_at=desk.clock.at + timedelta(days=60))
    )
    assert await warned(desk) == 0
    desk.clock.pass_seconds(50 * 86_400)
    assert await warned(desk) == 1


async def test_a_key_that_was_revoked_is_nobodys_worry(desk: Desk) -> None:
    made = await desk.control.keys.create(
        ANN, NewKey(user="alice", name="laptop", expires_at=desk.clock.at + timedelta(days=3))
    )
    await desk.control.keys.revoke(ANN, made.key.id)
    assert await warned(desk) == 0
