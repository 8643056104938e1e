"""Lists of what a gateway has to stand, as pages of `docs/`: a line for each item, whose number stands in the
names of tests."""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
NOT_HERE = "not here"
DAY = re.compile(r"20\d\d-\d\d-\d\d")
ITEMS = re.compile(r"(?<![a-z])([rs])_([a-z]+)((?:_(?:to_)?\d\d)+)(?![a-z\d])")
ROW = re.compile(r"^\| ([RS]-\w+-\d\d) \| (push|soak|release) \|" + r" ([^|]*) \|" * 4 + "$", re.MULTILINE)


class Row(NamedTuple):
    """A line of a table."""

    item: str
    when: str
    what: str
    result: str
    figure: str
    date: str

    @property
    def is_not_here(self) -> bool:
        return self.result.startswith(NOT_HERE)


class Named(NamedTuple):
    """A test and the items in its name: `test_r_fault_20_21_r_acc_08_...`, `test_s_saml_01_to_08_...`."""

    name: str
    items: frozenset[str]
    is_soak: bool


def items_in(name: str) -> frozenset[str]:
    return frozenset(
        f"{letter.upper()}-{group}-{number:02}"
        for letter, group, numbers in ITEMS.findall(name.removeprefix("test_"))
        for number in spelt_out(numbers)
    )


def spelt_out(numbers: str) -> Iterator[int]:
    last = 0
    for word in numbers.replace("_to_", "-").strip("_").replace("-", "_-").split("_"):
        number = int(word.strip("-"))
        yield from range(last + 1, number) if word.startswith("-") else ()
        yield (last := number)


@cache
def named() -> list[Named]:
    """Every test of this project that has an item in its name."""
    return list(_read())


def _read() -> Iterator[Named]:
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


class Catalogue:
    """A page, and the numbers that each group of its list has."""

    def __init__(self, page: str, letter: str, groups: Mapping[str, range | tuple[int, ...]]) -> None:
        self.page = ROOT / "docs" / page
        self.items = {f"{letter}-{group}-{number:02}" for group, some in groups.items() for number in some}
        self._letter = letter

    def rows(self) -> dict[str, Row]:
        found = [Row(*map(str.strip, match)) for match in ROW.findall(self.page.read_text())]
        assert max(Counter(row.item for row in found).values()) == 1
        return {row.item: row for row in found}

    def tests(self) -> list[Named]:
        return [one for one in named() if any(item.startswith(self._letter) for item in one.items)]

    def tested(self, *, soak: bool = True) -> set[str]:
        """The items in the names of tests."""
        some = [test.items for test in self.tests() if soak or not test.is_soak]
        return {item for items in some for item in items if item.startswith(self._letter)}

    def check(self) -> None:
        """The page lists every item and nothing else; each has a test or a reason, what is for every push
        runs at every push, and every result has its day."""
        listed = self.rows()
        assert set(listed) == self.items
        assert self.tested() <= self.items, "a name that stands for nothing"
        without = {item for item, row in listed.items() if row.is_not_here}
        assert not [item for item in without if len(listed[item].result) < len(NOT_HERE) + 10], "why?"
        assert listed.keys() - self.tested() <= without
        pushed = {row.item for row in listed.values() if row.when == "push" and not row.is_not_here}
        assert not pushed - self.tested(soak=False)
        assert not [row.item for row in listed.values() if not DAY.fullmatch(row.date)]
