"""What the tests show of load, faults and accounting: `docs/reliability.md` lists every item, and a test has
its name, or the page says why there is none."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
NUMBERS = {
    "load": range(1, 17),
    "fault": (*range(1, 18), *range(20, 26), *range(30, 36), *range(40, 54)),
    "acc": range(1, 22),
}
CELL = r" ([^|]*) \|"
ROW = re.compile(r"^\| (R-\w+-\d\d) \| (push|soak|release) \|" + 4 * CELL + "$", re.MULTILINE)
NOT_HERE = "not here"
DAY = re.compile(r"20\d\d-\d\d-\d\d")


class Row(NamedTuple):
    """A line of the table."""

    item: str
    when: str
    what: str
    result: str
    figure: str
    date: str


class Named(NamedTuple):
    """A test and the items in its name: `test_r_fault_20_21_r_acc_08_...`."""

    name: str
    items: frozenset[str]
    is_soak: bool


def rows() -> dict[str, Row]:
    found = [Row(*map(str.strip, match)) for match in ROW.findall(PAGE.read_text())]
    assert max(Counter(row.item for row in found).values()) == 1
    return {row.item: row for row in found}


@cache
def named() -> list[Named]:
    return list(read())


def read() -> Iterator[Named]:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        module = ast.parse(path.read_text())
        marks = [ast.unparse(node.value) for node in module.body if isinstance(node, ast.Assign)
                 and ast.unparse(node.targets[0]) == "pytestmark"]  # fmt: skip
        for node in (one for one in ast.walk(module) if hasattr(one, "decorator_list")):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (items := items_in(node.name)):
                own = [ast.unparse(mark) for mark in node.decorator_list]
                is_soak = any(mark.endswith("pytest.mark.soak") for mark in own)
                is_soak = is_soak or any("pytest.mark.soak" in mark for mark in marks)
                yield Named(node.name, items, is_soak)


def items_in(name: str) -> frozenset[str]:
    found, group = set(), None
    for word in name.removeprefix("test_").split("_"):
        if word in NUMBERS:
            group = word
        elif group and re.fullmatch(r"\d\d", word):
            found.add(f"R-{group}-{word}")
        elif word != "r":
            group = None
    return frozenset(found)


def test_names_are_read() -> None:
    name = "test_r_fault_20_21_r_acc_08_of_10_calls"
    assert items_in(name) == {"R-fault-20", "R-fault-21", "R-acc-08"}
    assert items_in("test_loads_of_12_things") == frozenset()


def test_the_page_lists_every_item_and_nothing_else() -> None:
    assert set(rows()) == {f"R-{group}-{number:02}" for group, some in NUMBERS.items() for number in some}


def test_every_item_has_a_test_or_a_reason() -> None:
    tested = set().union(*(test.items for test in named()))
    listed = rows()
    assert tested <= listed.keys(), "a name that stands for nothing"
    without = {item for item, row in listed.items() if row.result.startswith(NOT_HERE)}
    assert not [item for item in without if len(listed[item].result) < len(NOT_HERE) + 10], "why?"
    assert listed.keys() - tested <= without


def test_what_is_for_every_push_runs_at_every_push() -> None:
    usual = set().union(*(test.items for test in named() if not test.is_soak))
    listed = [row for row in rows().values() if row.when == "push" and not row.result.startswith(NOT_HERE)]
    assert not {row.item for row in listed} - usual


def test_results_are_dated() -> None:
    undated = [row.item for row in rows().values() if not DAY.fullmatch(row.date)]
    assert not undated
