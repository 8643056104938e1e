import asyncio
import hashlib
import json
import random
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from llmgateway.domain.upkeep import Retention
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.sqlite import open_sqlite
from llmgateway.stores.worker_lock import lock
from tests.cli.conftest import Ask, Run
from tests.lab.processes import Program, clean_environment
from tests.lab.waiting import wait_until
from tests.stores.samples import NOON, moments, record

pytestmark = pytest.mark.service

NOW = NOON + timedelta(days=9)
PEPPER = "another-pepper-0123456789-0123456789"


@pytest.fixture
def data(tmp_path: Path, ask: Ask) -> Path:
    """Of a small team: people, a project, limits, news, calls, some of which are sums only by now."""
    ask("keys", "create", "--user", "alice", "--name", "laptop", "--models", "echo", "--expires", "80d")
    ask("projects", "create", "thesis", "--responsible", "alice", "--expires", "90d")
    ask("keys", "create", "--project", "thesis", "--name", "nightly")
    ask("limits", "set", "user", "alice", "tokens_per_day=2000000")
    ask("announcements", "create", "Moving on Sunday")
    remember(tmp_path / "data", 300)
    return tmp_path / "data"


def remember(data: Path, count: int) -> None:
    chance = random.Random(count)

    async def append() -> None:
        async with open_sqlite(data / "llmgateway.db") as store:
            await store.append([record(chance, at) for at in moments(chance, count, NOON, NOW)])
            await store.drop(Retention(records=5, hourly=5), NOW)

    asyncio.run(append())


@pytest.fixture
def stores(mongo_url: str, redis_url: str) -> list[str]:
    return ["--mongo-url", mongo_url, "--redis-url", redis_url]


@pytest.fixture
def production(data: Path, stores: list[str]) -> list[str]:
    """The options of production, with the secrets of the source."""
    names = ("admin-key", "secret-keys")
    secrets = [word for name in names for word in (f"--{name}-file", str(data / name.replace("-", "_")))]
    return [*stores, *secrets, "--key-pepper-file", str(data / "key_pepper")]


@pytest.fixture
def database(mongo_url: str) -> Iterator[Any]:
    with MongoClient[dict[str, Any]](mongo_url) as client:
        yield client.get_default_database()


def told(run: Run, *words: str) -> tuple[int, dict[str, Any]]:
    code, said = run("migrate", "--json", *words)
    return code, json.loads(said[said.index("{\n") : said.rindex("}") + 1])


def left_in(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.rglob("*")
        if path.is_file()
    }


def total(report: dict[str, Any], field: str) -> int:
    return sum(part[field] for part in report["parts"])


def test_everything_is_there_afterwards(
    run: Run, ask: Ask, data: Path, stores: list[str], production: list[str]
) -> None:
    questions = [
        ("keys", "list"), ("users", "list"), ("projects", "show", "thesis"), ("limits", "list"),
        ("announcements", "list"), ("audit", "verify"), ("usage", "--by", "day,user,model,key,project"),
        ("usage", "--by", "day", "--tz", "Asia/Tokyo"),
    ]  # fmt: skip
    before, files = [ask(*words) for words in questions], left_in(data)
    code, report = told(run, *stores)
    assert (code, report["findings"]) == (0, [])
    assert total(report, "copied") == total(report, "in_source") > 100
    assert left_in(data) == files
    assert [ask(*words, *production) for words in questions] == before

    code, report = told(run, *stores)
    assert (code, total(report, "copied"), total(report, "to_copy")) == (0, 0, 0)
    assert report["audit"]["head"] == ask("audit", "verify")["head"]


def test_a_dry_run_writes_nothing(run: Run, data: Path, stores: list[str], database: Any) -> None:
    code, said = run("migrate", "--dry-run", *stores)
    assert (code, "this was a dry run" in said) == (0, True)
    assert not any(database[name].count_documents({}) for name in database.list_collection_names())
    assert "LLMGATEWAY_KEY_PEPPER_FILE=" in said


def test_words_for_people_and_no_secret(run: Run, data: Path, stores: list[str]) -> None:
    code, said = run("migrate", *stores)
    assert code == 0
    for words in ("All is there", "The audit log is whole", "people sign in to the portal again"):
        assert words in said
    for name in ("admin_key", "secret_keys", "key_pepper"):
        assert str(data / name) in said
        assert (data / name).read_text().strip() not in said
    assert "llmgateway: looking at keys" in said


def test_what_is_in_the_way_is_listed_and_nothing_is_written(
    run: Run, data: Path, stores: list[str], database: Any
) -> None:
    database["users"].insert_one({"_id": "alice", "revision": 0, "name": "another Alice"})
    database["audit"].insert_one({"_id": "0000000000000001", "revision": 0, "hash": "?"})
    database["records"].insert_one({"_id": "0", "at": NOON, "user": "eve"})
    code, report = told(run, *stores)
    assert code == 1
    assert {(one["part"], one["id"]) for one in report["findings"]} == {
        ("users", "alice"), ("audit", "0000000000000001"), ("records", "-"),
    }  # fmt: skip
    assert total(report, "copied") == 0
    names = ("users", "audit", "records", "keys", "sums", "projects")
    assert sum(database[name].count_documents({}) for name in names) == 3
    code, said = run("migrate", *stores)
    assert code == 1
    assert "Nothing was written; this is in the way:" in said
    assert "alice" in said


def test_a_run_that_was_killed_is_gone_on_with(
    run: Run, data: Path, stores: list[str], database: Any, tmp_path: Path
) -> None:
    remember(data, 8_000)
    argv = [sys.executable, "-m", "llmgateway", "migrate", "--from", str(data), *stores]
    with Program(argv, tmp_path / "log", cwd=tmp_path, environment=clean_environment()) as program:
        wait_until(lambda: database["records"].find_one() is not None, "the ledger is under way", 20)
        program.signal(signal.SIGKILL)
        program.wait()
    there = database["records"].count_documents({})
    code, report = told(run, *stores)
    assert code == 0, report["findings"]
    records = report["parts"][-1]
    assert 0 < there <= records["was_there"]
    assert records["was_there"] + records["copied"] == records["in_source"]


def test_a_running_gateway_is_left_alone(run: Run, data: Path, stores: list[str]) -> None:
    fd = lock(data)
    assert fd is not None
    code, said = run("migrate", *stores)
    assert (code, f"A gateway runs on {data}" in said) == (1, True)


def test_what_is_only_in_the_journal_is_shipped_first(
    run: Run, ask: Ask, data: Path, stores: list[str]
) -> None:
    one, open_ = record(random.Random(1)), record(random.Random(2), outcome=None)
    with FileJournal(data / "journal", worker="dead") as journal:
        code, said = run("migrate", *stores)
        assert (code, "Somebody is at work on" in said) == (1, True)
        for each in (one, open_):
            journal.reserve(each)
        journal.settle(one)
    code, said = run("migrate", *stores)
    assert code == 1
    assert "holds 2 records that the ledger there does not have yet" in said
    assert "llmgateway ledger replay" in said
    ask("ledger", "replay")
    assert told(run, *stores)[0] == 0


def test_another_pepper_is_found_before_anything_is_copied(
    run: Run, data: Path, stores: list[str], database: Any
) -> None:
    code, said = run("migrate", *stores, "--key-pepper", PEPPER)
    assert code == 1
    assert f"is another one than in {data}/key_pepper" in said
    assert PEPPER not in said
    assert (data / "key_pepper").read_text().strip() not in said
    assert "keys" not in database.list_collection_names() or not database["keys"].count_documents({})


def test_other_secrets_are_only_told_of(run: Run, data: Path, stores: list[str]) -> None:
    code, said = run(
        "migrate", "--dry-run", *stores, "--admin-key", "another-admin-key-0123456789-0123456789"
    )
    assert code == 0
    assert f"ADMIN_KEY_FILE={data}/admin_key  (another one is given now)" in said


def test_without_the_file_of_the_pepper_it_is_asked_for(run: Run, data: Path, stores: list[str]) -> None:
    """The gateway there was given it by a setting."""
    (data / "key_pepper").unlink()
    code, said = run("migrate", "--dry-run", *stores)
    assert (code, "LLMGATEWAY_KEY_PEPPER: is required" in said) == (2, True)
    code, said = run("migrate", "--dry-run", *stores, "--key-pepper", PEPPER)
    assert (code, "as the gateway there was given it" in said) == (0, True)


def test_there_is_nothing_to_be_copied_or_nowhere_to_go(run: Run, tmp_path: Path) -> None:
    code, said = run(
        "migrate", "--mongo-url", "mongodb://127.0.0.1:1/x", "--redis-url", "redis://127.0.0.1:1"
    )
    assert (code, f"{tmp_path}/data/llmgateway.db: No such file" in said) == (2, True)
    assert not (tmp_path / "data").exists()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "llmgateway.db").touch()
    code, said = run("migrate", "--from", str(tmp_path / "elsewhere"))
    assert (code, "MONGO_URL, REDIS_URL: are missing" in said) == (2, True)


def test_where_mongodb_is_away(run: Run, data: Path, config: Path) -> None:
    config.write_text("stores: {mongo_timeout: 0.3}")
    code, said = run(
        "migrate", "--mongo-url", "mongodb://127.0.0.1:1/x", "--redis-url", "redis://127.0.0.1:1"
    )
    assert (code, "MongoDB is not available" in said) == (1, True)


def test_where_redis_is_away_all_is_copied(run: Run, data: Path, mongo_url: str, config: Path) -> None:
    config.write_text("stores: {redis_timeout: 0.3}")
    code, said = run("migrate", "--mongo-url", mongo_url, "--redis-url", "redis://127.0.0.1:1")
    assert (code, "need a minute to see all of it" in said) == (0, True)


def test_a_log_that_is_broken_there_is_copied_and_told_of(
    run: Run, data: Path, stores: list[str], database: Any
) -> None:
    spoil(
        data, "UPDATE documents SET doc = json_set(doc, '$.who', 'eve') WHERE kind = 'audit' AND id LIKE '%2'"
    )
    code, report = told(run, *stores)
    assert code == 1
    (finding,) = report["findings"]
    assert finding["what"] == "it was altered, in the source as here"
    assert total(report, "copied") == total(report, "in_source")


def spoil(data: Path, sql: str) -> None:
    async def change() -> None:
        async with open_sqlite(data / "llmgateway.db") as store:
            await store.file.write(lambda connection: connection.execute(sql).rowcount)

    asyncio.run(change())


def test_who_signs_in_with_a_password_and_letters_that_are_dead(
    run: Run, data: Path, stores: list[str]
) -> None:
    spoil(data, "INSERT INTO documents VALUES ('accounts', 'bob', 0, '{\"id\": \"bob\", \"revision\": 0}')")
    with FileJournal(data / "journal", worker="one") as journal:
        journal.bury([record(random.Random(1))])
    code, said = run("migrate", *stores)
    assert code == 0
    assert "1 person signs in with a password: production lets them with `sign_in: {local: true}`" in said
    assert "1 record is in no ledger" in said
