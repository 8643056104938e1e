"""Why a key may do what it may; the whole of it as it is typed is in tests/cli/test_policy.py."""

from datetime import timedelta

from llmgateway.control.explain import Story, explain_key
from llmgateway.control.keys import NewKey
from llmgateway.control.limits import Subject
from llmgateway.control.people import UserChanges
from llmgateway.domain.limits import Limits
from llmgateway.domain.policy import Policy
from tests.control.desk import ANN, Desk


async def story(desk: Desk, key_id: str) -> Story:
    return await explain_key(desk.control, Policy(), desk.clock, key_id)


async def test_all_limits_of_a_key_in_the_order_in_which_they_refuse(desk: Desk) -> None:
    limits = Limits(tokens_per_day=5)
    made = await desk.control.keys.create(
        ANN, NewKey(user="alice", name="k", limits=limits, models=["default"], project="p")
    )
    for subject in (Subject("user", "alice"), Subject("project", "p"), Subject("model", "qwen3-32b"),
                    Subject("model", "org/embed")):  # fmt: skip
        await desk.control.limits.put(ANN, subject, limits)
    found = await story(desk, f"lgw_{made.key.id}")
    assert [one.subject.name for one in found.limits] == [
        f"key/{made.key.id}", "user/alice", "model/qwen3-32b", "project/p",
    ]  # fmt: skip
    assert (found.models, found.troubles) == (("qwen3-32b",), ())


async def test_every_reason_for_a_refusal_is_told(desk: Desk) -> None:
    expires = desk.clock.at + timedelta(days=1)
    made = await desk.control.keys.create(ANN, NewKey(user="alice", name="k", expires_at=expires))
    desk.clock.pass_seconds(2 * 86_400)
    await desk.control.keys.revoke(ANN, made.key.id)
    await desk.control.people.change(ANN, "alice", UserChanges(state="suspended"))
    troubles = (await story(desk, made.key.id)).troubles
    assert troubles == ("the key is revoked", "the key has expired", "an operator suspended its owner")
    await desk.store.delete("users", "alice")
    found = await story(desk, made.key.id)
    assert (found.user, found.sources) == (None, ())
