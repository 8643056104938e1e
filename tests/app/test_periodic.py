"""The jobs of a gateway: all there, done by one process, by hand as well."""

import asyncio
import random
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient

from llmgateway.app.in_force import InForce
from llmgateway.app.periodic import ABSENCE, ACTOR, GONE, ROLL_UP, WARM, left_in
from llmgateway.app.services import JOURNAL, Services, open_services
from llmgateway.control.keys import NewKey
from llmgateway.domain.call import Record
from llmgateway.domain.errors import NotAllowed, NotAuthenticated
from llmgateway.domain.identity import Identity
from llmgateway.domain.ports import RecordQuery, SystemClock, UsageQuery
from llmgateway.settings import Settings, read_file, with_secrets
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.redis import RedisState
from tests.lab.servers import Valkey
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.contract import plain_sums, sums_of
from tests.stores.samples import NOON, moments, record

CLOCK = SystemClock()


@pytest.fixture
def production(tmp_path: Path, mongo_url: str, own_valkey: Valkey) -> Settings:
    environ = {
        "LLMGATEWAY_DATA_DIR": str(tmp_path / "data"), "LLMGATEWAY_LOG_LEVEL": "warning",
        "MONGO_URL": mongo_url, "REDIS_URL": own_valkey.url(), "ADMIN_KEY": "a" * 32,
        "LLMGATEWAY_SECRET_KEYS": "s" * 32, "LLMGATEWAY_KEY_PEPPER": "p" * 32,
    }  # fmt: skip
    config = tmp_path / "gateway.yaml"
    config.write_text("stores: {redis_timeout: 0.5}\nretention: {records: 30d, audit: 30d}\n")
    return with_secrets(Settings.load(environ, config=config))


async def is_refused(services: Services, token: bytes) -> bool:
    try:
        await services.gateway.authenticate(token)
    except NotAuthenticated:
        return True
    return False


async def test_an_embedded_gateway_does_all_its_jobs_at_once(settings: Settings) -> None:
    chance = random.Random(1)
    made = [record(chance, at) for at in moments(chance, 300, NOON, NOON + timedelta(days=5))]
    async with open_services(InForce(settings), CLOCK) as services:
        await services.store.append(made)
        timetable = services.periodic.timetable
        expected = [
            "roll_up",
            "retention",
            "key_expiry",
            "absence",
            "gone",
            "gone_long",
            "limits",
            "reconcile",
        ]
        assert list(timetable.jobs) == expected
        for name, progress in timetable.progress.items():
            await eventually(partial(getattr, progress, "succeeded_at"), f"{name} is done", 10)
        timetable.soon(ROLL_UP)
        query = UsageQuery(by=("user", "day"), time_zone="Asia/Kathmandu")
        assert sums_of(await services.store.usage(query)) == plain_sums(made, query)


@pytest.mark.service
async def test_of_a_fleet_one_process_does_it_and_another_takes_over(
    production: Settings, own_valkey: Valkey
) -> None:
    async with (
        open_services(InForce(production), CLOCK) as first,
        open_services(InForce(production), CLOCK) as second,
    ):
        both = [first, second]
        await eventually(lambda: any(one.periodic.timetable.leads for one in both), "one leads")
        leader, follower = sorted(both, key=lambda one: not one.periodic.timetable.leads)
        assert not follower.periodic.timetable.leads
        keys, warm = leader.periodic.keys, leader.periodic.timetable.progress[WARM]
        assert keys is not None
        await eventually(lambda: warm.succeeded_at, "the cache is filled")
        before = warm.succeeded_at
        await asyncio.to_thread(own_valkey.restart_empty)
        await eventually(lambda: warm.succeeded_at != before, "it is filled again at once", 15)
        assert not await keys.is_cold()
        await leader.periodic.timetable.resign()
        await eventually(lambda: follower.periodic.timetable.leads, "the other leads", 10)
        assert not leader.periodic.timetable.leads
        rolled = follower.periodic.timetable.progress[ROLL_UP]
        await eventually(lambda: rolled.succeeded_at, "and works")


RULES = """
policy:
  rules: [{name: r, when: {a: "1"}, grants: {roles: [user], models: [m]}}]
  keys: {sign_in_within: 30d}
"""


@pytest.mark.service
async def test_keys_follow_the_identity_on_every_worker_within_a_second(production: Settings) -> None:
    assert production.config is not None
    production.config.write_text(RULES)
    in_force = InForce(production.with_file(read_file(production.config, {})))
    async with open_services(in_force, CLOCK) as first, open_services(in_force, CLOCK) as second:
        who = Identity(provider="idp", subject="alice", attributes={"a": ("1",)})
        await first.control.enrolment.welcome(ACTOR, who)
        key = await first.control.keys.create(ACTOR, NewKey(user="alice", name="k"))
        token = key.token.reveal().encode()
        assert (await second.gateway.authenticate(token)).models == frozenset({"m"})

        async def passes() -> bool:
            return not await is_refused(second, token)

        with pytest.raises(NotAllowed):
            await first.control.enrolment.welcome(ACTOR, msgspec.structs.replace(who, attributes={}))
        await eventually_answers(lambda: is_refused(second, token), "the other worker refuses", 1)
        await first.control.enrolment.welcome(ACTOR, who)
        await eventually_answers(passes, "the other worker lets pass again", 1)
        stored = await first.store.get("users", "alice")
        assert stored is not None
        long_ago = {"signed_in_at": CLOCK.now() - timedelta(days=31), "revision": stored["revision"] + 1}
        await first.store.replace("users", stored | long_ago)
        await eventually(lambda: any(one.periodic.timetable.leads for one in (first, second)), "one leads")
        for one in (first, second):
            one.periodic.timetable.soon(ABSENCE)
        await eventually_answers(lambda: is_refused(second, token), "who stays away is refused")


async def late_records_follow(settings: Settings) -> None:
    """A call that is open when its user is forgotten, one that waits in the journal, one that comes again."""
    async with open_services(InForce(settings), CLOCK) as services:
        key = await services.control.keys.create(ACTOR, NewKey(user="alice", name="k"))

        def call(number: int) -> Record:
            return record(random.Random(number), CLOCK.now(), user="alice", key_id=key.key.id, outcome=None)

        stored, waiting, is_open = call(1), call(2), call(3)
        await services.store.append([msgspec.structs.replace(stored, outcome="completed")])
        for one in (waiting, is_open):
            services.journal.reserve(one)
        waiting.outcome = "completed"
        services.journal.settle(waiting)
        await services.erasure.forget(ACTOR, "alice")
        is_open.outcome = "completed"
        services.journal.settle(is_open)
        await eventually(lambda: services.periodic.timetable.leads, "it leads")

        async def all_follow() -> bool:
            services.periodic.timetable.soon(GONE)
            rows = await services.store.usage(UsageQuery(by=("user",)))
            users = [(str(row.group["user"])[:5], row.requests) for row in rows]
            return users == [("gone:", 3)]

        await eventually_answers(all_follow, "all are the pseudonym's", 15)
        made = [stored, waiting, is_open]
        lines = await services.store.records(RecordQuery())
        assert {line["id"] for line in lines} == {one.id for one in made}
        assert {line["user"][:5] for line in lines} == {"gone:"}
        await services.store.append(made)  # as a reconciliation may
        assert await services.erasure.look() == {"finished": 0, "reassigned": 0}
        (row,) = await services.store.usage(UsageQuery())
        assert (row.requests, row.cost) == (3, sum(one.cost for one in made))
        assert (await services.periodic.reconciliation.run(timedelta(days=2))).discrepancy == 0


async def test_late_records_follow_who_is_gone(settings: Settings) -> None:
    await late_records_follow(settings)


@pytest.mark.service
async def test_late_records_follow_who_is_gone_in_production(production: Settings) -> None:
    await late_records_follow(production)


def stored_in(url: str) -> str:
    """All but the audit log."""
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        names = [name for name in database.list_collection_names() if name != "audit"]
        assert {"users", "keys", "records", "sums"} <= set(names)
        return repr([list(database[name].find()) for name in names])


@pytest.mark.service
async def test_who_is_gone_is_refused_by_every_worker_within_a_second(production: Settings) -> None:
    in_force = InForce(production)
    async with open_services(in_force, CLOCK) as first, open_services(in_force, CLOCK) as second:
        key = await first.control.keys.create(ACTOR, NewKey(user="alice", name="k"))
        await first.shelf.put("sessions", "one", b"1", 60, owner="alice")
        await first.store.append([record(random.Random(1), CLOCK.now(), user="alice", key_id=key.key.id)])
        token = key.token.reveal().encode()
        assert (await second.gateway.authenticate(token)).user == "alice"

        await first.erasure.forget(ACTOR, "alice")
        await eventually_answers(lambda: is_refused(second, token), "the other worker refuses", 1)
        assert isinstance(first.state, RedisState)
        assert await first.state.ask(("KEYS", "*alice*")) == []
        assert production.mongo_url is not None
        assert "alice" not in await asyncio.to_thread(stored_in, production.mongo_url.reveal())
        assert (await first.control.audit.verify()).bad is None


async def test_what_is_left_in_journals(tmp_path: Path) -> None:
    (orphan, done) = (record(random.Random(n), outcome=None) for n in (1, 2))
    with FileJournal(tmp_path / JOURNAL, worker="dead") as dead:
        for one in (orphan, done):
            dead.reserve(one)
        done.outcome = "completed"
        dead.settle(done)
        dead.bury([done])
    left = await left_in(tmp_path / JOURNAL)
    assert (dict(left.settled), left.orphans, left.dead_letters) == ({done.id: done}, 1, 1)
