"""The stores start, freeze, die and come back, with or without what they knew."""

import time
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError, TimeoutError as RedisTimeoutError

from tests.lab import processes
from tests.lab.processes import Program, free_port, python, state_of
from tests.lab.servers import Mongod, Valkey
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.service


def redis_at(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=0.2, retry=None)


def mongo_at(url: str, **options: Any) -> MongoClient[dict[str, Any]]:
    return MongoClient(url, tz_aware=True, **options)


def test_databases_of_two_tests_are_apart(valkey: Valkey, redis_url: str) -> None:
    with redis_at(redis_url) as mine, redis_at(valkey.url(0)) as other:
        mine.set("k", "v")
        assert mine.get("k") == b"v"
        assert other.get("k") is None


def test_a_frozen_valkey_accepts_and_is_silent(valkey: Valkey) -> None:
    with redis_at(valkey.url()) as client:
        client.ping()
        with valkey.program.frozen():
            assert state_of(valkey.pid) == "T"
            assert processes.is_listening(valkey.port)
            with pytest.raises(RedisTimeoutError):
                client.get("k")
        assert client.ping()


def test_valkey_comes_back_on_its_port_and_has_forgotten(own_valkey: Valkey) -> None:
    port = own_valkey.port
    with redis_at(own_valkey.url()) as client:
        client.set("k", "v")
        own_valkey.stop()
        with pytest.raises(RedisConnectionError):
            client.get("k")
        own_valkey.start()
        assert own_valkey.port == port
        assert client.get("k") is None


def test_mongod_is_a_writable_set_with_transactions(mongo_url: str) -> None:
    with mongo_at(mongo_url) as client, client.start_session() as session:
        records = client.get_default_database()["records"]
        records.create_index("n", unique=True)
        with session.start_transaction():
            records.insert_one({"n": 1}, session=session)
        assert records.count_documents({}) == 1


def test_a_frozen_mongod_makes_clients_time_out(mongod: Mongod, mongo_url: str) -> None:
    with mongo_at(mongo_url, socketTimeoutMS=200, serverSelectionTimeoutMS=200) as client:
        records = client.get_default_database()["records"]
        records.insert_one({"_id": 1})
        with mongod.program.frozen(), pytest.raises(PyMongoError):
            records.insert_one({"_id": 2})
    with mongo_at(mongo_url) as client:
        assert client.get_default_database()["records"].find_one({"_id": 1})


def test_mongod_comes_back_with_or_without_its_data(own_mongod: Mongod) -> None:
    url = own_mongod.url("lab")
    with mongo_at(url) as client:
        client["lab"]["records"].insert_one({"_id": 1})
    began = time.monotonic()
    own_mongod.kill()
    own_mongod.start()
    assert time.monotonic() - began < processes.PATIENCE
    with mongo_at(url) as client:
        assert client["lab"]["records"].count_documents({}) == 1
    own_mongod.restart_empty()
    with mongo_at(url) as client:
        assert client["lab"]["records"].count_documents({}) == 0


def test_a_program_that_ends_at_once_shows_its_last_words(tmp_path: Path) -> None:
    program = Program(python("-c", "raise SystemExit('no licence')"), tmp_path / "log")
    with program, pytest.raises(pytest.fail.Exception, match="no licence"):
        program.wait_until_ready(lambda: False)


def test_stop_gives_the_exit_code_and_leaves_no_child(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, signal; signal.signal(15, lambda *_: sys.exit(3));"
        "child = subprocess.Popen(['sleep', '60']); print(child.pid); child.wait()"
    )
    program = Program(python("-c", code), tmp_path / "log")
    program.start()
    program.wait_until_ready(lambda: program.output().endswith("\n"))
    child = int(program.output())
    assert program.stop() == 3
    wait_until(lambda: not Path(f"/proc/{child}").exists() or state_of(child) == "Z", "the child has ended")


def test_a_missing_part_is_skipped_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="pip install x"):
        processes.absent("x", "pip install x")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="pip install x"):
        processes.absent("x", "pip install x")


def test_a_free_port_is_free() -> None:
    assert not processes.is_listening(free_port())
