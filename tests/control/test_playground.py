"""The playground's key over the real store."""

from llmgateway.control.keys import NewKey
from llmgateway.control.playground import LIFE, Playground
from tests.control.desk import ANN, Desk


async def test_one_key_for_each_user_renewed_each_time(desk: Desk) -> None:
    playground = Playground(desk.control.keys, desk.clock)
    mine = await desk.control.keys.create(ANN, NewKey(user="alice", name="Playground"))
    first = await playground.issue(ANN, "alice")
    desk.clock.move(LIFE * 2)
    second = await playground.issue(ANN, "alice")
    assert first.key.id == second.key.id != mine.key.id
    assert (second.key.purpose, second.key.user) == ("playground", "alice")
    assert second.key.expires_at == desk.clock.now() + LIFE
    assert (await playground.issue(ANN, "bob")).key.id != first.key.id


async def test_an_ended_one_begins_again_and_a_revoked_one_is_replaced(desk: Desk) -> None:
    playground = Playground(desk.control.keys, desk.clock)
    await playground.end(ANN, "alice")
    first = await playground.issue(ANN, "alice")
    await playground.end(ANN, "alice")
    assert (await desk.control.keys.get(first.key.id)).state == "suspended"
    assert (await playground.issue(ANN, "alice")).key.state == "active"
    await desk.control.keys.revoke(ANN, first.key.id)
    assert (await playground.issue(ANN, "alice")).key.id != first.key.id
