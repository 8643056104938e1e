"""MongoDB: the conformance suite, outages, batches that are stored in part."""

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from typing_extensions import override

from llmgateway.domain.errors import Conflict, InvalidRequest, StoreUnavailable
from llmgateway.domain.ports import UsageQuery
from llmgateway.jobs.ship import Shipper
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.mongo import INDEXES, MongoStore, open_mongo
from llmgateway.stores.survey import dead_letters
from tests.lab.servers import Mongod
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.contract import StoreContract, key
from tests.stores.samples import NOON, moments, record
from tests.stores.upkeep_contract import UpkeepContract
from tests.stores.watching import lines_of, loop_lag, seconds_to_fail, works

# The driver leaves a socket to the garbage collector when it is cancelled while it connects.
pytestmark = [
    pytest.mark.service,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LOG = "llmgateway.stores.mongo"
PATIENCE = 0.6
RECOVERY = 20.0  # seconds: a replica set elects itself again


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


class TestMongo(StoreContract, UpkeepContract):
    @pytest.fixture
    async def store(self, mongo_url: str) -> AsyncIterator[MongoStore]:
        async with open_mongo(mongo_url, 5) as store:
            yield store


@pytest.fixture
async def store(mongo_url: str) -> AsyncIterator[MongoStore]:
    async with open_mongo(mongo_url, 5) as store:
        yield store


@pytest.fixture
def raw(mongo_url: str) -> Iterator[Any]:
    with MongoClient[dict[str, Any]](mongo_url) as client:
        yield client.get_default_database()


def index_fields(url: str, collection: str) -> list[list[str]]:
    with MongoClient[dict[str, Any]](url) as client:
        indexes = client.get_default_database()[collection].index_information()
    return [[field for field, _ in index["key"]] for index in indexes.values()]


def has_all_indexes(url: str) -> bool:
    return all(len(index_fields(url, name)) == len(indexes) + 1 for name, indexes in INDEXES.items())


async def test_what_was_made_anew_is_not_stale(store: MongoStore, raw: Any) -> None:
    """However much is put in at once, its days are summed up once."""
    chance = random.Random(5)
    await store.append([record(chance, at) for at in moments(chance, 50, NOON, NOON + timedelta(days=2))])
    assert raw["stale"].count_documents({}) > 0
    await store.rebuild()
    assert raw["stale"].count_documents({}) == 0
    assert await store.roll_up() == 0
    assert [row.requests for row in await store.usage(UsageQuery())] == [50]


async def test_indexes_appear_by_themselves(store: MongoStore, mongo_url: str) -> None:
    await eventually(lambda: has_all_indexes(mongo_url), "the indexes are there", 10)
    assert ["user", "_id"] in index_fields(mongo_url, "records")


async def test_times_are_stored_as_times(store: MongoStore, raw: Any) -> None:
    made = record(random.Random(1))
    await store.append([made])
    assert raw.records.find_one({"at": {"$type": "date"}, "ended_at": {"$type": "date"}})["_id"] == made.id


async def test_what_is_too_large_is_named_and_the_rest_is_stored(store: MongoStore) -> None:
    chance = random.Random(2)
    good = [record(chance, NOON + timedelta(seconds=n)) for n in range(5)]
    huge = record(chance, request_id="x" * 17 * 2**20)
    assert list(await store.append([*good[:2], huge, *good[2:]])) == [huge.id]
    assert len(await store.known([one.id for one in [*good, huge]])) == 5


async def test_what_the_server_rejects_for_good_is_named(store: MongoStore, raw: Any) -> None:
    chance = random.Random(3)
    raw.create_collection("records", validator={"cost": {"$lt": 100}})
    made = [record(chance, NOON + timedelta(seconds=n), cost=n * 40) for n in range(5)]
    assert list(await store.append(made)) == [one.id for one in made[3:]]
    assert await store.known([one.id for one in made]) == {one.id for one in made[:3]}


async def test_r_fault_33_of_a_hundred_three_are_refused_and_buried(
    store: MongoStore, raw: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw.create_collection("records", validator={"cost": {"$lt": 100}})
    chance = random.Random(33)
    batch = [record(chance, NOON + timedelta(seconds=n), cost=n, outcome="completed") for n in range(100)]
    for number in (10, 11, 97):
        batch[number].cost = 500
    with FileJournal(tmp_path, worker="a") as journal:
        for one in batch:
            journal.reserve(one)
            journal.settle(one)
        shipper = Shipper(journal, store.append)
        assert await shipper.ship()
        assert journal.unshipped == 0
        assert shipper.dead_letters == 3
    refused = {batch[number].id for number in (10, 11, 97)}
    assert {one.id for one in dead_letters(tmp_path)} == refused
    assert await store.known([one.id for one in batch]) == {one.id for one in batch} - refused
    (alarm,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert alarm.__dict__["fields"]["ids"] == sorted(refused)


async def test_a_duplicate_by_another_index_is_not_taken_for_stored(store: MongoStore, raw: Any) -> None:
    raw.records.create_index("request_id", unique=True)
    chance = random.Random(4)
    first, second = (record(chance, NOON + timedelta(seconds=n), request_id="same") for n in range(2))
    assert list(await store.append([first, second])) == [second.id]


class FaultyMongod(Mongod):
    """One with its own switch for tests: it fails commands when it is told to."""

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return [*super()._arguments(), "--setParameter", "enableTestCommands=1"]

    @contextmanager
    def failing(self, times: int | None = None, **how: Any) -> Iterator[None]:
        mode = "alwaysOn" if times is None else {"times": times}
        data = {"failCommands": ["insert"], "appName": "llmgateway", **how}
        with MongoClient[dict[str, Any]](self.url()) as client:
            client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
            yield
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyMongod]:
    with FaultyMongod() as server:
        yield server


async def test_errors_that_may_pass_are_not_for_good(faulty: FaultyMongod, fresh_name: str) -> None:
    made, disk_full = [record(random.Random(n)) for n in range(3)], 14031
    async with open_mongo(faulty.url(fresh_name), 2) as store:
        with faulty.failing(errorCode=disk_full), pytest.raises(StoreUnavailable):
            await store.append(made)
        assert store.is_healthy()
        assert list(await store.append(made)) == []


async def test_sums_are_merged_into_a_collection_that_another_is_just_making(
    faulty: FaultyMongod, fresh_name: str
) -> None:
    being_made = 51183  # "Cannot find index to verify that join fields will be unique"
    made = [record(random.Random(n)) for n in range(3)]
    async with open_mongo(faulty.url(fresh_name), 2) as store:
        await store.append(made)
        with faulty.failing(times=3, failCommands=["aggregate"], errorCode=being_made):
            await store.roll_up()
        assert (await store.usage(UsageQuery()))[0].requests == 3
        with (
            faulty.failing(failCommands=["aggregate"], errorCode=10334),
            pytest.raises(InvalidRequest),
        ):
            await store.rebuild()


async def test_r_fault_32_an_acknowledgement_that_was_lost(faulty: FaultyMongod, fresh_name: str) -> None:
    """The server stores the batch but cannot confirm it: shipping it again changes nothing."""
    made = [record(random.Random(n)) for n in range(20)]
    timed_out = {"code": 64, "errmsg": "waiting timed out"}
    async with open_mongo(faulty.url(fresh_name), 2) as store:
        with faulty.failing(writeConcernError=timed_out), pytest.raises(StoreUnavailable):
            await store.append(made)

        async def all_known() -> bool:  # by a majority, which takes a moment where nobody waits for it
            return len(await store.known([one.id for one in made])) == 20

        await eventually_answers(all_known, "they are stored")
        assert list(await store.append(made)) == []
        assert (await store.usage(UsageQuery()))[0].requests == 20


async def test_a_connection_that_dies_is_not_the_end(faulty: FaultyMongod, fresh_name: str) -> None:
    made = [record(random.Random(n)) for n in range(20)]
    async with open_mongo(faulty.url(fresh_name), 2) as store:
        with faulty.failing(closeConnection=True), pytest.raises(StoreUnavailable):
            await store.append(made)
        await eventually(store.is_healthy, "it has noticed that the server is there")
        await ship(store, made)


async def test_r_fault_30_a_server_that_is_absent_at_the_start_may_come_later(own_mongod: Mongod) -> None:
    url, made = own_mongod.url("late"), [record(random.Random(n)) for n in range(50)]
    own_mongod.stop()
    with lines_of(LOG) as lines:
        began = time.perf_counter()
        async with open_mongo(url, PATIENCE) as store:
            assert time.perf_counter() - began < 0.2
            await seconds_to_fail(store.ping())
            assert not store.is_healthy()
            took = [await seconds_to_fail(store.append(made)) for _ in range(200)]
            assert max(took) < 0.01
            own_mongod.start()
            await eventually(store.is_healthy, "it has noticed, though nobody asked", RECOVERY)
            assert list(await store.append(made)) == []
            assert (await store.usage(UsageQuery()))[0].requests == 50
            await eventually(lambda: has_all_indexes(url), "the indexes are there", 10)
    assert len(lines) == 2


async def test_r_fault_31_a_frozen_server_delays_callers_once_and_nothing_counts_twice(
    own_mongod: Mongod,
) -> None:
    chance = random.Random(31)
    made = [record(chance, NOON + timedelta(seconds=n)) for n in range(300)]
    batches = [made[n : n + 50] for n in range(0, 300, 50)]
    async with open_mongo(own_mongod.url("frozen"), PATIENCE) as store, loop_lag() as lag:
        await store.insert("keys", key())
        await store.append(batches[0])
        with lines_of(LOG) as lines:
            own_mongod.freeze()
            try:
                calls = [seconds_to_fail(store.append(batch)) for batch in batches]
                calls += [seconds_to_fail(store.get("keys", "k1")) for _ in range(100)]
                took = await asyncio.gather(*calls)
                assert max(took) < PATIENCE * 1.6
                began = time.perf_counter()
                while time.perf_counter() - began < 2:  # several probes long
                    assert await seconds_to_fail(store.get("keys", "k1")) < 0.02
                    await asyncio.sleep(0.005)
            finally:
                own_mongod.thaw()
            await eventually(store.is_healthy, "it has noticed that the server is back", RECOVERY)
            for batch in [*batches, *batches]:
                await ship(store, batch)
            assert (await store.usage(UsageQuery()))[0].requests == 300
            assert await store.get("keys", "k1") == key()
        assert len(lines) == 2, lines
        assert lag.longest < 0.15


async def ship(store: MongoStore, batch: list[Any]) -> None:
    """Again until it is stored, as the shipper does."""

    async def is_shipped() -> bool:
        return await works(store.append(batch))

    await eventually_answers(is_shipped, "the batch is stored", RECOVERY)


async def test_r_fault_34_a_server_killed_amid_batches_loses_and_doubles_nothing(own_mongod: Mongod) -> None:
    chance = random.Random(32)
    made = [record(chance, NOON + timedelta(seconds=n)) for n in range(3000)]
    async with open_mongo(own_mongod.url("killed"), PATIENCE) as store:
        await store.ping()
        own = asyncio.ensure_future(ship_all(store, made))
        for _ in range(2):
            await asyncio.sleep(0.05)
            await asyncio.to_thread(own_mongod.kill)
            await asyncio.to_thread(own_mongod.start)
        await own
        assert (await store.usage(UsageQuery()))[0].requests == 3000
        assert await store.known([one.id for one in made]) == {one.id for one in made}


async def ship_all(store: MongoStore, made: list[Any]) -> None:
    for start in range(0, len(made), 50):
        await ship(store, made[start : start + 50])


async def test_a_server_that_forgot_everything_gets_its_indexes_again(own_mongod: Mongod) -> None:
    url = own_mongod.url("empty")
    async with open_mongo(url, PATIENCE) as store:
        await eventually(lambda: has_all_indexes(url), "the indexes are there", 10)
        own_mongod.kill()
        await seconds_to_fail(store.ping())
        await asyncio.to_thread(own_mongod.restart_empty)
        await eventually(store.is_healthy, "it has noticed", RECOVERY)
        await eventually(lambda: has_all_indexes(url), "the indexes are there again", RECOVERY)


async def test_closing_does_not_wait_long_for_a_frozen_server(own_mongod: Mongod) -> None:
    async with open_mongo(own_mongod.url("closing"), PATIENCE) as store:
        await store.ping()
        own_mongod.freeze()
        began = time.perf_counter()
    own_mongod.thaw()
    assert time.perf_counter() - began < PATIENCE * 4


async def test_cancelled_callers_harm_nobody(store: MongoStore) -> None:
    chance = random.Random(7)
    for n in range(50):
        await store.insert("keys", key(f"k{n}"))
    for _ in range(10):
        asked = {f"k{n}": asyncio.ensure_future(store.get("keys", f"k{n}")) for n in range(50)}
        for call in chance.sample(list(asked.values()), 25):
            await asyncio.sleep(0.001 * chance.random())
            call.cancel()
        await asyncio.wait(asked.values())
        assert all(call.cancelled() or call.result() == key(id) for id, call in asked.items())
    assert store.is_healthy()


async def test_wrong_credentials_are_a_server_that_is_away(mongo_url: str) -> None:
    with lines_of(LOG) as lines:
        wrong = mongo_url.replace("mongodb://", "mongodb://alice:s3cret@")
        async with open_mongo(wrong, 2) as store:
            with pytest.raises(StoreUnavailable) as caught:
                await store.get("keys", "k1")
            assert not store.is_healthy()
            assert "127.0.0.1" not in caught.value.message
    assert len(lines) == 1
    assert "s3cret" not in lines[0]


@pytest.mark.parametrize(
    "url", ["http://localhost", "mongodb://alice:s3:cret/@host/gateway", "mongodb://host:port"]
)
async def test_what_is_no_url_stops_the_start_and_keeps_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL of MongoDB") as caught:
        async with open_mongo(url, PATIENCE):
            raise AssertionError
    assert "cret" not in str(caught.value)


async def test_a_conflict_is_not_an_outage(store: MongoStore) -> None:
    await store.insert("keys", key())
    with pytest.raises(Conflict):
        await store.insert("keys", key())
    assert store.is_healthy()
