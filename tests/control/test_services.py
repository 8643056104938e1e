"""The same use cases over the stores of production."""

from contextlib import aclosing

import msgspec
import pytest

from llmgateway.control.ground import Configuration
from llmgateway.control.keys import KeyChanges, NewKey, key_view
from llmgateway.control.people import UserChanges
from llmgateway.control.services import Control
from llmgateway.domain.limits import Limits
from llmgateway.domain.ports import Change
from llmgateway.stores.mongo import open_mongo
from llmgateway.stores.redis import open_redis
from tests.control.desk import ANN, PEPPER
from tests.doubles import SetClock

LARGE = Limits(cost_per_month=2**53 - 1)


@pytest.mark.service
async def test_mongodb_and_redis(mongo_url: str, redis_url: str) -> None:
    async with open_mongo(mongo_url, 5) as store, open_redis(redis_url, 5) as state:
        control = Control.over(store, state, SetClock(), pepper=PEPPER, configured=Configuration)
        issued = await control.keys.create(ANN, NewKey(user="alice", name="k", limits=LARGE))
        await control.keys.change(ANN, issued.key.id, KeyChanges(name="new"))
        key = await control.keys.get(issued.key.id)
        assert (key.name, key.limits) == ("new", LARGE)
        assert msgspec.json.decode(msgspec.json.encode(key_view(key)))["limits"] == {
            "cost_per_month": 2**53 - 1
        }
        async with aclosing(state.changes()) as changes:
            await anext(changes)
            await control.people.change(ANN, "alice", UserChanges(state="suspended"))
            assert {await anext(changes), await anext(changes)} == {
                Change("users", "alice"),
                Change("keys", key.id),
            }
        verdict = await control.audit.verify()
        assert (verdict.lines, verdict.bad) == (4, None)
