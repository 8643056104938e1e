import asyncio
import csv
import io
import random
from pathlib import Path

import pytest

from llmgateway.cli.reports import money
from llmgateway.stores.sqlite import open_sqlite
from tests.cli.conftest import Ask, Run
from tests.stores.samples import record


def fill(directory: Path, count: int) -> None:
    async def append() -> None:
        chance = random.Random(1)
        async with open_sqlite(directory / "data" / "llmgateway.db") as store:
            await store.append([record(chance, user="alice", cost=1_500_000) for _ in range(count)])

    asyncio.run(append())


def test_usage_is_summed_for_people_programs_and_spreadsheets(ask: Ask, run: Run, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (row,) = ask("usage", "--by", "user")["data"]
    assert (row["user"], row["requests"], row["cost"]) == ("alice", 3, 4_500_000)
    code, said = run("usage", "--by", "user")
    assert code == 0
    assert "4.50 EUR" in said
    table = list(csv.DictReader(io.StringIO(run("usage", "--by", "user", "--csv")[1])))
    assert [(line["user"], line["requests"]) for line in table] == [("alice", "3")]
    assert "Nothing was used" in run("usage", "--to", "2020-01-01")[1]


@pytest.mark.parametrize(
    ("micro", "said"), [(0, "0.00 EUR"), (1, "0.000001 EUR"), (1_234_500_000, "1,234.50 EUR")]
)
def test_money_is_exact(micro: int, said: str) -> None:
    assert money(micro, "EUR") == said


def test_the_log_of_changes_is_whole_or_says_where_it_is_not(ask: Ask, run: Run, tmp_path: Path) -> None:
    made = ask("keys", "create", "--user", "alice", "--name", "laptop")
    assert made
    verdict = ask("audit", "verify")
    assert (verdict["lines"], verdict["bad"]) == (2, None)
    assert run("audit", "verify")[0] == 0

    async def forge() -> None:
        async with open_sqlite(tmp_path / "data" / "llmgateway.db") as store:
            (line,) = (await store.find("audit", {}, limit=1)).data
            await store.replace("audit", {**line, "who": "somebody else", "revision": 1})

    asyncio.run(forge())
    code, said = run("audit", "verify")
    assert code == 1
    assert "broken" in said


def test_one_format_at_a_time(run: Run) -> None:
    code, said = run("usage", "--csv", "--json")
    assert code == 2
    assert "Choose one of --csv and --json." in said
