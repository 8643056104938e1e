import asyncio
import random
from pathlib import Path

from llmgateway.app.in_force import InForce
from llmgateway.app.memory import open_memory
from llmgateway.app.services import JOURNAL, control_over, open_services, samples_of
from llmgateway.control.audit import Actor
from llmgateway.domain.admission import Turn
from llmgateway.domain.ports import RecordQuery, SystemClock
from llmgateway.settings import Settings
from llmgateway.stores.journal import FileJournal
from tests.app.test_in_force import MODEL, rewrite
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.samples import record

CLOCK = SystemClock()
ACTOR = Actor("test", "test")


async def test_what_a_dead_worker_left_is_in_the_ledger_before_the_first_call(settings: Settings) -> None:
    with FileJournal(settings.data_dir / JOURNAL, worker="dead") as dead:
        dead.reserve(record(random.Random(1), id="left-open", outcome=None))
        settled = record(random.Random(2), id="settled", outcome=None)
        dead.reserve(settled)
        settled.outcome = "completed"
        dead.settle(settled)
    async with open_services(InForce(settings), CLOCK) as services:
        found = {one["id"]: one["outcome"] for one in await services.store.records(RecordQuery())}
        assert found == {"left-open": "recovered", "settled": "completed"}
        samples = {sample.family: sample.values for sample in samples_of(services) if not sample.labels}
        assert samples["recovered_records"] == [1]
        assert samples["usage_spool_records"] == [0]
    assert list((settings.data_dir / JOURNAL).iterdir()) == []


async def test_models_come_from_file_and_operators_while_it_runs(settings: Settings, config: Path) -> None:
    async with open_services(InForce(settings), CLOCK) as services:
        route = services.gateway.route
        assert [model.id for model in route.catalog] == ["echo"]
        rewrite(config, MODEL)
        await eventually(lambda: route.catalog.find("m"), "the file's model is there")
        await services.control.models.create(ACTOR, {"id": "added", "targets": [{"provider": "echo"}]})
        await eventually(lambda: route.catalog.find("added"), "the operator's model is there")
        await services.control.models.delete(ACTOR, "added")
        await eventually(lambda: route.catalog.find("added") is None, "it is gone again")


async def test_who_waits_for_a_model_gets_the_place_that_an_operator_gives_it(settings: Settings) -> None:
    entry = {"id": "m", "targets": [{"provider": "echo"}], "max_in_flight": 1}
    async with open_services(InForce(settings), CLOCK) as services:
        places, models = services.gateway.admit.places, services.control.models
        await models.create(ACTOR, entry)
        await places.take(Turn(id="a", model="m", user="alice", most=1, waiting=1))
        waiting = asyncio.ensure_future(places.take(Turn(id="b", model="m", user="bob", most=1, waiting=1)))
        await eventually(lambda: places.queue("m").waiting == 1, "it waits")
        await models.change(ACTOR, "m", {"max_in_flight": 2})
        async with asyncio.timeout(5):
            await waiting


async def test_what_another_process_writes_is_noticed_within_a_second(settings: Settings) -> None:
    async with open_services(InForce(settings), CLOCK) as services:
        async with open_memory(settings) as memory:  # as a command does
            control = control_over(InForce(settings), memory.store, memory.state, CLOCK)
            await control.models.create(ACTOR, {"id": "added", "targets": [{"provider": "echo"}]})
        await eventually(lambda: services.gateway.route.catalog.find("added"), "it is there", 2)


async def test_the_ledger_gets_what_is_settled(settings: Settings) -> None:
    async with open_services(InForce(settings), CLOCK) as services:
        one = record(random.Random(1), id="one", outcome=None)
        services.journal.reserve(one)
        one.outcome = "completed"
        services.journal.settle(one)

        async def stored() -> bool:
            return await services.store.known(["one"]) == {"one"}

        await eventually_answers(stored, "it is stored", 3)
